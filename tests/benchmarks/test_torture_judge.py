"""The judge of `benchmarks/torture.py` before forged results: each kind of wrong is seen, and a right result is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.torture_judge import Court, Evidence, Start, verdict

A1, A2, B1, C1 = "T-A-1-7-1", "T-A-1-7-2", "T-B-2-8-1", "T-B-1-9-1"


def right() -> Evidence:
    """A was merged, then B in its second attempt; its first one is saved."""
    return Evidence(
        starts=[
            Start("A", 1, "root", "good", {A1, A2}, {A1, A2}, done=True),
            Start("B", 1, "one", "crash", {C1}),
            Start("B", 2, "one", "good", {B1}, {B1}, done=True),
        ],
        depends={"A": (), "B": ("A",)},
        claims={"A": ("merged", 1), "B": ("merged", 2)},
        in_tip=Counter([A1, A2, B1]),
        adders={A1: ["one"], A2: ["one"], B1: ["two"]},
        saved={C1},
        ancestors={"root": {"root"}, "one": {"root", "one"}, "two": {"root", "one", "two"}},
        positions=["root", "one", "two"],
    )


def added_twice(found: Evidence) -> None:
    found.adders = {**found.adders, A1: ["one", "two"]}


def in_the_tip_twice(found: Evidence) -> None:
    found.in_tip[A1] += 1


def half_of_it_gone(found: Evidence) -> None:
    del found.in_tip[A2]


def half_of_it_never_came(found: Evidence) -> None:
    found.adders = {A1: ["one"], B1: ["two"]}


def merged_in_words_only(found: Evidence) -> None:
    found.claims = {**found.claims, "C": ("merged", 1)}


def on_the_branch_without_a_word(found: Evidence) -> None:
    found.claims = {**found.claims, "B": ("failed", 2)}


def another_attempt_than_claimed(found: Evidence) -> None:
    found.claims = {**found.claims, "B": ("merged", 1)}


def both_attempts_merged(found: Evidence) -> None:
    found.adders = {**found.adders, C1: ["two"]}


def merged_before_its_end(found: Evidence) -> None:
    found.starts[0].done = False


def merged_with_something_left(found: Evidence) -> None:
    found.starts[0].wrote.add("T-A-1-7-3")


def saved_nowhere(found: Evidence) -> None:
    found.saved = set()


def began_without_its_dependency(found: Evidence) -> None:
    found.starts[2].base = "root"


def began_from_nowhere(found: Evidence) -> None:
    found.starts[0].base = "elsewhere"


def red_somewhere(found: Evidence) -> None:
    found.red["one"] = "rot"


def nobody_was_seen(found: Evidence) -> None:
    found.starts, found.claims = [], {}


FORGED: list[tuple[Callable[[Evidence], None], str]] = [
    (added_twice, "not once"),
    (in_the_tip_twice, "not once"),
    (half_of_it_gone, "not once"),
    (half_of_it_never_came, "not once"),
    (merged_in_words_only, "claims"),
    (on_the_branch_without_a_word, "claims"),
    (another_attempt_than_claimed, "claims"),
    (both_attempts_merged, "claims"),
    (merged_before_its_end, "lies accepted"),
    (merged_with_something_left, "lies accepted"),
    (saved_nowhere, "lost"),
    (began_without_its_dependency, "too early"),
    (began_from_nowhere, "too early"),
    (red_somewhere, "red"),
    (nobody_was_seen, "nothing seen"),
]


def test_a_right_result_is_right() -> None:
    assert verdict(right()) == {}


@pytest.mark.parametrize(("forge", "kind"), FORGED, ids=[forge.__name__ for forge, _ in FORGED])
def test_a_forged_result_is_seen_through(forge: Callable[[Evidence], None], kind: str) -> None:
    found = right()
    forge(found)
    assert kind in verdict(found)


def test_what_a_merged_story_removes_need_not_be_in_the_tip() -> None:
    found = right()
    found.starts[2].removed.add(A1)
    assert "not once" in verdict(found)  # it said so, and it is there
    del found.in_tip[A1]
    assert verdict(found) == {}


class Forger:
    """A real repository in which somebody pretends to be epicwave."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repo, self.truth = folder, folder / "repo", folder / "truth"
        self.truth.mkdir()
        who = {f"GIT_{role}_{key}": "f@localhost" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        self.environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", "init", "-q", "-b", "epicwave/f", self.repo], check=True)
        self.check = folder / "check"
        self.check.write_text("#!/bin/sh\n! ls rot 2>/dev/null\n", "utf-8")
        self.check.chmod(0o755)
        self.root = self.commit("begin", {"shared.txt": "one\ntwo\nthree\n"})

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.repo), *words]
        return subprocess.run(
            command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    def commit(self, message: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            (self.repo / path).parent.mkdir(exist_ok=True)
            (self.repo / path).write_text(text, "utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def says(self, name: str, base: str, *tokens: str, done: bool = True) -> None:
        """What an agent has written down."""
        lines = [{"what": "start", "base": base, "manner": "good"}]
        lines += [{"what": "wrote", "token": token} for token in tokens]
        lines += [{"what": "committed", "tokens": list(tokens)}, {"what": "done"}] if done else []
        (self.truth / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")

    def judged(self, **claims: int) -> dict[str, list[str]]:
        scratch = self.folder / f"court-{len(list(self.folder.iterdir()))}"
        court = Court(self.repo, "epicwave/f", self.check, self.environment, scratch)
        depends = {"A": (), "B": ("A",)}
        return verdict(court.evidence(self.truth, depends, {name: ("merged", n) for name, n in claims.items()}))


@pytest.fixture
def forger(tmp_path: Path) -> Forger:
    """A is merged and judged to be; what comes next is the test's."""
    if sys.platform == "win32":
        pytest.skip("the check is a shell script")
    forger = Forger(tmp_path)
    forger.says("A-1-7", forger.root, A1)
    forger.commit("A", {"shared.txt": f"one\n{A1}\nthree\n"})
    assert forger.judged(A=1) == {}
    return forger


def test_a_line_that_moves_with_its_file_is_there_once(forger: Forger) -> None:
    forger.git("mv", "shared.txt", "moved.txt")
    forger.commit("move", {})
    assert forger.judged(A=1) == {}


def test_a_line_that_is_merged_again_is_seen(forger: Forger) -> None:
    forger.commit("again", {"copy.txt": f"{A1}\n"})
    assert set(forger.judged(A=1)) == {"not once"}


def test_a_line_that_somebody_reverts_is_seen(forger: Forger) -> None:
    forger.commit("revert", {"shared.txt": "one\ntwo\nthree\n"})
    assert set(forger.judged(A=1)) == {"not once"}


def test_work_that_only_an_object_without_a_ref_has_is_lost(forger: Forger) -> None:
    base = forger.git("rev-parse", "HEAD")
    forger.says("B-1-9", base, C1, done=False)
    lost = forger.commit("B", {"b.txt": f"{C1}\n"})
    forger.git("update-ref", "refs/heads/epicwave/f", base)
    assert set(forger.judged(A=1)) == {"lost"}
    forger.git("update-ref", "refs/epicwave/rescue/f/B/1", lost)
    assert forger.judged(A=1) == {}


def test_a_red_place_is_seen_after_the_branch_has_left_it(forger: Forger) -> None:
    forger.commit("red", {"rot/a": "red\n"})
    (forger.repo / "rot" / "a").unlink()
    forger.commit("green again", {})
    assert set(forger.judged(A=1)) == {"red"}


def test_a_red_commit_that_a_batch_passes_over_is_counted_and_no_more(forger: Forger) -> None:
    """The branch has moved over it in one step."""
    forger.git("checkout", "-q", "--detach")
    forger.commit("red", {"rot/a": "red\n"})
    (forger.repo / "rot" / "a").unlink()
    tip = forger.commit("green again", {})
    forger.git("update-ref", "refs/heads/epicwave/f", tip)
    assert forger.judged(A=1) == {}


def test_a_story_that_was_begun_before_what_it_builds_on_is_seen(forger: Forger) -> None:
    forger.says("B-2-8", forger.root, B1)
    forger.commit("B", {"b.txt": f"{B1}\n"})
    assert set(forger.judged(A=1, B=2)) == {"too early"}
