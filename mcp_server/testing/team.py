"""The editor's sub-agents in virtual time: what one says to the server, and what its hands do at its desk.

They outlive every engine and talk to the one of the moment. The calls do what `claim_story`, `report_story` and
`agent_event` do, in the same order, without a client in between. Commands that answers tell are run letter by letter.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio

from mcp_server.adapters.git.names import attempt_branch, attempt_ref
from mcp_server.core.commands import EndLease, RenewLease
from mcp_server.core.leases import attempt_of, held, holds, lease_name
from mcp_server.core.model import Cause, Lease, StoryState
from mcp_server.core.spec import AttemptId, EpicId, Sha, StoryId
from mcp_server.engine.context import saved_work
from mcp_server.engine.engine import Engine
from mcp_server.engine.leasing import hand_in
from mcp_server.errors import Code, Fault, Refused
from mcp_server.server.answers import answer_of
from mcp_server.server.wire_team import ReportReply
from mcp_server.testing.breach import Promise
from mcp_server.testing.fake_repository import HEADS, Desk, HandRefused
from mcp_server.testing.world import EPIC, NoServer, World

WAIT_S = 40.0
"""How long a report waits for the checks."""
AGAIN_S = 5.0
"""How long a sub-agent waits before it calls again when the world has failed the server."""
ANSWERED = frozenset(
    {StoryState.RUNNING, StoryState.MERGING, StoryState.MERGED, StoryState.STOPPING, StoryState.CANCELLED}
)
Outcome = Literal["progress", "done", "failed", "blocked"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim has answered."""

    attempt: AttemptId
    token: str
    base: Sha
    place: Path
    lease_s: float


class DeskGone(Exception):  # noqa: N818 - it says what the sub-agent finds
    """Its worktree is not there any more."""


class SubAgent:
    """Stores its name, its desk, and what it has claimed. Without a name nobody tells us who calls."""

    def __init__(self, world: World, name: str = "", *, isolated: bool = True, at: Sha | None = None) -> None:
        """`isolated`: the host makes a desk for it, at the user's branch or `at` a commit; else it works at ours."""
        self.world = world
        self.name = name
        self.claimed: Claim | None = None
        self.own: Path | None = None
        self.reply_s = 0.0
        """How long an answer is on its way; it is lost when the server dies meanwhile."""
        self.human_s: float | None = None
        """How long the human needs to answer a question; None when nobody can be asked."""
        self._left: dict[Path, tuple[Sha, str | None, dict[str, str]]] = {}
        if isolated:
            number = sum(ref.startswith(f"{HEADS}worktree-") for ref in world.git.refs)
            self.own = world.git.host_desk(f"{name}-{number}", at or world.git.refs["refs/heads/main"])

    # --- calls

    async def claim(self, story: StoryId | None = None, *, epic: EpicId = EPIC) -> Claim:
        """Claim a story. Raises `Refused`, `Fault`, `NoServer`."""
        async with self.world.call() as engine:
            now = engine.ledger.epics[epic]
            mine = self.world.leasing.lease_of_holder(now, self.name, self.own)
            if mine is not None and story not in (None, mine.spec.id):
                raise Refused(Code.LEASE_HELD, f"You hold story {mine.spec.id!r}.", "Report it first.")
            if mine is None:
                mine = await self.world.leasing.claim(engine, epic, story, self.name, self.own)
            attempt, lease = attempt_of(engine.ledger.epics[epic], mine), mine.lease
            assert lease is not None, "it has just been claimed"
            claim = Claim(attempt, lease.token, mine.base or "", Path(lease.place), lease.until_s - engine.now_s())
            known = self.claimed is not None and self.claimed.attempt == attempt
            await self._answer(attempt, claim.lease_s, base="" if known else claim.base)
            self.claimed = claim
        return claim

    async def report(self, outcome: Outcome = "done", note: str = "why") -> ReportReply:
        """Report on what was claimed. Raises `Refused`, `Fault`, `NoServer`."""
        attempt, holders = self.holds.attempt, self.world.truth.holders
        if outcome != "progress":
            holders.in_doubt(attempt)
        try:
            async with self.world.call() as engine:
                reply = await self._reported(engine, outcome, note)
                await self._answer(attempt, reply.lease_s)
        except Refused as refused:
            self._refused(refused)
            raise
        except Fault:
            holders.as_before(attempt)
            raise
        except NoServer:
            if outcome != "progress":
                holders.over(attempt)
            raise
        return reply

    async def ended(self, word: str = "died") -> None:
        """The host's hook says that it has ended. Raises `NoServer`."""
        async with self.world.call() as engine:
            for attempt, lease in self._leases(engine):
                self.world.truth.holders.over(attempt)
                engine.handle(EndLease(attempt, lease.token, Cause.LEASE_LOST, f"Its sub-agent {word}."))

    async def done(self) -> ReportReply:
        """Report done, and again while the answer is that it is being checked."""
        reply = await self.report()
        while reply.answer == "checking":
            reply = await self.report()
        return reply

    async def _answer(self, attempt: AttemptId, lease_s: float, *, base: Sha = "") -> None:
        """The answer is on its way: what it says holds from here on, unless it never comes. A `base`: to a claim."""
        truth = self.world.truth
        if lease_s:
            truth.holders.told(attempt, lease_s)
        else:
            truth.holders.over(attempt)
        if base:
            truth.began(attempt, self.world.git.commits[base].files, self.world.runner.alive())
        try:
            await anyio.sleep(self.reply_s)
        except anyio.get_cancelled_exc_class():
            truth.holders.over(attempt)
            raise

    async def _reported(self, engine: Engine, outcome: Outcome, note: str) -> ReportReply:
        claim, name = self.holds, lease_name(self.holds.attempt, self.holds.token)
        attempt = claim.attempt
        story = holds(engine.ledger, attempt, claim.token)
        if story is None or story.state not in ANSWERED:
            known = engine.ledger.epics[attempt.epic].stories[attempt.story]
            if attempt.number < known.attempt or story is not None:
                await saved_work(engine.ports, attempt)
            held(engine.ledger, attempt, claim.token)
        if story is not None and story.state is StoryState.RUNNING:
            answered = await self._act(engine, outcome, note)
            if outcome == "progress" or answered:
                reply = answer_of(engine, attempt, name, asked_progress=True)
                return reply.model_copy(update={"answer": "answered"}) if answered else reply
        await engine.wait_for(lambda _: self._is_decided(engine), WAIT_S)
        return answer_of(engine, attempt, name, asked_progress=outcome == "progress")

    async def _act(self, engine: Engine, outcome: Outcome, note: str) -> bool:
        """Do what a report asks for; True when a human has answered a question."""
        attempt, token = self.holds.attempt, self.holds.token
        match outcome:
            case "progress":
                engine.handle(RenewLease(attempt, token, note))
                await engine.watch.looked(attempt)
            case "done":
                marks = self.world.truth.hands_in(attempt)
                await hand_in(engine, attempt, token, self.own, attempt_branch(attempt))
                self.world.truth.taken(attempt, marks)
            case "failed":
                engine.handle(EndLease(attempt, token, Cause.AGENT_FAILED, f"Its sub-agent gave up: {note}"))
            case "blocked":
                engine.handle(RenewLease(attempt, token, f"asks: {note}"))
                if self.human_s is not None:
                    await anyio.sleep(self.human_s)
                    engine.handle(RenewLease(attempt, token, "the question is answered"))
                    return True
                engine.handle(EndLease(attempt, token, Cause.QUESTION, note))
        return False

    def _is_decided(self, engine: Engine) -> bool:
        attempt = self.holds.attempt
        story = engine.ledger.epics[attempt.epic].stories[attempt.story]
        if story.attempt != attempt.number:
            return True
        collecting = story.state is StoryState.RUNNING and story.lease is not None and story.lease.ended is not None
        return story.state is not StoryState.MERGING and not collecting

    def _refused(self, refused: Refused) -> None:
        """A lease counts until its deadline, as it was told, unless somebody ended it."""
        world, attempt = self.world, self.holds.attempt
        if refused.code is Code.NOT_DONE:
            world.truth.holders.as_before(attempt)
            return
        if world.truth.holders.was_due(attempt) and not self._is_stopping:
            world.truth.saw(Promise.LEASE, f"{attempt} was refused before its deadline: {refused}")
        world.truth.holders.over(attempt)

    @property
    def _is_stopping(self) -> bool:
        """Its story was told to stop because another one failed: it hears of that at its next call."""
        attempt = self.holds.attempt
        return self.world.of(attempt.story, attempt.epic).state is StoryState.STOPPING

    def _leases(self, engine: Engine) -> list[tuple[AttemptId, Lease]]:
        """What the server takes for its: what an agent of that name holds."""
        found: list[tuple[AttemptId, Lease]] = []
        for epic in engine.ledger.epics.values():
            for story in epic.stories.values():
                lease = story.lease
                known = lease is not None and self.name and lease.holder == self.name and lease.ended is None
                if known and lease and story.state in (StoryState.RUNNING, StoryState.MERGING):
                    found.append((attempt_of(epic, story), lease))
        return found

    # --- hands

    def begin(self) -> None:
        """Its first command: its branch, from the base that it was told. At our desk it is there already."""
        branch = attempt_branch(self.holds.attempt)
        if self.own is not None and self.world.git.desks[self.own].branch != f"{HEADS}{branch}":
            self.run(f"git switch -c {branch} {self.holds.base}")

    def touch(self, *more: str) -> None:
        """Leave a mark, and write the story's files and `more`; nothing is committed."""
        with self._at_desk() as place:
            self.world.truth.touch(self.holds.attempt, place, *more)

    def commit(self) -> None:
        """Commit all that lies there."""
        self.run("git commit -m words")

    def work(self, *more: str) -> None:
        """The story's files, in one commit."""
        self.touch(*more)
        self.commit()

    def start_over(self) -> None:
        """Throw the base away: its branch goes on from a root of its own."""
        with self._at_desk() as place:
            git = self.world.git
            git.check_out(place, git.record({}), attempt_ref(self.holds.attempt))

    def mend(self, reply: ReportReply) -> None:
        """Do what a refused merge asks for: the commands, what clashes, and what is rotten."""
        assert reply.answer == "repair", reply
        self.obey(reply.commands)
        if self.holds.attempt in self.world.truth.rotten:
            self.world.truth.rotten.discard(self.holds.attempt)
            self.work()

    def obey(self, told: Sequence[str] | Refused) -> None:
        """Run the commands of an answer or of a refusal, one by one. Where git wants a clean desk, commit first."""
        for command in commands_in(told) if isinstance(told, Refused) else told:
            try:
                self.run(command)
            except HandRefused as refused:
                if "unstaged" not in str(refused):
                    raise
                self.commit()
                self.run(command)

    def run(self, command: str) -> None:
        """One plain command in its worktree. Raises `HandRefused` as git would, `DeskGone` when there is none."""
        with self._at_desk() as place:
            self._git(place, shlex.split(command)[1:])

    def _git(self, place: Path, words: list[str]) -> None:
        git = self.world.git
        match words:
            case ["add" | "diff", *_]:
                pass
            case ["commit", "-m", _]:
                git.commit(place)
            case ["switch", "-"]:
                git.switch(place, f"worktree-{place.name}")
            case ["switch", "-c", branch, *base]:
                git.switch(place, branch, base[0] if base else git.desks[place].head)
            case ["cherry-pick", both]:
                self._cherry_pick(place, *both.split(".."))
            case ["rebase", "--onto", onto, fork, _]:
                self._settle(git.rebase(place, onto, None if fork == "--root" else fork), place)
            case ["rebase", onto]:
                self._settle(git.rebase(place, self._whole(onto)), place)
            case ["-c", _, "rebase", "--continue"]:
                if git.desks[place].rebasing:
                    self._settle(git.rebase_continue(place), place)
            case _:
                raise AssertionError(f"git {' '.join(words)} is not known here")

    def _cherry_pick(self, place: Path, fork: Sha, head: Sha) -> None:
        git = self.world.git
        for sha in git.own_commits(fork, head):
            clashes: list[str] = []
            for name, before, after in git.patch(sha):
                if git.desks[place].files.get(name) != before:
                    clashes.append(name)
                else:
                    git.write(place, name, after or "")
            self._settle(clashes, place)
            git.commit(place)

    def _settle(self, clashes: Sequence[str], place: Path) -> None:
        """Both sides are kept where they clash."""
        git = self.world.git
        for name in clashes:
            there = git.commits[git.desks[place].head].files.get(name, "")
            git.write(place, name, f"{there}{self.holds.attempt}\n")

    def _whole(self, start: str) -> Sha:
        (found,) = [sha for sha in self.world.git.commits if sha.startswith(start)]
        return found

    @contextmanager
    def _at_desk(self) -> Generator[Path]:
        """Its worktree, which nobody else may change, and nobody may take away while its lease counts."""
        world, attempt, place = self.world, self.holds.attempt, self.own or self.holds.place
        counts = world.truth.holders.surely(attempt) and not self._is_stopping
        if place not in world.git.desks:
            if counts:
                world.truth.saw(Promise.LEASE, f"the worktree of {attempt} was taken away")
            raise DeskGone
        if self._left.get(place, now := seen(world.git.desks[place])) != now and (counts or self.own):
            world.truth.saw(Promise.LEASE, f"the worktree of {attempt} was changed by somebody else")
        yield place
        self._left[place] = seen(world.git.desks[place])

    @property
    def holds(self) -> Claim:
        """What it has claimed."""
        assert self.claimed is not None, "nothing is claimed"
        return self.claimed


def commands_in(refused: Refused) -> list[str]:
    """The commands that a refusal tells to run, in order."""
    return [c for c in re.findall(r"`([^`]+)`", refused.remedy) if c.startswith("git ")]


def seen(desk: Desk) -> tuple[Sha, str | None, dict[str, str]]:
    """What whoever sits at a desk finds there."""
    return desk.head, desk.branch, dict(desk.files)
