"""The rival of claim 1: all agents at once under `asyncio.gather(return_exceptions=True)`, and nothing else.

`python -I plain.py STORIES PROGRAM ARGUMENTS...`: starts the program once a story, its name in EPICWAVE_STORY. Stdlib.
"""

from __future__ import annotations

import asyncio
import os
import sys


async def agent(story: str, argv: list[str]) -> None:
    """One agent to its end. Raises RuntimeError when it fails."""
    process = await asyncio.create_subprocess_exec(*argv, env={**os.environ, "EPICWAVE_STORY": story})
    if code := await process.wait():
        raise RuntimeError(f"{story} exited with code {code}")


async def main() -> int:
    """All of them; 1 when any has failed."""
    stories, *argv = sys.argv[1:]
    results = await asyncio.gather(*(agent(story, argv) for story in stories.split(",")), return_exceptions=True)
    return int(any(results))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
