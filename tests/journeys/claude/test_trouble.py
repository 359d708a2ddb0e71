"""agent-teams with the real client when something goes wrong: nothing is lost, and the epic ends merged or stopped."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.journeys.claude import checkout
from tests.journeys.claude.box import NEEDS_CLIENT, Ran
from tests.journeys.claude.checkout import WHOLE, git, notes, rescued
from tests.journeys.claude.cost import answers, claims
from tests.journeys.claude.session import Record, cost_of, run_session

pytestmark = NEEDS_CLIENT

FOUR = """\
id: four
title: Four notes
checks: [python app.py, python look.py]
stories:
  - {id: S1, title: First note, files: [notes/S1.md]}
  - {id: S2, title: Second note, files: [notes/S2.md]}
  - {id: S3, title: Third note, files: [notes/S3.md]}
  - {id: S4, title: Fourth note, files: [notes/S4.md]}
"""
ONE = """\
id: one
title: One note
checks: [python app.py]
stories:
  - {id: S1, title: A note, files: [notes/S1.md]}
"""
NEIGHBOURS = """\
id: two
title: Two stories that change one line
checks: [python app.py]
stories:
  - {id: S1, title: First}
  - {id: S2, title: Second}
"""


def _reports(ran: Ran) -> list[tuple[str, str]]:
    """Story and answer of every report of the workers, in order for each of them; `refused` for a refusal."""
    found: list[tuple[str, str]] = []
    for answer in answers(ran.requests, lead=False):
        if answer.tool.endswith("report_story"):
            story = answer.arguments["lease"].split("/")[1]
            found.append((story, "refused" if answer.failed else json.loads(answer.text)["answer"]))
    return [(story, said) for story, said in found if said != "checking"]


def _with_few_turns(plugin: Path, folder: Path) -> Path:
    """A copy of the plugin whose workers are ended by the client after few turns: a story of ours takes twelve."""
    shutil.copytree(plugin, folder)
    worker = folder / ".claude" / "agents" / "story-worker.md"
    text, found = re.subn(r"(?m)^maxTurns: \d+$", "maxTurns: 20", worker.read_text("utf-8"))
    assert found
    worker.write_text(text, "utf-8")
    return folder


def test_stories_whose_workers_are_lost_are_done_by_others(
    repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """An API error is told by a hook; a worker at its limit of turns, and one that is stopped, are missed in time."""
    checkout.configure(repository, lease_s=8)
    plugin = _with_few_turns(fresh_checkout, tmp_path / "plugin")
    (scratch := tmp_path / "scratch").mkdir()
    ran = run_session("mortal", repository, scratch, "--plugin-dir", str(plugin))
    assert "EPIC done" in ran.stdout, ran.stdout
    assert notes(repository) == WHOLE
    assert rescued(repository) == {f"six/{s}/1": [f"notes/{s}.md"] for s in ("S1", "S2", "S3")}
    again = {claim["story"]: claim["brief"] for claim in claims(ran.requests) if claim["attempt"] == 2}
    for story, why in {"S1": "Its sub-agent died", "S2": "not heard of", "S3": "not heard of"}.items():
        assert why in again[story]
    cost_of(ran, record_property)


def test_work_that_is_not_done_comes_back_with_the_commands_that_make_it_so(
    repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """Uncommitted, on no branch, on an older commit, with a red check: the worker runs what it is told, no more."""
    (repository / "epic.yaml").write_text(FOUR, "utf-8")
    checkout.configure(repository, max_parallel_stories=4)
    (repository / "later.txt").touch()
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(repository, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git(repository, "add", "later.txt")
    git(repository, "commit", "-q", "-m", "Later than the remote", "--only", "later.txt")
    ran = run_session("careless", repository, tmp_path, "--plugin-dir", str(fresh_checkout))
    assert "EPIC done" in ran.stdout, ran.stdout
    assert notes(repository, "four") == {
        s: WHOLE.get(s, "S4()").partition("(")[0] + "()" for s in ("S1", "S2", "S3", "S4")
    }
    said = _reports(ran)
    for story, first in {"S1": "refused", "S2": "refused", "S3": "refused", "S4": "repair"}.items():
        assert [answer for name, answer in said if name == story] == [first, "merged"]
    cost_of(ran, record_property)


def test_the_second_of_two_that_conflict_mends_it_in_the_same_session(
    repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """Neither story declared the file: both changes are there in the end, by two workers and no more."""
    (repository / "epic.yaml").write_text(NEIGHBOURS, "utf-8")
    ran = run_session("neighbour", repository, tmp_path, "--plugin-dir", str(fresh_checkout))
    assert "EPIC done" in ran.stdout, ran.stdout
    merged = git(repository, "show", "epicwave/two:draft.txt").splitlines()
    assert sorted(merged) == ["S1 was here", "S2 was here", "one"]
    said = _reports(ran)
    assert sorted(answer for _, answer in said) == ["merged", "merged", "repair"]
    cost_of(ran, record_property)


def test_a_cancel_stops_every_worker_and_saves_its_work(
    repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """Two workers are told at their next call, the third is stopped by the lead, who was told which one it is."""
    allowed = ["--allowedTools", "mcp__plugin_epicwave_epicwave__cancel_epic"]  # for a human to confirm, else
    ran = run_session("cancelled", repository, tmp_path, "--plugin-dir", str(fresh_checkout), *allowed)
    assert "CANCELLED" in ran.stdout, ran.stdout
    assert rescued(repository) == {f"six/{s}/1": [f"notes/{s}.md"] for s in ("S1", "S2", "S3")}
    assert {(story, said) for story, said in _reports(ran) if said != "go_on"} == {("S1", "stop"), ("S2", "stop")}
    assert git(repository, "rev-parse", "epicwave/six") == git(repository, "rev-parse", "main")
    by_lead = answers(ran.requests, lead=True)
    told = next(json.loads(a.text) for a in by_lead if a.tool.endswith("cancel_epic"))
    assert len(set(told["stop_agents"])) == 3
    assert [a.failed for a in by_lead if a.tool == "TaskStop"] == [False]
    cost_of(ran, record_property)


def test_a_question_reaches_the_lead_and_the_answer_the_next_worker(
    repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """Nobody can be asked in `-p`: the attempt ends, and the status has the question."""
    (repository / "epic.yaml").write_text(ONE, "utf-8")
    ran = run_session("puzzled", repository, tmp_path, "--plugin-dir", str(fresh_checkout))
    assert "EPIC done" in ran.stdout, ran.stdout
    assert notes(repository, "one") == {"S1": "S1(blue)"}
    cost_of(ran, record_property)
