"""steer_epic, and what holds an epic back: pauses, breakers, rate limits, budgets. They lose and fail nothing."""

from __future__ import annotations

import re
import signal
import time
from typing import Any

import pytest

from tests.server.lead import Lead, all_are, until
from tests.server.scene import Scene, Step, commit, exit_with, story, write

pytestmark = pytest.mark.anyio


def work(name: str) -> tuple[Step, ...]:
    """What an agent does that does its story."""
    return write(f"{name}.md"), commit()


async def start(lead: Lead, scene: Scene, *names: str, strategy: str = "asyncio", **epic: Any) -> None:
    """Plan an epic of stories without dependencies and run it to the end."""
    scene.epic(*map(story, names), **epic)
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", through="all", strategy=strategy)


async def summary(lead: Lead) -> tuple[str, str]:
    """The epic's state, and its alerts as one text."""
    [epic] = (await lead.ask("story_status", epic="notes"))["epics"]
    return epic["state"], " ".join(epic.get("alerts", []))


async def test_a_paused_epic_starts_nothing_and_what_is_alive_is_merged(modern: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), *work("S1"))
    scene.play("S2", *work("S2"))
    await start(modern, scene, "S1", "S2", strategy="sequential")
    await until(lambda: scene.starts("S1") == 1)
    reply = await modern.ask("steer_epic", epic="notes", action="pause", note="lunch")
    assert (reply["state"], reply["in_flight"]) == ("active", ["S1"])
    assert "lunch" in " ".join(reply["alerts"])
    scene.open("go")
    await modern.watch(lambda states: states["S1"] == "merged")
    assert await summary(modern) == ("paused", "The epic is paused (lunch). To go on: resume it.")
    assert "lunch" in (await modern.stories())["S2"]["why"]
    status = await modern.ask("story_status", epic="notes", wait_s=30)
    assert "resume" in status["next"], "nothing will happen by itself, so it does not wait"
    assert "paused already" in await modern.refused("steer_epic", epic="notes", action="pause")
    await modern.ask("steer_epic", epic="notes", action="resume")
    assert await modern.until_rest() == {"S1": "merged", "S2": "merged"}
    assert "Nothing holds" in await modern.refused("steer_epic", epic="notes", action="resume")


async def test_a_drained_wave_ends_with_what_is_alive(modern: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), *work("S1"))
    await start(modern, scene, "S1", "S2", strategy="sequential")
    await until(lambda: scene.starts("S1") == 1)
    reply = await modern.ask("steer_epic", epic="notes", action="drain", note="enough for today")
    assert reply["in_flight"] == ["S1"]
    scene.open("go")
    assert await modern.until_rest() == {"S1": "merged", "S2": "ready"}
    assert scene.starts("S2") == 0
    assert "No wave" in await modern.refused("steer_epic", epic="notes", action="drain")


async def test_one_story_is_tried_again_with_advice_and_another_is_skipped(modern: Lead, scene: Scene) -> None:
    scene.configure({"attempts": 1, "fail_fast": False})
    scene.play("S1", exit_with(3))
    scene.play("S2", exit_with(3))
    scene.epic(story("S1"), story("S2"), story("S3", "S1", "S2"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    assert await modern.until_rest() == {"S1": "failed", "S2": "failed", "S3": "blocked"}
    scene.play("S1", *work("S1"))
    reply = await modern.ask("steer_epic", epic="notes", action="retry", story="S1", note="look at S1.md first")
    assert "start_wave" in reply["next"]
    await modern.ask("steer_epic", epic="notes", action="skip", story="S2", note="not wanted any more")
    await modern.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    assert await modern.until_rest() == {"S1": "merged", "S2": "skipped", "S3": "merged"}
    assert await summary(modern) == ("done", "")
    assert "not wanted any more" in (await modern.stories())["S2"]["why"]
    assert scene.starts("S2") == 1
    briefs = list((scene.repo / ".git" / "epicwave").rglob("S1/attempt-2.brief.md"))
    assert "look at S1.md first" in briefs[0].read_text("utf-8")
    assert "merged" in await modern.refused("steer_epic", epic="notes", action="skip", story="S1")
    assert "story" in await modern.refused("steer_epic", epic="notes", action="skip")


async def test_providers_errors_pause_the_agent_and_fail_nothing(modern: Lead, scene: Scene) -> None:
    scene.configure({"max_parallel_stories": 3, "breaker_cooldown_s": 2, "attempts": 1})
    names = ["S1", "S2", "S3", "S4", "S5"]
    for name in names:
        scene.play(name, {"api_error": "overloaded"})
    await start(modern, scene, *names)
    await until(lambda: sum(map(scene.starts, names)) >= 3)
    await modern.watch(
        lambda states: "failed" not in states.values() and not {"running", "offered"} & {*states.values()}
    )
    state, alerts = await summary(modern)
    assert state == "paused"
    assert re.search(r"agent 'actor' fails: nothing starts until \d\d:\d\d UTC.*API error", alerts)
    for name in names:
        scene.play(name, *work(name))
    await modern.watch(all_are("merged"))
    starts = sum(map(scene.starts, names))
    assert starts <= len(names) + 3 + 2, "three faults, and a probe or two that came too early"


async def test_a_crash_is_a_fault_and_costs_an_attempt(modern: Lead, scene: Scene) -> None:
    scene.configure({"attempts": 2})
    scene.play("S1", {"crash": int(signal.SIGSEGV)})
    await start(modern, scene, "S1")
    assert await modern.until_rest() == {"S1": "failed"}
    assert "crash" in (await modern.stories())["S1"]["why"]
    assert scene.starts("S1") == 2


async def test_a_rate_limit_parks_all_stories_until_the_time_that_was_named(modern: Lead, scene: Scene) -> None:
    scene.configure({"attempts": 1, "max_parallel_stories": 2})
    scene.play("S1", write("S1.md"), commit(), {"rate_limit": 4}, attempt=1)
    scene.play("S1", *work("S1"), attempt=2)
    for name in ("S2", "S3"):
        scene.play(name, scene.gate("go"), *work(name))
    began_s = time.monotonic()
    await start(modern, scene, "S1", "S2", "S3")
    await modern.watch(lambda states: states["S1"] == "queued")
    state, alerts = await summary(modern)
    assert (state, scene.starts("S3")) == ("active", 0), "S2 goes on, and nothing new starts"
    assert re.search(r"rate limit and is parked until \d\d:\d\d UTC", alerts)
    assert "rate limit" in (await modern.stories())["S3"]["why"]
    scene.open("go")
    await modern.watch(all_are("merged"))
    assert time.monotonic() - began_s >= 4, "nobody came back before the time"
    assert [scene.starts(name) for name in ("S1", "S2", "S3")] == [2, 1, 1]
    assert "refs/epicwave/rescue/notes/S1/1" in scene.refs("refs/epicwave/rescue"), "what it had done is kept"


async def test_a_second_agent_takes_the_stories_of_one_that_is_parked(modern: Lead, scene: Scene) -> None:
    scene.configure({"fallback_agent": "scripted"})
    scene.play("S1", {"rate_limit": 3600}, attempt=1)
    await start(modern, scene, "S1")
    await modern.watch(all_are("merged"))
    assert scene.starts("S1") == 1, "the second attempt was the other agent's"


async def test_a_lead_that_knows_better_resumes_a_parked_agent(modern: Lead, scene: Scene) -> None:
    scene.play("S1", {"rate_limit": 3600}, attempt=1)
    scene.play("S1", *work("S1"), attempt=2)
    await start(modern, scene, "S1")
    await modern.watch(lambda states: states["S1"] == "queued")
    assert (await summary(modern))[0] == "paused"
    await modern.ask("steer_epic", epic="notes", action="resume")
    await modern.watch(all_are("merged"))


async def test_a_story_that_has_spent_its_budget_is_stopped_and_fails_with_that_cause(
    modern: Lead, scene: Scene
) -> None:
    scene.configure({"story_budget_usd": 1.0, "attempts": 3})
    scene.play("S1", write("S1.md"), {"usage": {"usd": 1.5, "tokens": 10}}, scene.gate("never"))
    await start(modern, scene, "S1")
    assert await modern.until_rest() == {"S1": "failed"}
    line = (await modern.stories())["S1"]
    assert "budget" in line["why"]
    assert "1.50 of 1.00 USD" in line["why"]
    assert scene.starts("S1") == 1
    await until(lambda: not scene.leftovers())


async def test_an_epic_warns_before_its_budget_is_spent_and_then_starts_nothing(modern: Lead, scene: Scene) -> None:
    scene.configure({"budget_usd": 10.0, "max_parallel_stories": 1})
    for name, usd in (("S1", 8.5), ("S2", 2.0), ("S3", 1.0)):
        scene.play(name, scene.gate(name), {"usage": {"usd": usd}}, *work(name))
    await start(modern, scene, "S1", "S2", "S3")
    scene.open("S1")
    await modern.watch(lambda states: states["S1"] == "merged")
    assert "8.50 of 10.00 USD" in (await summary(modern))[1]
    scene.open("S2")
    states = await modern.until_rest()
    assert states["S3"] != "merged"
    assert scene.starts("S3") == 0
    assert "budget_spent" in await modern.refused("start_wave", epic="notes", retry=True)


async def test_a_wave_whose_time_is_up_stops_its_agents(modern: Lead, scene: Scene) -> None:
    scene.configure({"epic_timeout_s": 3})
    scene.play("S1", write("S1.md"), scene.gate("never"))
    await start(modern, scene, "S1")
    assert await modern.until_rest() == {"S1": "cancelled"}
    assert "timeout" in (await modern.stories())["S1"]["why"]
    await until(lambda: not scene.leftovers())
