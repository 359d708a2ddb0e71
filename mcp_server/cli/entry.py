"""Where `epicwave` begins. What has to be there at once goes its own short way past the command line's libraries."""

from __future__ import annotations

import os
import sys

SERVE = "serve"


def main() -> None:
    """`serve` and `engine --detach`, as hosts and fronts call them; anything else is the command line."""
    words = sys.argv[1:]
    if words[:1] == [SERVE] and (folder := _repo(words[1:])) is not None:
        serve(folder)
    if words[:2] == ["engine", "--detach"] and os.name == "posix":
        del sys.argv[2]
        detach()
    from mcp_server.cli.main import main as command_line  # noqa: PLC0415 - half a second of imports

    command_line()


def _repo(words: list[str]) -> str | None:
    """The folder of `[--repo FOLDER]`; None for any other words."""
    if not words:
        return "."
    if len(words) == 2 and words[0] == "--repo":  # noqa: PLR2004
        return words[1]
    return None


def serve(folder: str) -> None:
    """Be the front of the repository's engine process. Returns where there is no repository, or no way to be one."""
    from mcp_server.front import place  # noqa: PLC0415

    folder = os.path.abspath(folder)  # noqa: PTH100 - pathlib takes 5 ms to import
    common = place.common_dir(folder) if place.POSIX else None
    if common is not None:
        from mcp_server.front import pump  # noqa: PLC0415

        pump.serve(place.state_dir(common), folder)


def detach() -> None:
    """Go on as a process of nobody's, in a session of its own; the one that was called ends when that one is ready.

    What the new one says before it is ready goes to our standard error, and makes us end with code 2.
    """
    hear, tell = os.pipe()
    if os.fork():
        os.close(tell)
        with os.fdopen(hear, "rb") as pipe:
            said = pipe.read()
        if said.startswith(b"ready"):
            os._exit(0)
        os.write(2, said or b"The engine process died before it had begun.\n")
        os._exit(2)
    os.close(hear)
    os.setsid()
    os.environ["EPICWAVE_DETACHED"] = "1"
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    os.dup2(tell, 2)
    os.close(tell)
    os.close(nothing)
