"""Which files a story will touch, as a guess: from what its text names and from what changed together before.

And which files everything touches. All of it is a proposal or a default; what the author declares stands above it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from mcp_server.core.footprint import meet, normalise
from mcp_server.core.likely import NOTHING_LEARNED, Learned
from mcp_server.core.spec import EpicSpec, Predicted, Sharing, Source, StorySpec

NAMED_MAX = 20
"""Paths of one story's text that are taken, in its order."""
TOGETHER_MAX = 3
"""Files that one story is told to change, too."""
CHANGE_FILES_MAX = 25
"""A commit of more files, such as a reformatting, says nothing of what belongs together."""
SEEN_MIN = 3
TOGETHER_SHARE = 0.5
"""So often, and in at least this share of the commits to a story's files, another one has changed with them."""
HOT_SHARE = 0.15
"""A file that at least so many of all commits, or of the merged stories, touch: `CHANGELOG.md`, `pyproject.toml`."""
HOT_COMMITS_MIN = 20
HOT_STORIES_MIN = 10
_TEXT_MAX = 20_000
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w/~\\:@.-])(?:\./)?((?:[\w.@+-]+/)*[\w.@+-]*\.\w{1,12})(?![\w/(-])")


@dataclass(frozen=True)
class Past:
    """What git has of a repository: its files now, and those of each of its last commits, without merges."""

    files: frozenset[str] = frozenset()
    changes: tuple[frozenset[str], ...] = ()

    @cached_property
    def folders(self) -> frozenset[str]:
        """All folders that have files, without a closing `/`."""
        return frozenset(path[:end] for path in self.files for end, char in enumerate(path) if char == "/")

    @cached_property
    def by_name(self) -> Mapping[str, tuple[str, ...]]:
        """Files by the last part of their path."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.files):
            found.setdefault(path.rpartition("/")[2], []).append(path)
        return {name: tuple(paths) for name, paths in found.items()}

    @cached_property
    def touching(self) -> Mapping[str, tuple[int, ...]]:
        """The numbers of the commits by the files that they touched, without commits that touched many."""
        found: dict[str, list[int]] = {}
        for nth, change in enumerate(self.changes):
            if len(change) <= CHANGE_FILES_MAX:
                for path in change:
                    found.setdefault(path, []).append(nth)
        return {path: tuple(numbers) for path, numbers in found.items()}


NO_PAST = Past()


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the repository that an epic is planned for."""

    past: Past = NO_PAST
    learned: Learned = NOTHING_LEARNED
    overlap: Sharing = Sharing.EXCLUSIVE
    """As the configuration has it; `exempt` too."""
    exempt: tuple[str, ...] = ()


def predicted(spec: EpicSpec, past: Past, learned: Learned) -> EpicSpec:
    """The epic with what can be guessed of its stories' files; the same one when that is nothing."""
    hot = hot_files(past, learned)
    stories = tuple(_predicted(story, past, hot) for story in spec.stories)
    return spec if stories == spec.stories else replace(spec, stories=stories)


def hot_files(past: Past, learned: Learned) -> dict[str, float]:
    """Files that everything touches, with the share of the commits or of the merged stories that do; largest first."""
    shares = dict[str, float]()
    if len(past.changes) >= HOT_COMMITS_MIN:
        counted = Counter(path for change in past.changes for path in change if path in past.files)
        shares = {path: count / len(past.changes) for path, count in counted.items()}
    if learned.stories >= HOT_STORIES_MIN:
        for path, count in learned.touched.items():
            shares[path] = max(shares.get(path, 0.0), count / learned.stories)
    hot = ((path, share) for path, share in shares.items() if share >= HOT_SHARE)
    return dict(sorted(hot, key=lambda each: (-each[1], each[0])))


def named_in(story: StorySpec, past: Past) -> tuple[str, ...]:
    """Files that the story's title, description and criteria name.

    Those that the repository has, also by the end of their path when that is theirs alone, and new ones in a folder
    that it has. Where nothing is known of a repository, all that has a folder and an extension. Folders are not
    taken: prose names them as examples, and a whole folder keeps too many stories waiting.
    """
    text = _URL.sub(" ", "\n".join((story.title, story.description, *story.acceptance))[:_TEXT_MAX])
    found = dict.fromkeys(path for token in _PATH.findall(text) for path in _meant(token, past))
    return tuple(islice(found, NAMED_MAX))


def changed_with(footprint: Sequence[str], past: Past, hot: Collection[str]) -> tuple[str, ...]:
    """Files that usually change together with those of a footprint and are not in it; hot ones say nothing."""
    numbers = {nth for path in footprint for nth in past.touching.get(path, ())}
    if len(numbers) < SEEN_MIN:
        return ()
    counted = Counter(path for nth in numbers for path in past.changes[nth])
    usual = [path for path, count in counted.items() if count >= max(SEEN_MIN, TOGETHER_SHARE * len(numbers))]
    usual.sort(key=lambda path: (-counted[path], path))
    news = (path for path in usual if path in past.files and path not in hot)
    return tuple(islice((path for path in news if not any(meet(path, entry) for entry in footprint)), TOGETHER_MAX))


def _predicted(story: StorySpec, past: Past, hot: Collection[str]) -> StorySpec:
    if story.done:
        return story
    named = named_in(story, past)
    together = changed_with(story.files or named, past, hot)
    guesses = [Predicted(path, Source.TEXT) for path in named] + [Predicted(p, Source.HISTORY) for p in together]
    return replace(story, predicted=tuple(guesses)) if guesses else story


def _meant(token: str, past: Past) -> Iterator[str]:
    """The file that a word of a text means, if it means one."""
    try:
        path = normalise(token.rstrip("."))
    except ValueError:
        return
    folder, slash, name = path.rpartition("/")
    if path in past.files or (
        slash and (folder in past.folders or (not past.files and "." not in path.partition("/")[0].lstrip(".")))
    ):
        yield path
    else:
        ends = [known for known in past.by_name.get(name, ()) if known == path or known.endswith(f"/{path}")]
        yield from ends if len(ends) == 1 else ()
