"""How likely a conflict is: the measured share at first, then what was seen of each file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.core.likely import LIKELY, NOTHING_LEARNED, Hits, Learned, Meetings, chance, likely


def _seen(**files: tuple[int, int]) -> Learned:
    return Learned({name: Meetings(*counts) for name, counts in files.items()})


def test_a_file_that_nothing_is_known_of_conflicts_as_often_as_was_measured() -> None:
    assert chance("a", NOTHING_LEARNED) == pytest.approx(14 / 47)


def test_what_was_seen_of_a_file_moves_its_chance() -> None:
    known = _seen(calm=(5, 0), odd=(1, 1), bad=(5, 5))
    found = [round(chance(name, known), 2) for name in ("calm", "odd", "bad", "other")]
    assert found == [0.15, 0.41, 0.65, 0.3]


def test_one_unknown_file_is_no_reason_to_wait_and_two_are() -> None:
    assert likely(["a"], NOTHING_LEARNED) < LIKELY < likely(["a", "b"], NOTHING_LEARNED)


def test_nothing_shared_never_conflicts() -> None:
    assert likely([], NOTHING_LEARNED) == 0.0


@given(met=st.integers(0, 500), share=st.floats(0, 1), files=st.integers(1, 30))
def test_a_chance_is_one_and_grows_with_every_shared_file(met: int, share: float, files: int) -> None:
    known = _seen(a=(met, int(met * share)))
    names = ["a", *(f"f{n}" for n in range(files))]
    odds = [likely(names[:count], known) for count in range(1, files + 2)]
    assert odds == sorted(odds)
    assert 0.0 < odds[0] <= odds[-1] <= 1.0


def test_precision_and_recall_are_shares_of_what_there_was() -> None:
    hits = Hits(stories=2, named=4, right=3, real=10, found=5)
    assert (hits.precision, hits.recall) == (0.75, 0.5)
    assert (Hits().precision, Hits().recall) == (0.0, 0.0)
