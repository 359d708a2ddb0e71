"""A process that tries to get a repository's lock at one sign after the other; it says what became of each try."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

from mcp_server.errors import Refused
from mcp_server.server.host import holding


def main(folder: Path, name: str, rounds: int) -> None:
    """In each round: wait for the file `go-N`, try, say so, and hold it until there is `over-N`."""
    say("ready")
    for number in range(rounds):
        wait_for(folder / f"go-{number}")
        try:
            with holding(folder / "state", name):
                (folder / "inside").touch(exist_ok=False)  # fails loudly when somebody else is in there
                say("held")
                wait_for(folder / f"over-{number}")
                (folder / "inside").unlink()
        except Refused as refused:
            say(refused.code)
        say("out")


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def wait_for(sign: Path) -> None:
    while not sign.exists():
        Event().wait(0.0005)  # a file cannot wake anybody


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
