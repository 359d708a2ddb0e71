"""What every reply may cost a model, with an epic as large and as wordy as they come, and that nothing is lost."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mcp_server.cli.plan import show_plan
from mcp_server.errors import Refused
from tests.server.lead import Lead, text_of, until
from tests.server.scene import Scene, epic_text, exit_with, story
from tests.tokens import BUDGET, count, count_json

pytestmark = pytest.mark.anyio

MANY, SLOTS = 200, 8
EPIC = "platform-observability-and-billing-migration-of-the-third-quarter"[:64]
TITLES = [
    "Rewrite the billing reconciliation pipeline so that late events are applied exactly once, whatever their order",
    "增加用户登录功能并且支持多种语言的界面显示, 修复订单状态在支付失败之后没有更新的问题, 并且补充测试用例",
    'Größenänderung für Überschriften prüfen — 🚀 "quoted", \\escaped\\, and <tagged> 日本語のタイトル',
    "Добавить поддержку нескольких языков в интерфейс пользователя и проверить её тестами в каждом браузере",
]


def _wordy(n: int) -> str:
    return f"S{n:03d}-observability-of-the-billing-services-in-every-region-we-have"[:64]


def _drawn(n: int) -> str:
    return "x" + hashlib.sha256(str(n).encode()).hexdigest()[:63]


both = pytest.mark.parametrize("name", [_wordy, _drawn], ids=["wordy ids", "drawn ids"])


def _stories(name: Callable[[int], str]) -> list[dict[str, Any]]:
    """Ten waves of twenty; two and two share a file, some name none, and what they share has a long path."""
    folder = "services/billing/reconciliation/src/main/resources/configuration"
    return [
        {
            **story(name(n), *([name(n - 20)] if n >= 20 else [])),
            "title": TITLES[n % len(TITLES)],
            "files": [f"{folder}/{n // 2}/ärger 設定.yaml"] if n % 10 else [],
        }
        for n in range(MANY)
    ]


def large_epic(scene: Scene, name: Callable[[int], str] = _wordy) -> None:
    """The epic in the repository, and agents that never come to an end."""
    scene.configure({"max_parallel_stories": SLOTS, "agent": "actor"})
    for n in range(MANY):
        scene.play(name(n), scene.gate("never"))
    scene.epic(*_stories(name), id=EPIC, title=" ".join(TITLES))


def _once(listed: Iterable[str], expected: Iterable[str]) -> None:
    assert Counter(listed) == Counter(expected), "each exactly once"


async def test_the_plan_of_a_large_epic_comes_in_pages_with_all_of_it(modern: Lead, scene: Scene) -> None:
    large_epic(scene)
    name = _wordy
    pages = await modern.pages("plan_epic", epic_file="epic.yaml")
    first = pages[0]
    assert first["stories"] == MANY
    assert len(first["warnings"]) == 2, "what has to be known before a start comes first"
    assert first["totals"]["waves"] == 10
    _once((s for p in pages for wave in p.get("waves", {}).values() for s in wave), map(name, range(MANY)))
    conflicts = [tuple(c["stories"]) for p in pages for c in p.get("conflicts", [])]
    paired = [(name(n), name(n + 1)) for n in range(0, MANY, 2) if n % 10]
    _once(map(str, conflicts), map(str, paired))
    assert first["totals"]["conflicts"] == len(paired)
    path = [s for p in pages for s in p.get("critical_path", [])]
    assert path == [name(n) for n in range(int(path[0] != name(0)), MANY, 20)]
    assert len(pages) < 100


@both
async def test_every_default_reply_to_the_lead_of_a_large_epic_is_within_the_budget(
    modern: Lead, scene: Scene, name: Callable[[int], str]
) -> None:
    """`Lead.ask` holds each page to it; the costs are printed by `pytest -s`."""
    large_epic(scene, name)
    sizes = {"plan_epic": count_json(await modern.ask("plan_epic", epic_file="epic.yaml"))}
    wave = await modern.ask("start_wave", epic=EPIC, through="all", strategy="asyncio", slots=SLOTS)
    assert wave["totals"]["waiting"] == MANY - SLOTS
    sizes["start_wave"] = count_json(wave)
    await until(lambda: len(scene.children()) == SLOTS)
    pages = await modern.pages("story_status", epic=EPIC)
    lines = {line["story"]: line for page in pages for line in page.get("stories", [])}
    _once((line["story"] for page in pages for line in page.get("stories", [])), map(name, range(MANY)))
    assert [line["state"] for line in lines.values()][:SLOTS] == ["running"] * SLOTS, "what moves is first"
    assert pages[0]["totals"]["stories"] == MANY
    assert sum(pages[0]["epics"][0]["counts"].values()) == MANY
    sizes["story_status"] = count_json(pages[0])
    sizes["story_status(story)"] = count_json(await modern.ask("story_status", epic=EPIC, story=name(150)))
    changed = await modern.pages("story_status", epic=EPIC, since=1)
    _once((line["story"] for page in changed for line in page.get("stories", [])), map(name, range(MANY)))
    sizes["story_status(all)"] = count_json(await modern.ask("story_status"))
    stopped = await modern.ask("cancel_epic", epic=EPIC)
    assert stopped["totals"]["never_started"] == MANY - SLOTS
    sizes["cancel_epic"] = count_json(stopped)
    print(sizes)  # noqa: T201 - shown by `pytest -s`
    assert max(sizes.values()) <= BUDGET
    assert min(sizes["plan_epic"], sizes["story_status"]) > BUDGET / 3, "and uses it"


@both
async def test_a_team_for_a_large_epic_is_asked_for_within_the_budget(
    modern: Lead, scene: Scene, name: Callable[[int], str]
) -> None:
    large_epic(scene, name)
    await modern.ask("plan_epic", epic_file="epic.yaml")
    wave = await modern.ask("start_wave", epic=EPIC, through="all", strategy="agent-teams")
    assert (wave["spawn"], f"epic={EPIC!r}" in wave["instruction"]) == (SLOTS, True)
    status = await modern.ask("story_status", epic=EPIC)
    assert (status["spawn"], status["instruction"]) == (SLOTS, wave["instruction"])
    await modern.ask("cancel_epic", epic=EPIC)


async def test_many_epics_are_listed_in_pages(modern: Lead) -> None:
    names = [f"epic-{n:02d}-of-many" for n in range(40)]
    for each in names:
        await modern.ask("plan_epic", epic_text=epic_text(story("S1"), id=each, title=TITLES[0]))
    pages = await modern.pages("story_status")
    _once((e["epic"] for page in pages for e in page.get("epics", [])), names)
    changed = await modern.pages("story_status", since=0)
    assert {(line["epic"], line["story"]) for page in changed for line in page.get("stories", [])} <= {
        (each, "S1") for each in names
    }


async def test_lines_that_could_not_be_used_come_first_and_all_of_them_in_pages(modern: Lead) -> None:
    lines = [f"   Depends on: Story 1.{n + 700} or whatever is there\n" for n in range(60)]
    text = "# Epic 1: Notes\n\n## Stories\n\n1. **Story 1.1: One**\n\n" + "\n".join(lines)
    pages = await modern.pages("plan_epic", epic_text=text)
    assert pages[0]["unused_lines"]
    _once((str(u["line"]) for p in pages for u in p.get("unused_lines", [])), (str(7 + 2 * n) for n in range(60)))


async def test_the_log_of_a_story_comes_in_pages_its_last_lines_first(modern: Lead, scene: Scene) -> None:
    printed = [f"line {n} of the log, says the agent: {'0123456789abcdef ' * (n % 5)}" for n in range(30)]
    scene.configure({"attempts": 1})
    scene.play("S1", {"print": "\n".join(printed)}, exit_with(3))
    scene.epic(story("S1", files=[f"src/{n}.py" for n in range(40)]))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes")
    await modern.until_rest()
    pages = await modern.pages("story_status", epic="notes", story="S1")
    assert len(pages) > 2
    tails = [p["detail"].get("log_tail", []) for p in pages if "detail" in p]
    assert "exit code 3" in tails[0][-1]
    log = [line for tail in reversed(tails) for line in tail]
    said = [line.partition(" of the log")[0] for line in log if line.startswith("line ")]
    assert said == [f"line {n}" for n in range(30)], "in their order, from the last page to the first"
    _once((f for p in pages for f in p.get("detail", {}).get("files", [])), (f"src/{n}.py" for n in range(40)))


def _wrong(scene: Scene) -> Path:
    """A hundred stories that each depend on something unknown with a long name."""
    return scene.epic(*[story(f"S{n}", f"{_wordy(n)}-unknown"[:64]) for n in range(100)])


async def test_a_bad_epic_is_refused_with_its_first_errors_and_how_many_more(modern: Lead, scene: Scene) -> None:
    _wrong(scene)
    said = await modern.refused("plan_epic", epic_file="epic.yaml")
    shown = said.count("\n- line ")
    assert shown >= 3
    assert f"and {100 - shown} more" in said
    assert "epicwave plan" in said


def test_the_command_line_names_every_error_and_everything_in_its_json(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused) as refused:
        show_plan(_wrong(scene), redo=False, as_json=False)
    assert refused.value.why.count("\n- line ") == 100
    show_plan(scene.epic(*_stories(_wordy), id=EPIC), redo=False, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    assert sum(len(wave) for wave in plan["waves"].values()) == MANY
    assert len(plan["conflicts"]) == 80
    assert "more_offset" not in plan


async def test_refusals_that_quote_what_they_were_given_are_cut(modern: Lead, scene: Scene) -> None:
    large_epic(scene)
    await modern.ask("plan_epic", epic_file="epic.yaml")
    long = "x y " * 5_000
    for tool, arguments in [
        ("story_status", {"epic": EPIC, "story": long}),
        ("story_status", {"epic": long}),
        ("story_status", {"epic": EPIC, "story": "S1"}),
        ("start_wave", {"epic": EPIC, "agent": long}),
        ("start_wave", {"epic": EPIC, "through": long}),
        ("start_wave", {"epic": EPIC, long: 1}),
        ("plan_epic", {"epic_file": long}),
        ("plan_epic", {"epic_text": long}),
        ("cancel_epic", {"epic": EPIC, "reason": long}),
        ("start_wave", {"epic": EPIC, "notes": {str(n): n for n in range(100)}}),
    ]:
        result = await modern.client.call_tool(tool, arguments)
        said = text_of(result)
        assert result.is_error
        assert count(said) <= BUDGET, (tool, said)
        assert said.rstrip().endswith((".", "...")), said


async def test_a_small_epic_without_remarks_is_told_in_one_reply(modern: Lead, scene: Scene) -> None:
    """Twelve stories: the plan, and the status with every title."""
    scene.git("add", "-A")
    scene.epic(*[story(f"S{n}", *([f"S{n - 3}"] if n > 3 else [])) for n in range(1, 13)], checks=["true"])
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "The epic")
    plan = await modern.ask("plan_epic", epic_file="epic.yaml")
    assert sum(map(len, plan["waves"].values())) == 12
    assert "more_offset" not in plan
    assert "totals" not in plan
    status = await modern.ask("story_status", epic="notes")
    assert [line["story"] for line in status["stories"]] == [f"S{n}" for n in range(1, 13)]


async def test_a_whole_epic_of_six_stories_costs_its_lead_little(modern: Lead, scene: Scene) -> None:
    """Twelve calls and 4,000 tokens: plan it, start it, wait for each that ends, look at the end."""
    scene.epic(
        *[story(f"S{n}", title=f"Do the part number {n} of a small program") for n in (1, 2, 3)],
        *[story(f"S{n}", "S1", "S2", title=f"Put part {n} on top of the first two") for n in (4, 5)],
        story("S6", "S4", "S5", title="Tell what has been done"),
    )
    replies = [await modern.ask("plan_epic", epic_file="epic.yaml")]
    start = {"through": "all", "strategy": "asyncio", "slots": 3, "agent": "scripted"}
    replies.append(await modern.ask("start_wave", epic="notes", **start))
    while "land_epic" not in replies[-1]["next"]:
        replies.append(await modern.ask("story_status", epic="notes", since=replies[-1]["cursor"], wait_s=45))
    replies.append(await modern.ask("story_status", epic="notes"))
    total = sum(map(count_json, replies))
    print(f"{len(replies)} calls, {total} tokens")  # noqa: T201 - shown by `pytest -s`
    assert len(replies) <= 12
    assert total <= 4_000
    await until(lambda: not scene.leftovers())
