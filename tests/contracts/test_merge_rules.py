"""Files that a rule settles are no conflict; kept by real git, with and without a worktree, and by the fake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.adapters.git.repository import Repository
from mcp_server.core.merge_rules import MergeRule, Way
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.ports import Conflicted, Landing
from tests.contracts.git_worlds import START, FakeWorld, RealWorld, World, git, new_repository, worked

pytestmark = pytest.mark.anyio

S1, S2 = AttemptId("e", "S1", 1), AttemptId("e", "S2", 1)
LOCK = ("lock", "it")
RULES = (
    MergeRule("b.txt", Way.UNION),
    MergeRule("a.txt", Way.REGENERATE, LOCK),
    MergeRule("c.txt", Way.OURS),
    MergeRule("* [o]dd.txt", Way.UNION),
)


@pytest.fixture(params=["real", "old git", "fake"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, no_user_config: None) -> World:
    """The port on real git, on a git that cannot merge trees, and the fake."""
    if request.param == "fake":
        return FakeWorld()
    first = new_repository(tmp_path / "repo")
    repository = await Repository.open(tmp_path / "repo")
    old = replace(repository, version=(2, 37)) if request.param == "old git" else repository
    return RealWorld(tmp_path, old, first)


async def both(
    world: World, here: dict[str, str], *there: dict[str, str], rules: tuple[MergeRule, ...] = RULES
) -> tuple[Sha, Landing | Conflicted]:
    """The tip after one story changed files, and what becomes of another that changed some of them too."""
    await world.start_epic("e")
    head = await worked(world, S2, world.first, *there)
    onto = await worked(world, S1, world.first, here)
    assert await world.merge.advance(S1, world.first, onto)
    return onto, await world.merge.rebase(S2, world.first, head, rules=rules)


async def test_the_lines_of_both_sides_are_kept_in_a_file_that_is_united(world: World) -> None:
    onto, landing = await both(
        world, {"b.txt": "b\none\n"}, {"b.txt": "b\ntwo\n"}, {"new.txt": "3\n", "b.txt": "b\ntwo\n"}
    )
    assert isinstance(landing, Landing)
    assert (landing.onto, landing.regenerate) == (onto, ())
    assert world.files(landing.head) == {**START, "b.txt": "b\none\ntwo\n", "new.txt": "3\n"}


@pytest.mark.parametrize(("here", "there"), [("b\none\n", "two\n"), ("one\n", "b\ntwo\n"), ("one\n", "two\n")])
async def test_where_a_side_took_lines_away_nothing_is_united(world: World, here: str, there: str) -> None:
    """A union would bring them back, and no conflict would tell."""
    _, conflict = await both(world, {"b.txt": here}, {"b.txt": there, "new.txt": "3\n"})
    assert isinstance(conflict, Conflicted)
    assert conflict.paths == ("b.txt",)


async def test_the_tips_side_stands_where_that_is_the_rule(world: World) -> None:
    _, landing = await both(world, {"dir/c.txt": "one\n"}, {"dir/c.txt": "two\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    assert (landing.files, landing.regenerate) == (("new.txt",), ())
    assert world.files(landing.head)["dir/c.txt"] == "one\n"


async def test_a_file_that_is_made_anew_has_the_tips_side_until_then(world: World) -> None:
    _, landing = await both(world, {"a.txt": "one\n"}, {"a.txt": "two\n"}, {"a.txt": "three\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    assert landing.regenerate == (("a.txt", LOCK),)
    assert world.files(landing.head) == {**START, "a.txt": "one\n", "new.txt": "3\n"}


async def test_what_only_one_side_changed_is_not_made_anew(world: World) -> None:
    _, landing = await both(world, {"b.txt": "b\none\n"}, {"a.txt": "two\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    assert landing.regenerate == ()
    assert world.files(landing.head)["a.txt"] == "two\n"


async def test_what_both_changed_alike_is_not_made_anew(world: World) -> None:
    _, landing = await both(world, {"a.txt": "same\n"}, {"a.txt": "same\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    assert (landing.files, landing.regenerate) == (("new.txt",), ())


async def test_the_file_made_anew_is_part_of_the_last_commit(world: World) -> None:
    """What else the command has left in the worktree is not."""
    onto, landing = await both(world, {"a.txt": "one\n"}, {"b.txt": "2\n"}, {"a.txt": "two\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    path = await world.merge.checkout("e", landing.head)
    world.write(path, "a.txt", "one and two\n")
    world.write(path, "b.txt", "not meant\n")
    world.write(path, "junk.txt", "left behind\n")
    made = await world.merge.amend(S2, landing, ["a.txt"])
    assert made == Landing(onto, made.head, ("a.txt", "b.txt", "new.txt"))
    assert world.files(made.head) == {**START, "a.txt": "one and two\n", "b.txt": "2\n", "new.txt": "3\n"}
    assert await world.merge.advance(S2, onto, made.head)
    assert world.files(await world.merge.tip("e"))["a.txt"] == "one and two\n"


async def test_a_file_that_comes_out_as_it_was_changes_nothing(world: World) -> None:
    _, landing = await both(world, {"a.txt": "one\n"}, {"a.txt": "two\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    await world.merge.checkout("e", landing.head)
    assert await world.merge.amend(S2, landing, ["a.txt"]) == replace(landing, regenerate=())


async def test_a_branch_that_changes_nothing_but_such_a_file_is_in_conflict(world: World) -> None:
    """It would land as nothing: what its author wanted there is not known to the command."""
    onto, conflict = await both(world, {"a.txt": "one\n"}, {"a.txt": "two\n"})
    assert isinstance(conflict, Conflicted)
    assert (conflict.onto, conflict.paths) == (onto, ("a.txt",))


async def test_files_without_a_rule_conflict_as_ever_and_are_named_alone(world: World) -> None:
    sides = [{"a.txt": f"{n}\n", "b.txt": f"b\n{n}\n", "new.txt": f"{n}\n"} for n in ("one", "two")]
    _, conflict = await both(world, *sides)
    assert isinstance(conflict, Conflicted)
    assert conflict.paths == ("new.txt",)
    assert "one" in conflict.detail
    assert "two" in conflict.detail


async def test_without_rules_nothing_is_settled(world: World) -> None:
    _, conflict = await both(world, {"b.txt": "b\none\n"}, {"b.txt": "b\ntwo\n"}, rules=())
    assert isinstance(conflict, Conflicted)
    assert conflict.paths == ("b.txt",)


async def test_a_name_with_every_odd_character_is_meant_literally(world: World) -> None:
    name = 'dir/*[o]?\\ "é\t odd.txt'
    near = "dir/*o?x odd.txt"
    await world.start_epic("e")
    rules = (MergeRule("dir/[*][[]o*odd.txt", Way.UNION),)
    first = await worked(world, S1, world.first, {name: "0\n", near: "0\n"})
    assert await world.merge.advance(S1, world.first, first)
    head = await worked(world, S2, first, {name: "0\n2\n"})
    onto = await worked(world, S1._replace(number=2), first, {name: "0\n1\n"})
    assert await world.merge.advance(S1._replace(number=2), first, onto)
    landing = await world.merge.rebase(S2, first, head, rules=rules)
    assert isinstance(landing, Landing)
    assert world.files(landing.head)[name] == "0\n1\n2\n"


async def test_a_branch_with_merges_of_its_own_is_settled_too(world: World) -> None:
    await world.start_epic("e")
    async with world.worktrees.hold(S2, world.first) as path:
        world.write(path, "new.txt", "side\n")
        side = world.commit(path)
        world.check_out(path, world.first)
        world.write(path, "b.txt", "b\ntwo\n")
        world.commit(path)
        world.merge_in(path, side)
        world.write(path, "a.txt", "two\n")
        head = world.commit(path)
        await world.worktrees.inspect(S2, world.first)
    onto = await worked(world, S1, world.first, {"a.txt": "one\n", "b.txt": "b\none\n"})
    assert await world.merge.advance(S1, world.first, onto)
    landing = await world.merge.rebase(S2, world.first, head, rules=RULES)
    assert isinstance(landing, Landing)
    assert landing.regenerate == (("a.txt", LOCK),)
    assert world.files(landing.head) == {**START, "a.txt": "one\n", "b.txt": "b\none\ntwo\n", "new.txt": "side\n"}


@pytest.mark.parametrize("attributes", ["a.txt binary\n", "*.txt -merge\n"])
async def test_a_rule_is_stronger_than_the_repositorys_word_that_a_file_cannot_be_merged(
    real: RealWorld, attributes: str
) -> None:
    """Lock files are often marked so."""
    real.write(real.top, ".gitattributes", attributes)
    git(real.top, "add", "-A")
    git(real.top, "commit", "-q", "-m", "attributes")
    real.first = git(real.top, "rev-parse", "HEAD").strip()
    _, landing = await both(real, {"a.txt": "one\n"}, {"a.txt": "two\n", "new.txt": "3\n"})
    assert isinstance(landing, Landing)
    assert landing.regenerate == (("a.txt", LOCK),)


async def test_the_users_own_attributes_count_in_the_worktree_too(world: World, tmp_path: Path) -> None:
    """Where git reads ours from a file that stands in for theirs."""
    if not isinstance(world, RealWorld):
        pytest.skip("the fake has no attributes")
    (tmp_path / "attributes").write_text("dir/c.txt merge=union\n")
    (tmp_path / "home" / ".gitconfig").write_text(f"[core]\n\tattributesFile = {tmp_path}/attributes\n")
    sides = [{"b.txt": f"b\n{n}\n", "dir/c.txt": f"c\n{n}\n"} for n in ("one", "two")]
    _, landing = await both(world, *sides, rules=RULES[:1])
    assert isinstance(landing, Landing)
    assert world.files(landing.head)["dir/c.txt"] == "c\none\ntwo\n"
