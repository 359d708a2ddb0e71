"""What a plan says of footprints: who is kept apart, how much runs in parallel, and what exempting files would gain."""

from __future__ import annotations

from dataclasses import replace

from mcp_server.core.draft import DraftStory, EpicDraft
from mcp_server.core.likely import Hits, Learned, Meetings
from mcp_server.core.planning import plan
from mcp_server.core.predict import Known, Past
from mcp_server.core.spec import Sharing, Source
from tests.core.test_planning import epic, story

EXCLUSIVE, AUTO, OPTIMISTIC = Sharing
HOT = Past(frozenset({"LOG.md", "a.py"}), tuple(frozenset({"LOG.md", f"f{n}"}) for n in range(20)))


def _all_on(*files: str, overlap: Sharing | None = None, count: int = 3) -> EpicDraft:
    return epic(*(story(f"s{n}", files=files) for n in range(count)), overlap=overlap)


def test_useful_parallelism_counts_the_queues_at_shared_files() -> None:
    assert plan(_all_on("x")).useful == 1.0
    assert plan(_all_on()).useful == 3.0
    assert plan(epic(story("a", done=True))).useful == 1.0, "nothing is left"


def test_under_optimistic_nobody_queues_and_nobody_is_kept_apart() -> None:
    planned = plan(_all_on("x"), known=Known(overlap=OPTIMISTIC))
    assert planned.useful == 3.0
    assert [pair.apart for pair in planned.overlaps] == [False] * 3


def test_the_epics_word_stands_above_the_configurations_and_a_storys_above_both() -> None:
    by_epic = plan(_all_on("x", overlap=OPTIMISTIC), known=Known(overlap=EXCLUSIVE))
    assert by_epic.useful == 3.0
    draft = _all_on("x", overlap=OPTIMISTIC)
    strict = replace(draft.stories[0], overlap=EXCLUSIVE)
    by_story = plan(replace(draft, stories=(strict, *draft.stories[1:])))
    assert [(pair.a, pair.b) for pair in by_story.overlaps if pair.apart] == [("s0", "s1"), ("s0", "s2")]


def test_under_auto_those_are_kept_apart_that_are_likely_to_conflict() -> None:
    one, two = plan(_all_on("x", overlap=AUTO)), plan(_all_on("x", "y", overlap=AUTO))
    assert {pair.apart for pair in one.overlaps} == {False}
    assert {pair.apart for pair in two.overlaps} == {True}
    bad = Known(learned=Learned({"x": Meetings(9, 9)}))
    learned = plan(_all_on("x", overlap=AUTO), known=bad)
    assert ({pair.apart for pair in learned.overlaps}, learned.useful) == ({True}, 1.0)


def test_exempt_files_are_no_reason_to_queue() -> None:
    planned = plan(_all_on("LOG.md", "src/LOG.md"), known=Known(exempt=("LOG.md", "src/")))
    assert (planned.useful, planned.overlaps) == (3.0, ())


def test_hot_files_are_proposed_with_their_gain_and_not_applied() -> None:
    planned = plan(_all_on("LOG.md"), known=Known(HOT))
    assert planned.proposal is not None
    assert (planned.proposal.shares, planned.proposal.useful) == ({"LOG.md": 1.0}, 3.0)
    assert planned.useful == 1.0
    assert len(planned.overlaps) == 3


def test_what_gains_nothing_is_not_proposed() -> None:
    assert plan(_all_on("LOG.md", "a.py"), known=Known(HOT)).proposal is None, "another file keeps them apart"
    assert plan(_all_on("LOG.md", count=1), known=Known(HOT)).proposal is None, "nobody waits for it"
    assert plan(_all_on("LOG.md"), known=Known(HOT, exempt=("LOG.md",))).proposal is None, "it is exempt"
    assert plan(_all_on("a.py"), known=Known(HOT)).proposal is None, "it is not hot"


def test_globs_and_folders_that_overlap_queue_without_the_exempt_ones() -> None:
    known = Known(Past(HOT.files | {"docs/LOG.md"}, tuple(frozenset({"docs/LOG.md"}) for _ in range(20))))
    planned = plan(
        epic(story("a", files=("docs/LOG.md",)), story("b", files=("docs/LOG.md",)), story("c")), known=known
    )
    assert planned.proposal is not None
    wide = plan(epic(story("a", files=("docs/",)), *_all_on("docs/LOG.md").stories), known=known)
    assert (round(wide.useful, 1), wide.proposal and round(wide.proposal.useful, 1)) == (1.0, 4.0)


def test_text_and_history_are_asked_only_with_a_repository_and_their_record_is_told() -> None:
    draft = epic(DraftStory("a", "A", description="Mend a.py"), story("b", files=("a.py",)))
    assert plan(draft).overlaps == ()
    record = {Source.TEXT: Hits(1, 1, 1, 1, 1)}
    planned = plan(draft, known=Known(HOT, Learned(sources=record)))
    assert [(pair.a, pair.b, pair.shared) for pair in planned.overlaps] == [("a", "b", ("a.py",))]
    assert planned.sources == record
    assert not [words for words in planned.warnings if "name no files" in words]
