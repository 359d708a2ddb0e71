"""What plan_epic answers: the plan, where its footprints come from, and how good those have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from mcp_server.core.planning import Plan
from mcp_server.core.spec import Source
from mcp_server.server.paging import Entry, Reply, clip, cut_totals, go_on, lists, named, page, totals
from mcp_server.server.wire import FIRST, TEXT_TOKENS, TITLE_TOKENS

PROPOSAL_TOKENS = 110


class Conflict(Reply):
    """Two stories that may touch the same files and are not ordered by a dependency."""

    stories: tuple[str, str]
    shared: list[str]


class UnusedText(Reply):
    """A line of the epic file that could not be used."""

    line: int
    text: str
    why: str


class PlanReply(Reply):
    """An epic, planned: all of it, or one page. A later page has only what the pages before it left out."""

    epic: str
    title: str = ""
    stories: int = 0
    done: int = 0
    """Stories that the file marks as done."""
    waves: dict[str, list[str]] = Field(default_factory=dict[str, list[str]], description="Stories by wave.")
    critical_path: list[str] = Field(default_factory=list[str])
    critical_path_minutes: float = 0
    work_minutes: float = 0
    useful_slots: float = 0
    conflicts: list[Conflict] = Field(default_factory=list[Conflict], description="They never run side by side.")
    footprints: list[str] = Field(default_factory=list[str])
    warnings: list[str] = Field(default_factory=list[str])
    unused_lines: list[UnusedText] = Field(default_factory=list[UnusedText])
    notices: list[str] = Field(default_factory=list[str])
    totals: dict[str, int] = Field(default_factory=dict[str, int], description="How long a list is that was cut.")
    more_offset: int | None = None
    next: str

    @classmethod
    def of(cls, plan: Plan, unused: Sequence[UnusedText], notices: Sequence[str]) -> PlanReply:
        """The whole plan."""
        return cls._with(plan, _plan_entries(plan, unused, notices, short=False), 0, None, {})

    @classmethod
    def page(cls, plan: Plan, unused: Sequence[UnusedText], notices: Sequence[str], offset: int) -> PlanReply:
        """What there is from `offset` on, as far as one reply may go."""
        entries = _plan_entries(plan, unused, notices, short=True)
        long = totals(entries)
        return page(entries, offset, lambda shown, more: cls._with(plan, shown, offset, more, long))

    @classmethod
    def _with(
        cls, plan: Plan, entries: Sequence[Entry], offset: int, more: int | None, long: Mapping[str, int]
    ) -> PlanReply:
        found, epic = lists(entries), plan.spec.id
        waves: dict[str, list[str]] = {}
        for wave, story in found.pop("waves", []):
            waves.setdefault(str(wave), []).append(story)
        start = f"start_wave(epic={epic!r}) runs the ready stories; through='all' runs to the end."
        reply = cls.model_validate(
            {"epic": epic, "waves": waves, "more_offset": more, "next": go_on(more) + start, **found}
        )
        if offset == 0:
            reply.title = clip(plan.spec.title, TITLE_TOKENS)
            reply.stories = len(plan.spec.stories)
            reply.done = sum(s.done for s in plan.spec.stories)
            reply.critical_path_minutes = round(plan.critical_minutes, 1)
            reply.work_minutes = round(plan.work_minutes, 1)
            reply.useful_slots = round(plan.useful, 1)
            reply.totals = cut_totals(long, entries)
            if "waves" in reply.totals:
                reply.totals["waves"] = len(plan.waves)  # so many waves, with so many stories
        return reply


def footprint_words(plan: Plan) -> list[str]:
    """Where footprints come from and how good that source has been here; then each story that did not list its own."""
    stories = [story for story in plan.spec.stories if not story.done]
    users = {
        Source.DECLARED: [s for s in stories if s.files],
        Source.TEXT: [s for s in stories if s.footprint and not s.files],
        Source.HISTORY: [s for s in stories if s.guessed(Source.HISTORY)],
    }
    lines: list[str] = []
    for source, using in users.items():
        hits = plan.sources.get(source)
        record = "no record yet"
        if hits is not None:
            record = f"precision {hits.precision:.2f}, recall {hits.recall:.2f} of {hits.stories} merged"
        if using:
            lines.append(f"{len(using)} by {source}: {record}")
    for story in stories:
        named = () if story.files else story.footprint
        likely = story.guessed(Source.HISTORY)
        if named or likely:
            text = f" {', '.join(named[:FIRST])} (text)" if named else ""
            lines.append(f"{story.id}:{text}" + (f" likely {', '.join(likely)} (history)" if likely else ""))
    return lines


def proposal_words(plan: Plan) -> list[str]:
    """What exempting the files that everything touches would gain, in a sentence; none when there is nothing to say."""
    if (found := plan.proposal) is None:
        return []
    files = ", ".join(f"{path} ({share:.0%})" for path, share in found.shares.items())
    entries = ", ".join(found.shares)
    said = (
        f"Almost everything touches {files}. With `footprint_exempt: [{entries}]` in .epicwave/config.yaml useful "
        f"parallelism is {found.useful:.1f} instead of {plan.useful:.1f}; the merge queue settles what conflicts there."
    )
    return [said]


def _plan_entries(plan: Plan, unused: Sequence[UnusedText], notices: Sequence[str], *, short: bool) -> list[Entry]:
    """Everything that is listed of a plan, what a lead has to know before it starts anything first."""

    def said(text: str) -> str:
        return clip(text, TEXT_TOKENS) if short else text

    lines = [UnusedText(line=u.line, text=said(u.text), why=said(u.why)) for u in unused]
    conflicts = [
        Conflict(stories=(o.a, o.b), shared=[said(path) for path in o.shared[:3]])
        for o in plan.overlaps
        if o.apart and not o.ordered
    ]
    footprints = list(map(said, footprint_words(plan)))
    return [
        *named("warnings", map(said, plan.warnings)),
        *named("unused_lines", lines[:FIRST]),
        *named("notices", (clip(words, PROPOSAL_TOKENS) if short else words for words in proposal_words(plan))),
        *named("notices", map(said, notices)),
        *named("conflicts", conflicts[:FIRST]),
        *named("footprints", footprints[:FIRST]),
        *named("waves", ((n, story) for n, wave in enumerate(plan.waves, 1) for story in wave)),
        *named("critical_path", plan.critical_path),
        *named("unused_lines", lines[FIRST:]),
        *named("conflicts", conflicts[FIRST:]),
        *named("footprints", footprints[FIRST:]),
    ]
