"""Commands of an epic file run only once the user has allowed them; nothing that an agent can say allows them."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from mcp import Client

from mcp_server.core.checks import digest
from mcp_server.errors import Code, Refused
from mcp_server.server import allowed
from mcp_server.server.allowed import Allowed
from mcp_server.server.app import build
from tests.server.lead import ERAS, Era, Lead, leading
from tests.server.scene import Scene, commit, epic_text, python_check, story, write
from tests.server.test_ask import human

pytestmark = pytest.mark.anyio

CHECK = tuple(python_check("print('green')"))
GUARD = tuple(python_check("import sys"))


@pytest.fixture
def state(scene: Scene) -> Path:
    return scene.repo / ".git" / "epicwave"


def _brings(scene: Scene, **more: object) -> None:
    """An epic file with a check and a guard that nobody has allowed."""
    scene.configure({"agent": "actor", **more})
    scene.play("S1", write("S1.md"), commit())
    scene.epic(story("S1", guards=[GUARD]), checks=[CHECK], allowed=False)


# --- the tools --------------------------------------------------------------------------------------------------------


async def test_a_wave_whose_epic_file_brings_commands_is_refused_with_them_and_nothing_has_changed(
    lead: Lead, scene: Scene
) -> None:
    _brings(scene)
    planned = await lead.ask("plan_epic", epic_file="epic.yaml")
    assert "2 commands of the file run only once the user has allowed them" in planned["notices"][-1]
    before = scene.everything()
    said = await lead.refused("start_wave", epic="notes")
    assert said.startswith(f"checks_not_allowed: {scene.repo / 'epic.yaml'} brings commands")
    assert "print('\"'\"'green'\"'\"')" in said
    assert "import sys" in said
    assert "`epicwave allow notes`" in said
    assert scene.everything() == before
    assert await lead.states() == {"S1": "ready"}


async def test_what_was_allowed_once_runs_in_an_edited_file_too(modern: Lead, scene: Scene, state: Path) -> None:
    _brings(scene)
    await modern.ask("plan_epic", epic_file="epic.yaml")
    Allowed(state).allow([CHECK, GUARD])
    scene.epic(story("S1", guards=[CHECK], title="Reworded"), checks=[GUARD], allowed=False)
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes")
    assert await modern.until_rest() == {"S1": "merged"}


async def test_an_epic_in_the_call_brings_the_callers_own_commands(modern: Lead, scene: Scene) -> None:
    _brings(scene)
    await modern.ask("plan_epic", epic_text=epic_text(story("S1", guards=[GUARD]), checks=[CHECK]))
    await modern.ask("start_wave", epic="notes")
    assert await modern.until_rest() == {"S1": "merged"}


async def test_commands_of_the_configuration_run_as_ever(modern: Lead, scene: Scene) -> None:
    _brings(scene, checks=[list(CHECK), list(GUARD)])
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes")
    assert await modern.until_rest() == {"S1": "merged"}


async def test_an_agent_that_is_a_command_line_of_the_epic_file_is_a_command_too(modern: Lead, scene: Scene) -> None:
    scene.epic(story("S1", agent="sh -c 'touch mine'"), allowed=False)
    await modern.ask("plan_epic", epic_file="epic.yaml")
    assert "touch mine" in await modern.refused("start_wave", epic="notes")


async def test_a_plan_that_changes_while_a_wave_is_being_started_is_looked_at_again(
    modern: Lead, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the start git runs for a while; another session may plan in that time."""
    from mcp_server.server import launch  # noqa: PLC0415 - what is patched

    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    prepare = launch._prepare_branch  # pyright: ignore[reportPrivateUsage]

    async def slow(*arguments: object) -> None:
        _brings(scene)
        await modern.ask("plan_epic", epic_file="epic.yaml")
        await prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(launch, "_prepare_branch", slow)
    assert "checks_not_allowed" in await modern.refused("start_wave", epic="notes")
    assert await modern.states() == {"S1": "ready"}


# --- the human --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_human_at_the_editor_sees_every_command_and_allows_them_for_good(
    scene: Scene, state: Path, era: Era
) -> None:
    _brings(scene)
    answer, heard = human("accept", answer="allow")
    async with Client(build(scene.repo), mode=era, elicitation_callback=answer) as client:
        lead = Lead(client)
        await lead.ask("plan_epic", epic_file="epic.yaml")
        await lead.ask("start_wave", epic="notes")
        assert await lead.until_rest() == {"S1": "merged"}
        [question] = heard
        assert "print('\"'\"'green'\"'\"')" in question
        assert "import sys" in question
        assert Allowed(state).missing([CHECK, GUARD]) == ()
        await lead.refused("start_wave", epic="notes", retry=True)  # nothing is ready; nobody is asked again
        assert len(heard) == 1


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("action", ["refuse", "yes", "decline"])
async def test_without_the_humans_word_nothing_is_allowed(scene: Scene, state: Path, era: Era, action: str) -> None:
    _brings(scene)
    answer, heard = human("decline") if action == "decline" else human("accept", answer=action)
    async with Client(build(scene.repo), mode=era, elicitation_callback=answer) as client:
        lead = Lead(client)
        await lead.ask("plan_epic", epic_file="epic.yaml")
        assert "checks_not_allowed" in await lead.refused("start_wave", epic="notes")
        assert len(heard) == 1
        assert Allowed(state).read() == {}


async def test_more_than_fits_a_question_is_not_asked(scene: Scene) -> None:
    """Nobody allows what they have not seen."""
    _brings(scene)
    scene.epic(story("S1"), checks=[["echo", "x" * 3_000]], allowed=False)
    answer, heard = human("accept", answer="allow")
    async with Client(build(scene.repo), elicitation_callback=answer) as client:
        lead = Lead(client)
        await lead.ask("plan_epic", epic_file="epic.yaml")
        assert "checks_not_allowed" in await lead.refused("start_wave", epic="notes")
    assert heard == []


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_is_the_users_own_in_the_state_folder(scene: Scene, state: Path) -> None:
    before = scene.checkout()
    Allowed(state).allow([CHECK])
    Allowed(state).allow([CHECK, GUARD])
    path = state / "allowed.json"
    assert list(json.loads(path.read_text("utf-8"))["allowed"]) == [digest(CHECK), digest(GUARD)]
    assert sorted(Allowed(state).read().values()) == sorted([CHECK, GUARD])
    assert scene.checkout() == before
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_what_is_forgotten_is_asked_again(state: Path) -> None:
    listed = Allowed(state)
    listed.allow([CHECK, GUARD])
    assert listed.forget([CHECK, ("never", "there")]) == 1
    assert listed.missing([CHECK, GUARD]) == (CHECK,)
    assert listed.forget() == 1
    assert listed.missing([CHECK, GUARD]) == (CHECK, GUARD)


@pytest.mark.parametrize(
    "content", [b"", b"no json", b"[]", b'{"allowed": []}', b'{"allowed": {"x": 3}}', b"\xff", b"[" * 100_000]
)
def test_a_list_that_we_did_not_write_allows_nothing_and_is_replaced(state: Path, content: bytes) -> None:
    Allowed(state).allow([CHECK])
    (state / "allowed.json").write_bytes(content)
    assert Allowed(state).read() == {}
    Allowed(state).allow([GUARD])
    assert list(Allowed(state).read().values()) == [GUARD]


def test_a_hash_with_other_words_beside_it_allows_nothing(state: Path) -> None:
    """What a list shows is what it allows."""
    Allowed(state).allow([CHECK])
    path = state / "allowed.json"
    path.write_text(json.dumps({"allowed": {digest(CHECK): ["true"]}}), "utf-8")
    assert Allowed(state).missing([CHECK, ("true",)]) == (CHECK, ("true",))


@pytest.mark.skipif(sys.platform == "win32", reason="the system has other rights")
@pytest.mark.parametrize("how", ["open file", "open folder", "link", "folder"])
def test_a_list_that_others_could_have_written_is_refused(state: Path, tmp_path: Path, how: str) -> None:
    Allowed(state).allow([CHECK])
    path = state / "allowed.json"
    if how == "open file":
        path.chmod(0o660)
    elif how == "open folder":
        state.chmod(0o770)
    else:
        path.rename(tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json") if how == "link" else path.mkdir()
    with pytest.raises(Refused) as refused:
        Allowed(state).missing([CHECK])
    assert refused.value.code is Code.UNSAFE_STATE
    assert Allowed(state).missing([]) == (), "an epic that brings nothing is nobody's business"


@pytest.mark.skipif(sys.platform == "win32", reason="the system has other rights")
def test_somebody_elses_list_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Allowed(state).allow([CHECK])
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(Refused) as refused:
        Allowed(state).read()
    assert refused.value.code is Code.UNSAFE_STATE


def test_a_list_is_written_whole_or_not_at_all(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Allowed(state).allow([CHECK])
    before = sorted(path.name for path in state.iterdir())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(allowed.os, "fsync", full)
    with pytest.raises(Exception, match="cannot be written"):
        Allowed(state).allow([GUARD])
    assert list(Allowed(state).read().values()) == [CHECK]
    assert sorted(path.name for path in state.iterdir()) == before


async def test_a_checkout_cannot_allow_its_own_commands(modern: Lead, scene: Scene) -> None:
    """Whatever file a clone brings, at whatever place in it."""
    _brings(scene)
    content = json.dumps({"version": 1, "allowed": {digest(CHECK): list(CHECK), digest(GUARD): list(GUARD)}})
    for folder in (scene.repo, scene.repo / ".epicwave", scene.repo / "epicwave"):
        folder.mkdir(exist_ok=True)
        (folder / "allowed.json").write_text(content, "utf-8")
    await modern.ask("plan_epic", epic_file="epic.yaml")
    assert "checks_not_allowed" in await modern.refused("start_wave", epic="notes")


async def test_every_worktree_of_a_repository_has_the_same_list(scene: Scene, state: Path) -> None:
    _brings(scene)
    Allowed(state).allow([CHECK, GUARD])
    linked = scene.outside / "linked"
    scene.git("worktree", "add", "-q", "--detach", linked)
    (linked / "epic.yaml").write_text((scene.repo / "epic.yaml").read_text("utf-8"), "utf-8")
    (linked / ".epicwave" / "config.yaml").write_text((scene.repo / ".epicwave" / "config.yaml").read_text("utf-8"))
    async with leading(build(linked)) as lead:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        await lead.ask("start_wave", epic="notes")
        assert await lead.until_rest() == {"S1": "merged"}
