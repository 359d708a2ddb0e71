"""The keeper of the truth: what really was done, told by the agents' own hands and by git, never by the engine.

Every time an agent works it leaves a mark, a file that only this attempt makes. Where a mark is in the end tells what
became of the work: on the integration branch, saved on a rescue ref, or lost.

What is promised to a sub-agent that works at a desk of the host's: what it commits to its attempt's branch is kept,
however late; what it leaves there uncommitted, or in the middle of a rebase, is kept when it was made while its lease
surely counted. What it does on another branch than its attempt's is not touched, and stays where it is. The rest goes
when the host clears the desk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mcp_server.adapters.git.names import attempt_of_ref, attempt_ref, integration_branch, rescue_ref
from mcp_server.core.footprint import overlap
from mcp_server.core.model import Ledger, StoryState
from mcp_server.core.spec import AttemptId, EpicId, EpicSpec, Sha, Sharing, StoryId, StorySpec
from mcp_server.ports import AgentCall
from mcp_server.testing.breach import Breach, Promise
from mcp_server.testing.fake_git import ROOT, FakeGit, folder
from mcp_server.testing.fake_repository import HOST_ROOT
from mcp_server.testing.holders import Holders
from mcp_server.testing.witness import Witness

MARKS = ".marks"
OURS = ("refs/heads/epicwave/", "refs/heads/epicwave-work/", "refs/epicwave/")
HOSTS = "refs/heads/worktree-"
BRANCHES = "refs/heads/epicwave/"
Act = Callable[[AgentCall], None]


class Truth:
    """Stores every mark that was made, every commit that passed its checks, and every breach that was seen."""

    def __init__(self, git: FakeGit) -> None:
        self.git = git
        self.witness = Witness()
        """Knows what was said and how agents ended; what is seen here goes into its list, too."""
        self.rotten: set[AttemptId] = set()
        """Attempts whose work turns the checks red, wherever it is."""
        self.pushed: list[tuple[EpicId, Sha]] = []
        """What somebody else put on an integration branch."""
        self.lands: list[AttemptId] = []
        """Attempts whose work came onto an integration branch, in that order."""
        self.holders = Holders(git.clock)
        """Sub-agents of the editor, as they know it themselves."""
        self._handed: dict[AttemptId, int] = {}
        """Marks of a sub-agent that were there when its work was last taken."""
        self._queued: set[tuple[AttemptId, Sha]] = set()
        self._beside: dict[AttemptId, set[str]] = defaultdict(set)
        """Refs that keep what a sub-agent did on another branch than its own."""
        self._owed: set[str] = set()
        """Marks that are to be kept although nobody commits them."""
        self._thrown_away: set[str] = set()
        """Marks that went with a desk that the host cleared, and that nobody had promised to keep."""
        self._marks: dict[AttemptId, list[str]] = defaultdict(list)
        self._specs: dict[EpicId, EpicSpec] = {}
        self._stories: dict[tuple[EpicId, StoryId], StorySpec] = {}
        self._passed: dict[Sha, set[tuple[str, ...]]] = defaultdict(set)
        self._user_refs = self._not_ours()

    def know(self, spec: EpicSpec) -> None:
        """An epic as its author wrote it."""
        self._specs[spec.id] = spec
        self._stories |= {(spec.id, story.id): story for story in spec.stories}

    # --- the hands of agents

    def mark(self, attempt: AttemptId, path: Path) -> None:
        """Leave a mark in a worktree, without a commit."""
        made, desk = self._marks[attempt], self.git.desks[path]
        mark = f"{MARKS}/{attempt}/{len(made) + 1}"
        made.append(mark)
        self.git.write(path, mark, str(attempt))
        there = attempt_ref(attempt) in (desk.branch, desk.rebasing)
        if path == folder(attempt) or (there and self.holders.surely(attempt)):
            self._owed.add(mark)
        elif not there and desk.branch:
            former = attempt_of_ref(desk.branch)  # it has not left the branch of the story before
            self._beside[attempt] |= {desk.branch, rescue_ref(former)} if former else {desk.branch}

    def touch(self, attempt: AttemptId, path: Path, *more: str) -> None:
        """Leave a mark and touch the story's files (and `more`) in a worktree, without a commit."""
        self.mark(attempt, path)
        for entry in (*self._story(attempt).files, *more):
            name = concrete(entry)
            self.git.write(path, name, f"{self.git.desks[path].files.get(name, '')}{attempt}\n")

    def scribble(self, call: AgentCall, *more: str) -> None:
        """Touch the story's files (and `more`), without a commit."""
        self.touch(call.attempt, call.worktree, *more)

    def work(self, call: AgentCall) -> None:
        """What a good agent does: the story's files, in one commit."""
        self.scribble(call)
        self.git.commit(call.worktree)

    def work_on(self, *more: str) -> Act:
        """A good agent that also writes files it had not named."""

        def act(call: AgentCall) -> None:
            self.scribble(call, *more)
            self.git.commit(call.worktree)

        return act

    def work_elsewhere(self, call: AgentCall) -> None:
        """An agent that throws away the base it was given and commits on a root of its own."""
        self.git.check_out(call.worktree, self.git.record({}), attempt_ref(call.attempt))
        self.work(call)

    # --- the hands of sub-agents and of their host

    def hands_in(self, attempt: AttemptId) -> int:
        """A sub-agent says that it is done: with so many marks."""
        return len(self._marks[attempt])

    def taken(self, attempt: AttemptId, marks: int) -> None:
        """It is told that its work was taken: if the attempt lands, then with all of these."""
        self._handed[attempt] = marks

    def host_clears(self, path: Path) -> None:
        """The host removes a worktree of its own, with all that is on no branch: files, commits in mid-rebase."""
        desk = self.git.desks[path]
        kept = set(self.git.commits[desk.head].files if desk.branch else ())
        self._thrown_away |= desk.files.keys() - kept - self._owed
        self.git.host_clears(path)

    # --- what can be seen from outside

    def began(self, attempt: AttemptId, files: Mapping[str, str], processes: Sequence[AttemptId]) -> None:
        """An agent has started on these files; what forbids it is a breach. `processes`, itself maybe, are alive."""
        alive = [*processes, *self.holders.alive()]
        policy = self.witness.policies[attempt.epic]
        if attempt.story in self.landed(attempt.epic):
            self.saw(Promise.RESURRECTED, f"{attempt} started although its story is on the branch")
        for needed in self._story(attempt).depends_on:
            if self._story(attempt._replace(story=needed)).done or (attempt.epic, needed) in self.witness.skipped:
                continue
            marks = f"{MARKS}/{attempt.epic}/{needed}/"
            if not any(name.startswith(marks) for name in files):
                self.saw(Promise.ORDER, f"{attempt} started without the work of {needed}")
        if len(alive) > policy.slots:
            self.saw(Promise.SLOTS, f"{attempt} is one too many: {', '.join(map(str, alive))} are alive")
        for other in alive:
            if other != attempt and other[:2] == attempt[:2]:
                self.saw(Promise.DUPLICATED, f"{attempt} works while {other} does")
            elif other != attempt and self._exclusive(attempt, other) and self._clash(attempt, other):
                self.saw(Promise.FILES, f"{attempt} works beside {other} on the same files")

    def saw(self, promise: Promise, words: str) -> None:
        """What must never happen and did, as it was seen."""
        self.witness.breaches.append(Breach(promise, words))

    def queued(self, attempt: AttemptId, head: Sha) -> None:
        """Work goes into the merge queue; the very same work is not tried twice."""
        if (attempt, head) in self._queued:
            self.saw(Promise.DUPLICATED, f"{attempt} was handed in twice with nothing mended")
        self._queued.add((attempt, head))

    def judge(self, attempt: AttemptId, command: tuple[str, ...], cwd: Path) -> int:
        """The exit code of a check: red when anything rotten is in the tree."""
        desk = self.git.desks[cwd]
        if any(self._holds(desk.files, rotten) for rotten in self.rotten):
            return 1
        if self._marks.get(attempt) and not self._holds(desk.files, attempt):
            self.saw(Promise.PROOF, f"a check of {attempt} ran on a tree without its work")
        self._passed[desk.head].add(command)
        return 0

    def moved(self, ref: str, before: Sha | None, after: Sha) -> None:
        """A ref was moved. An integration branch goes forward only, to what passed every check."""
        if not ref.startswith(BRANCHES) or before is None or (ref.removeprefix(BRANCHES), after) in self.pushed:
            return
        epic = ref.removeprefix(BRANCHES)
        if not self.git.is_ancestor(before, after):
            self.saw(Promise.PROOF, f"{ref} was moved backwards or aside")
        old = self.git.commits[before].files
        new = [a for a in self._marks if a.epic == epic and self._holds(self.git.commits[after].files, a)]
        guards = {g for a in self._marks if a.epic == epic and self._holds(old, a) for g in self._story(a).guards}
        for attempt in (a for a in new if not self._holds(old, a)):
            own = self._story(attempt)
            needed = {*self._specs[epic].checks, *own.checks, *own.guards, *guards}
            if not needed <= self._passed[after]:
                self.saw(Promise.PROOF, f"{attempt} landed without a green check on the very tree")
            if any(a[:2] == attempt[:2] and self._holds(old, a) for a in self._marks):
                self.saw(Promise.DUPLICATED, f"{attempt} landed beside another attempt of its story")
            self.witness.lands(attempt)
            self.lands.append(attempt)

    def push(self, epic: EpicId, name: str) -> None:
        """Somebody else commits to the integration branch, past the engine."""
        ref = f"{BRANCHES}{epic}"
        tip = self.git.refs[ref]
        sha = self.git.record({**self.git.commits[tip].files, name: "by hand"}, tip)
        self.pushed.append((epic, sha))
        self.git.refs[ref] = sha

    def asked_to_land(self) -> None:
        """The user had an epic landed: the branches that are not ours are right as they are now."""
        self._user_refs = self._not_ours()

    def landed(self, epic: EpicId) -> dict[StoryId, list[int]]:
        """Stories on the integration branch, with the attempts whose marks are there."""
        tip = self.git.refs.get(f"{BRANCHES}{epic}")
        found: dict[StoryId, list[int]] = defaultdict(list)
        if tip is not None:
            for attempt in self._marks:
                if attempt.epic == epic and self._holds(self.git.commits[tip].files, attempt):
                    found[attempt.story].append(attempt.number)
        return dict(found)

    def saved(self, attempt: AttemptId) -> bool:
        """True when all that an attempt made is on its rescue ref."""
        return bool(self._marks[attempt]) and set(self._marks[attempt]) <= self._reach([rescue_ref(attempt)])

    # --- the verdict

    def problems(self, ledger: Ledger) -> list[Breach]:
        """Everything that is wrong at rest: breaches, lost work, work merged twice, and what the engine tells wrong."""
        found = [*self.witness.breaches, *self.witness.unjust(ledger)]
        found += [Breach(Promise.LOST, words) for words in (*self._lost(), *self._half_landed())]
        for epic_id, epic in ledger.epics.items():
            landed = self.landed(epic_id)
            for story in epic.stories.values():
                there = landed.get(story.spec.id, [])
                ours = story.state is StoryState.MERGED and story.merged_as is not None
                name = f"{epic_id}/{story.spec.id}"
                if len(there) > 1:
                    found.append(Breach(Promise.DUPLICATED, f"{name} is on the branch by attempts {there}"))
                elif there != ([story.attempt] if ours else []):
                    words = f"{name} is {story.state} ({story.attempt}), on the branch: {there}"
                    found.append(Breach(Promise.TOLD, words))
        for epic_id, sha in self.pushed:
            if not self.git.is_ancestor(sha, self.git.refs[f"{BRANCHES}{epic_id}"]):
                found.append(Breach(Promise.LOST, f"what somebody pushed to {epic_id} is gone"))
        if self._not_ours() != self._user_refs:
            words = f"refs of the user's moved: {self._user_refs} to {self._not_ours()}"
            found.append(Breach(Promise.PROOF, words))
        return found

    def _lost(self) -> list[str]:
        lost: list[str] = []
        elsewhere = self._thrown_away | self._lying()
        for attempt, marks in self._marks.items():
            branch = f"refs/heads/{integration_branch(attempt.epic)}"
            kept = self._reach([branch, rescue_ref(attempt), attempt_ref(attempt), *self._beside[attempt]])
            lost += [f"{mark} is on no branch and not saved" for mark in marks if mark not in kept | elsewhere]
        return lost

    def _lying(self) -> set[str]:
        """Names of the files that lie at the desks of agents, in whatever state."""
        files: set[str] = set()
        for path, desk in self.git.desks.items():
            if path.is_relative_to(HOST_ROOT) or path.is_relative_to(ROOT):
                files |= {*desk.files, *self.git.commits[desk.head].files}
        return files

    def _half_landed(self) -> list[str]:
        """Attempts of which only a part is on the branch. A sub-agent may have gone on after it handed in."""
        found: list[str] = []
        for attempt, marks in self._marks.items():
            tip = self.git.refs[f"{BRANCHES}{attempt.epic}"]
            there = [mark in self.git.commits[tip].files for mark in marks]
            due = self._handed.get(attempt, 0) if attempt in self.holders.known else len(marks)
            if any(there) and (not all(there[:due]) or there != sorted(there, reverse=True)):
                missing = [mark for mark, is_there in zip(marks, there, strict=True) if not is_there]
                found.append(f"{attempt} landed without {', '.join(missing)}")
        return found

    def _reach(self, refs: Iterable[str]) -> set[str]:
        """Names of all files in all commits that these refs keep."""
        todo = [self.git.refs[ref] for ref in refs if ref in self.git.refs]
        seen, names = set(todo), set[str]()
        while todo:
            commit = self.git.commits[todo.pop()]
            names |= set(commit.files)
            todo += (new := set(commit.parents) - seen)
            seen |= new
        return names

    def _holds(self, files: Iterable[str], attempt: AttemptId) -> bool:
        return any(mark in files for mark in self._marks.get(attempt, ()))

    def _story(self, attempt: AttemptId) -> StorySpec:
        return self._stories[attempt.epic, attempt.story]

    def _exclusive(self, *both: AttemptId) -> bool:
        """True when one of the two may not be beside who shares its files."""
        rules = [self._story(each).overlap or self.witness.policies[each.epic].overlap for each in both]
        return Sharing.EXCLUSIVE in rules

    def _clash(self, one: AttemptId, other: AttemptId) -> bool:
        return bool(overlap(self._story(one).files, self._story(other).files))

    def _not_ours(self) -> dict[str, Sha]:
        return {ref: sha for ref, sha in self.git.refs.items() if not ref.startswith((*OURS, HOSTS))}


def concrete(entry: str) -> str:
    """A path that a footprint entry covers."""
    return (entry + "any.txt" if entry.endswith("/") else entry).replace("**", "deep/down").replace("*", "some")
