"""From what a reader found to a plan: every error named at once, the DAG, its waves, ranks, critical path, conflicts.

The graph is networkx's, with an edge from a story to each that waits for it. What is slow there on big graphs
(`find_cycle`, the transitive functions) is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, product
from typing import TYPE_CHECKING

import networkx as nx

from mcp_server.core.apart import not_exempt, stricter
from mcp_server.core.draft import (
    BadEpic,
    DraftStory,
    EpicDraft,
    Mention,
    PlanError,
    epic_id,
    find_errors,
    is_id,
    is_too_big,
    spec_of,
)
from mcp_server.core.footprint import narrower, touching
from mcp_server.core.likely import LIKELY, Hits, Learned, chance, likely
from mcp_server.core.predict import Known, hot_files, predicted
from mcp_server.core.spec import EpicSpec, Sharing, Source, StoryId, StorySpec

if TYPE_CHECKING:
    Graph = nx.DiGraph[StoryId]

__all__ = ["BadEpic", "DraftStory", "EpicDraft", "Mention", "Overlap", "Plan", "PlanError", "epic_id", "is_id", "plan"]

MINUTES_A_POINT = 30.0
MINUTES_UNKNOWN = 30.0
"""A story nobody has estimated counts like one point. The order of work depends only on the ratios."""
MAX_OVERLAPS = 10_000
GAIN_MIN = 1.05
"""Exempt files are proposed when useful parallelism grows at least so much."""
_COMPARISONS = 60_000
_SHOWN_IDS = 12


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two unfinished stories that name the same files, in the order of the epic."""

    a: StoryId
    b: StoryId
    shared: tuple[str, ...]
    ordered: bool
    """One waits for the other anyway, so they can never meet."""
    apart: bool = True
    """They never run side by side; else the merge queue settles it."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Files that everything touches, which `footprint_exempt` could take out of what keeps stories apart."""

    shares: Mapping[str, float]
    """Share of the commits, or of the merged stories, that touch each."""
    useful: float
    """The epic's useful parallelism with that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An epic that can be run, and what can be said of it before it runs."""

    spec: EpicSpec
    levels: Mapping[StoryId, int]
    """Longest chain of dependencies that ends in the story, from 1."""
    ranks: Mapping[StoryId, float]
    """Minutes from the story's start to the end of the epic along its longest path, queues at shared files included."""
    waves: tuple[tuple[StoryId, ...], ...]
    """The stories by level, within a level by falling rank."""
    critical_path: tuple[StoryId, ...]
    """The longest chain of unfinished stories."""
    critical_minutes: float
    work_minutes: float
    """All unfinished work, one after the other."""
    overlaps: tuple[Overlap, ...]
    warnings: tuple[str, ...]
    useful: float = 1.0
    """Work through the longest way to its end, queues at shared files included: more agents than that do not help."""
    proposal: Proposal | None = None
    sources: Mapping[Source, Hits] = field(default_factory=dict[Source, Hits])
    """How good footprints have been in this repository, by where they came from."""


def plan(
    draft: EpicDraft, *, redo: bool = False, config_checks: bool | None = None, known: Known | None = None
) -> Plan:
    """Judge an epic and plan it. `redo` plans stories again that are marked done.

    `config_checks` says whether the configuration has checks that hold for every story; None when nobody knows.
    With what is `known` of the repository, files are predicted for stories, else only what they declare counts.
    Raises `BadEpic` with every error at once.
    """
    errors = list(find_errors(draft))
    graph = _graph(draft)
    errors += _cycle_errors(draft, graph)
    if errors:
        raise BadEpic(tuple(sorted(errors, key=lambda error: error.line or 0)), draft.source)
    spec = spec_of(draft, redo=redo)
    if known is not None:
        spec = predicted(spec, known.past, known.learned)
    known = known or Known()
    stories = {story.id: story for story in spec.stories}
    generations = [list(generation) for generation in nx.topological_generations(graph)]
    order = [story for generation in generations for story in generation]
    minutes = {story.id: 0.0 if story.done else duration_minutes(story) for story in spec.stories}
    open_stories = [story for story in spec.stories if not story.done]
    claims = _Claims.of(spec, open_stories, known)
    pairs, all_compared = touching(claims.named, budget=_COMPARISONS)
    bare = _ranks(graph, order, minutes, queues=())

    def ranked(claims: _Claims) -> dict[StoryId, float]:
        return _ranks(graph, order, minutes, queues=_queues(claims, pairs))

    ranks, work_minutes = ranked(claims), sum(minutes.values())
    position = {story: index for index, story in enumerate(stories)}
    waves = tuple(tuple(sorted(g, key=lambda story: (-ranks[story], position[story]))) for g in generations)
    path = _critical_path(graph, bare, position)
    overlaps = tuple(_overlaps(open_stories, claims, pairs, _below(graph, order)))
    return Plan(
        spec=spec,
        levels={story: level for level, wave in enumerate(waves, start=1) for story in wave},
        ranks=ranks,
        waves=waves,
        critical_path=tuple(story for story in path if not stories[story].done),
        critical_minutes=max(bare.values()),
        work_minutes=work_minutes,
        overlaps=overlaps,
        warnings=tuple(_warnings(spec, config_checks, cut=not all_compared or len(overlaps) == MAX_OVERLAPS)),
        useful=_useful(work_minutes, ranks),
        proposal=_proposal(claims, known, _useful(work_minutes, ranks), lambda c: _useful(work_minutes, ranked(c))),
        sources=known.learned.sources,
    )


def duration_minutes(story: StorySpec) -> float:
    """Expected minutes of a story: its minutes, else 30 a point, else 30."""
    if story.minutes is not None:
        return story.minutes
    return MINUTES_UNKNOWN if story.points is None else story.points * MINUTES_A_POINT


def _graph(draft: EpicDraft) -> Graph:
    """The edges between stories that exist; the other dependencies are errors of their own."""
    graph: Graph = nx.DiGraph()
    if is_too_big(draft):
        return graph
    graph.add_nodes_from(story.id for story in draft.stories)
    for story in draft.stories:
        needed = (name for name, _ in story.depends_on if name in graph and name != story.id)
        graph.add_edges_from((name, story.id) for name in needed)
    return graph


def _cycle_errors(draft: EpicDraft, graph: Graph) -> Iterator[PlanError]:
    """One error for each knot of stories that wait for each other, with a shortest way round it."""
    lines: dict[StoryId, int | None] = {}
    for story in draft.stories:
        lines.setdefault(story.id, story.line)
    position = {story: index for index, story in enumerate(lines)}
    for knot in nx.strongly_connected_components(graph):
        if len(knot) == 1:
            continue
        path = _way_round(graph.subgraph(knot), min(knot, key=position.__getitem__))
        where = [str(lines[story]) for story in path[:-1] if lines[story] is not None][:_SHOWN_IDS]
        shown = path if len(path) <= _SHOWN_IDS else [*path[: _SHOWN_IDS - 1], "...", path[0]]
        said = f"dependency cycle, each waits for the next: {' -> '.join(shown)}"
        said += f" (stories on lines {', '.join(where)})" if where else ""
        yield PlanError(lines[path[0]], "cycle", f"{said}; remove one of these dependencies.")


def _way_round(knot: Graph, start: StoryId) -> list[StoryId]:
    """The shortest cycle through `start`, as a list that begins and ends with it, each depending on the next."""
    came_from: dict[StoryId, StoryId] = {after: before for before, after in nx.bfs_edges(knot, start)}
    at = next(story for story in came_from if knot.has_edge(story, start))
    path = [start, at]
    while at != start:
        at = came_from[at]
        path.append(at)
    return path


def _ranks(
    graph: Graph, order: Sequence[StoryId], minutes: Mapping[StoryId, float], queues: Sequence[Sequence[StoryId]]
) -> dict[StoryId, float]:
    """Minutes from each story's start to the end: `own + max(rank of those that wait for it)`.

    A queue is a set of stories that exclude each other. Served by falling rank, a story is also followed by all behind
    it: `own + max(its own tail, value of the next in the queue)`. What that raises is carried up to its dependencies;
    two rounds are enough in practice (measured on histories of real commits).
    """
    raised = dict.fromkeys(order, 0.0)
    for _ in range(2):
        ranks = _carry_up(graph, order, minutes, raised)
        for queue in queues:
            behind = 0.0
            for story in sorted(queue, key=ranks.__getitem__):
                behind = minutes[story] + max(ranks[story] - minutes[story], behind)
                raised[story] = max(raised[story], behind)
    return _carry_up(graph, order, minutes, raised)


def _carry_up(
    graph: Graph, order: Sequence[StoryId], minutes: Mapping[StoryId, float], raised: Mapping[StoryId, float]
) -> dict[StoryId, float]:
    ranks: dict[StoryId, float] = {}
    for story in reversed(order):
        tail = max((ranks[waiting] for waiting in graph.successors(story)), default=0.0)
        ranks[story] = max(raised[story], minutes[story] + tail)
    return ranks


@dataclass(frozen=True, slots=True)
class _Claims:
    """Which unfinished stories claim an entry, and under which policy."""

    named: Mapping[str, Sequence[StorySpec]]
    rules: Mapping[StoryId, Sharing]
    learned: Learned

    @classmethod
    def of(cls, spec: EpicSpec, stories: Sequence[StorySpec], known: Known) -> _Claims:
        named: dict[str, list[StorySpec]] = {}
        for story in stories:
            for path in not_exempt(story.footprint, known.exempt):
                named.setdefault(path, []).append(story)
        rules = {story.id: story.overlap or spec.overlap or known.overlap for story in stories}
        return cls(named, rules, known.learned)

    def without(self, exempt: Iterable[str]) -> _Claims:
        """The same without these entries."""
        gone = set(exempt)
        return _Claims({e: n for e, n in self.named.items() if e not in gone}, self.rules, self.learned)

    def are_apart(self, one: StoryId, other: StoryId, shared: Iterable[str]) -> bool:
        """True for two that never run side by side."""
        rule = stricter(self.rules[one], self.rules[other])
        return rule is Sharing.EXCLUSIVE or (rule is Sharing.AUTO and likely(shared, self.learned) >= LIKELY)

    def queue(self, entry: str, stories: Iterable[StoryId]) -> list[StoryId]:
        """Of stories that claim an entry, those that wait for each other there."""
        found = list(stories)
        rules = {self.rules[story] for story in found}
        if Sharing.EXCLUSIVE in rules or (Sharing.AUTO in rules and chance(entry, self.learned) >= LIKELY):
            return found
        return []


def _queues(claims: _Claims, pairs: Iterable[tuple[str, str]]) -> list[list[StoryId]]:
    """For each entry that several stories name or cover, those of them that cannot be alive together."""
    named = claims.named
    queues = {entry: dict.fromkeys(story.id for story in naming) for entry, naming in named.items()}
    for one, other in pairs:
        inner = narrower(one, other)
        if inner in queues:  # of two globs neither may cover the other
            queues[inner].update(dict.fromkeys(story.id for story in named.get(other if inner == one else one, ())))
    found = (claims.queue(entry, queue) for entry, queue in queues.items() if len(queue) > 1)
    return [queue for queue in found if queue]


def _useful(work_minutes: float, ranks: Mapping[StoryId, float]) -> float:
    longest = max(ranks.values())
    return work_minutes / longest if longest else 1.0


def _proposal(claims: _Claims, known: Known, useful: float, useful_of: Callable[[_Claims], float]) -> Proposal | None:
    """The hot files that several stories of the epic claim, if it gains anything to have nobody wait for them."""
    hot = hot_files(known.past, known.learned)
    found = {path: share for path, share in hot.items() if len(claims.named.get(path, ())) > 1}
    if not found:
        return None
    then = useful_of(claims.without(found))
    return Proposal(found, then) if then >= GAIN_MIN * useful else None


def _critical_path(graph: Graph, ranks: Mapping[StoryId, float], position: Mapping[StoryId, int]) -> Iterator[StoryId]:
    candidates = list(position)
    while candidates:
        story = max(candidates, key=lambda story: (ranks[story], -position[story]))
        yield story
        candidates = list(graph.successors(story))


def _below(graph: Graph, order: Sequence[StoryId]) -> dict[StoryId, int]:
    """For each story the set of all it waits for; bit n is the nth story of the result."""
    bit = {story: 1 << index for index, story in enumerate(order)}
    below: dict[StoryId, int] = {}
    for story in order:
        below[story] = 0
        for needed in graph.predecessors(story):
            below[story] |= below[needed] | bit[needed]
    return below


def _overlaps(
    stories: Sequence[StorySpec], claims: _Claims, pairs: Sequence[tuple[str, str]], below: Mapping[StoryId, int]
) -> Iterator[Overlap]:
    """The pairs of stories that share files, in the order of the epic, cut at a bound."""
    named = claims.named
    place = {story.id: index for index, story in enumerate(stories)}
    shared: dict[tuple[int, int], set[str]] = {}
    couples = chain(
        ((entry, couple) for entry, naming in named.items() for couple in combinations(naming, 2)),
        ((narrower(one, other), couple) for one, other in pairs for couple in product(named[one], named[other])),
    )
    for entry, (one, other) in couples:
        a, b = sorted((place[one.id], place[other.id]))
        if a != b:
            shared.setdefault((a, b), set()).add(entry)
        if len(shared) == MAX_OVERLAPS:
            break
    bit = {story: 1 << index for index, story in enumerate(below)}
    for (a, b), entries in sorted(shared.items()):
        first, second = stories[a].id, stories[b].id
        ordered = bool(below[first] & bit[second] or below[second] & bit[first])
        together = tuple(sorted(entries))
        yield Overlap(first, second, together, ordered, claims.are_apart(first, second, together))


def _warnings(spec: EpicSpec, config_checks: bool | None, *, cut: bool) -> Iterator[str]:
    open_stories = [story for story in spec.stories if not story.done]
    if not open_stories:
        yield "All stories are marked done: there is nothing to run. Plan with redo to run them again."
        return
    bare = [story.id for story in open_stories if not story.footprint]
    if bare:
        yield (
            f"{len(bare)} of {len(open_stories)} stories name no files ({_some(bare)}): nothing keeps them apart from "
            "others, and a conflict shows only when they are merged."
        )
    unchecked = [story.id for story in open_stories if not (story.checks or story.guards)]
    if not spec.checks and unchecked and not config_checks:
        others = "nor has the epic" if config_checks is None else "nor have the epic and the configuration"
        unless = " unless the configuration has some" if config_checks is None else ""
        yield (
            f"{len(unchecked)} of {len(open_stories)} stories have no checks of their own, {others}: "
            f"what they merge is not proven{unless}."
        )
    if cut:
        yield f"Not all shared files are listed; {MAX_OVERLAPS} pairs and {_COMPARISONS} comparisons are the bound."


def _some(ids: Sequence[StoryId]) -> str:
    return ", ".join(ids[:_SHOWN_IDS]) + (", ..." if len(ids) > _SHOWN_IDS else "")
