"""What merges and conflicts teach: a fold of the journal, bounded, the same after a replay."""

from __future__ import annotations

import pytest

from mcp_server.core import learn
from mcp_server.core.likely import Hits, Meetings
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Cause
from mcp_server.core.spec import Predicted, Sharing, Source, StorySpec
from tests.core.build import Life, replayed, story


def _beside(*specs: StorySpec) -> Life:
    """All of them at work together."""
    life = Life(*specs)
    life.start(overlap=Sharing.OPTIMISTIC, slots=len(specs), attempts=5)
    return life


def _met(life: Life) -> dict[str, Meetings]:
    assert replayed(life.log) == life.ledger
    return dict(life.ledger.learned.meetings)


def test_two_that_touched_a_file_side_by_side_and_both_landed_have_met_there() -> None:
    life = _beside(story("a"), story("b"))
    life.merge("a", files=("x", "y"))
    life.merge("b", files=("x", "z"))
    assert _met(life) == {"x": (1, 0)}


def test_who_starts_on_the_merged_result_has_met_nobody() -> None:
    life = Life(story("a"), story("b"))
    life.start(slots=1, strategy=Strategy.SEQUENTIAL)
    life.merge("a", files=("x",))
    life.merge("b", files=("x",))
    assert _met(life) == {}


def test_a_conflict_counts_at_the_files_in_conflict_and_the_others_met_in_peace() -> None:
    life = _beside(story("a"), story("b"))
    life.succeed("b", files=("x", "y"))
    life.merge("a", files=("x", "y"))
    life.conflict("b", "x")
    assert _met(life) == {"x": (1, 1), "y": (1, 0)}
    life.merge("b", files=("x", "y"))
    assert _met(life) == {"x": (1, 1), "y": (1, 0)}, "the new attempt has met nobody"


def test_a_conflict_that_names_no_file_counts_at_all_that_is_shared() -> None:
    life = _beside(story("a"), story("b"), story("c"))
    life.succeed("b", files=("x", "y"))
    life.merge("a", files=("x", "y"))
    life.merge("c", files=("z",))
    life.conflict("b")
    assert _met(life) == {"x": (1, 1), "y": (1, 1)}


def test_a_conflict_with_nobody_who_was_beside_it_teaches_nothing() -> None:
    life = _beside(story("a"), story("b"))
    life.succeed("b", files=("x",))
    before = life.ledger.learned
    life.conflict("b", "x")
    assert life.ledger.learned is before


def test_a_red_check_is_no_conflict_of_files() -> None:
    life = _beside(story("a"), story("b"))
    life.succeed("b", files=("x",))
    life.merge("a", files=("x",))
    life.refuse("b", Cause.CHECKS)
    assert _met(life) == {}


def test_a_shared_folder_is_learned_as_such_even_when_the_real_files_differ() -> None:
    life = _beside(story("a", files="src/"), story("b", files="src/"))
    life.merge("a", files=("src/a",))
    life.merge("b", files=("src/b",))
    assert _met(life) == {"src/": (1, 0)}


def test_a_conflict_below_a_shared_folder_counts_for_the_folder() -> None:
    life = _beside(story("a", files="src/ z"), story("b", files="src/ z"))
    life.succeed("b", files=("src/a",))
    life.merge("a", files=("src/a",))
    life.conflict("b", "src/a")
    assert _met(life) == {"src/": (1, 1), "src/a": (1, 1), "z": (1, 0)}


def test_a_sub_agents_repair_is_not_judged_twice() -> None:
    life = Life(story("a"), story("b"))
    life.team(overlap=Sharing.OPTIMISTIC)
    life.lease("a", "b")
    life.merge("a")
    life.succeed("b")
    life.conflict("b", "x.py")
    life.merge("b")
    assert _met(life) == {"x.py": (1, 1)}


def test_a_lease_begins_when_it_is_claimed_not_when_it_was_offered() -> None:
    life = Life(story("a"), story("b"))
    life.team(overlap=Sharing.OPTIMISTIC)
    life.merge("a")
    life.merge("b")
    assert _met(life) == {}


def test_what_was_planned_away_or_undone_is_passed_over() -> None:
    life = _beside(story("a"), story("b"), story("c"))
    life.succeed("b", "c")
    life.merge("a")
    epic = life.epic._replace(recent=("gone", "b", "a"))
    assert [other.spec.id for other in learn.beside(epic, life.of("c"))] == ["a"]


def test_predictions_are_measured_by_what_was_really_touched() -> None:
    text, history = Predicted("m.md", Source.TEXT), Predicted("t.py", Source.HISTORY)
    life = _beside(story("a", files="x src/", predicted=(text, history)), story("b", predicted=(text,)), story("c"))
    life.merge("a", files=("src/1", "src/2", "t.py"))
    life.merge("b", files=("m.md", "n"))
    life.merge("c", files=("q",))
    assert life.ledger.learned.sources == {
        Source.DECLARED: Hits(1, 2, 1, 3, 2),
        Source.TEXT: Hits(2, 2, 1, 5, 1),
        Source.HISTORY: Hits(1, 1, 1, 1, 1),
    }
    assert life.ledger.learned.stories == 3
    assert life.ledger.learned.touched["t.py"] == 1
    assert replayed(life.log) == life.ledger


def test_what_is_learned_has_a_bound_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "FILES_KEPT", 3)
    monkeypatch.setattr(learn, "RECENT", 2)
    life = Life(*(story(f"s{n}") for n in range(5)))
    life.start(slots=1)
    for n in range(5):
        life.merge(f"s{n}", files=(f"f{n}", "always"))
    assert list(life.ledger.learned.touched) == ["f3", "f4", "always"]
    assert life.ledger.learned.touched["always"] == 5
    assert life.epic.recent == ("s3", "s4")


def test_of_a_story_that_touches_very_many_files_only_some_are_looked_at() -> None:
    life = _beside(story("a"))
    life.merge("a", files=tuple(f"f{n}" for n in range(1000)))
    assert len(life.ledger.learned.touched) == learn.FILES_JUDGED


def test_counts_add_up_over_meetings() -> None:
    life = _beside(story("a"), story("b"), story("c"))
    for name in "abc":
        life.merge(name, files=("x",))
    assert life.ledger.learned.meetings == {"x": Meetings(3, 0)}, "a-b, a-c, b-c"
