"""A pull request by `gh`: looked for first, so that a refusal has changed nothing; then a push; then the request."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.names import integration_branch
from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import EpicId, Sha
from mcp_server.errors import Code, Fault, Refused

GH_S, PUSH_S = 60.0, 300.0
"""How long one call of `gh` and a push, with its hook, may take, in seconds."""
_ADDRESS = re.compile(r"https?://\S+/\d+")
_PUSHES = ("gc.auto=0", "maintenance.auto=false")
"""Settings of a push. The user's hooks run: Git LFS uploads its files by one, and a policy may be another."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered: `tip`, as the integration branch of the epic, to the branch `into`."""

    epic: EpicId
    tip: Sha
    into: str
    title: str
    body: str

    @property
    def create(self) -> tuple[str, ...]:
        """The command that opens the request; its body comes on standard input."""
        head = integration_branch(self.epic)
        return ("gh", "pr", "create", "--base", self.into, "--head", head, "--title", self.title, "--body-file", "-")

    def push(self, remote: str) -> tuple[str, ...]:
        """What git is told."""
        return ("push", remote, f"{self.tip}:refs/heads/{integration_branch(self.epic)}")


async def offer(repository: Repository, asked: Offer) -> str:
    """Push and open the request; its address. One that is open already takes the push. Raises `Refused`."""
    remote = await _remote(repository, asked.into)
    by_hand = f"`git {shlex.join(asked.push(remote))}` and `{shlex.join(asked.create[:-2])} --body ''`"
    if shutil.which("gh") is None:
        why = "There is no `gh` command on the PATH to open a pull request with; nothing was pushed."
        raise Refused(Code.NO_PULL_REQUEST, why, f"Install it (https://cli.github.com), or do it by hand: {by_hand}.")
    known = await _gh(("gh", "auth", "status"), repository.top)
    if known.returncode:
        why = f"`gh` is not logged in; nothing was pushed. It says: {_words(known)}"
        raise Refused(Code.NO_PULL_REQUEST, why, f"Have the user run `gh auth login`, or do it by hand: {by_hand}.")
    await _pushed(repository, asked, remote, by_hand)
    made = await _gh(asked.create, repository.top, asked.body)
    address = _ADDRESS.search(f"{made.stdout} {made.stderr}")
    if address is None or (made.returncode and "already exists" not in made.stderr):
        why = f"The branch was pushed to {remote}, but `gh` opened no pull request: {_words(made)}"
        raise Refused(Code.NO_PULL_REQUEST, why, f"Mend that and land again, or by hand: `{shlex.join(asked.create)}`.")
    return address[0]


async def _pushed(repository: Repository, asked: Offer, remote: str, by_hand: str) -> None:
    """Never by force. As the user: with their hooks, their keys, and nobody to ask for a password."""
    git = Git(repository.common_dir, _PUSHES)
    said = f"it took more than {PUSH_S:g} s"
    with anyio.move_on_after(PUSH_S):
        try:
            await git.write(*asked.push(remote), at=repository.top, env={"SSH_ASKPASS_REQUIRE": "never"})
        except Fault as fault:
            said = fault.detail
        else:
            return
    why = f"{integration_branch(asked.epic)} could not be pushed to {remote}: {said}"
    raise Refused(Code.NO_PULL_REQUEST, why, f"Mend that and land again, or do it by hand: {by_hand}.")


async def _remote(repository: Repository, into: str) -> str:
    """The branch's own remote, else `origin`, else the only one."""
    read = repository.git.read
    own = (await read("config", "--get", f"branch.{into}.remote", at=repository.top, ok=(0, 1))).text
    remotes = (await read("remote", at=repository.top)).text.split()
    for name in (own, "origin", *(remotes if len(remotes) == 1 else [])):
        if name in remotes:
            return name
    why = f"The repository has no remote that a pull request to {into} could be opened at."
    raise Refused(Code.NO_PULL_REQUEST, why, "Add one (`git remote add origin URL`), or land with how='merge'.")


async def _gh(argv: tuple[str, ...], at: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it without a terminal. That it cannot be started, or does not end, is an answer, too."""
    env = {**os.environ, "GH_PROMPT_DISABLED": "1", "GIT_TERMINAL_PROMPT": "0", "NO_COLOR": "1"}

    def run() -> subprocess.CompletedProcess[str]:  # not anyio's: it takes a `gh` that does not read for an error
        try:
            return subprocess.run(
                argv,
                input=stdin,
                cwd=at,
                env=env,
                timeout=GH_S,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                start_new_session=True,
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            return subprocess.CompletedProcess(argv, 1, "", str(error))

    return await anyio.to_thread.run_sync(run)


def _words(ended: subprocess.CompletedProcess[str]) -> str:
    return " ".join(f"{ended.stderr} {ended.stdout}".split())[-400:] or "nothing"
