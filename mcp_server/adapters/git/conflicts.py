"""What git says when two sides do not go together, in names and words that help whoever has to settle it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_INVENTED = re.compile(r"(?P<path>.+?)~(?:HEAD|[0-9a-f]{7,64}(?: \(.*\))?)(?:_[0-9]+)?", re.DOTALL)


def real_paths(names: Iterable[str]) -> tuple[str, ...]:
    """Paths in conflict, sorted; `x~HEAD`, where git puts a file that cannot be beside a folder `x`, is `x`."""
    found = ((name, _INVENTED.fullmatch(name)) for name in names)
    return tuple(sorted({match["path"] if match else name for name, match in found}))


def words(output: str) -> str:
    """Of all that a rebase or a merge said, the sentences about conflicts."""
    return "\n".join(line for line in output.splitlines() if line.startswith("CONFLICT"))


def detail(output: str, hunks: str) -> str:
    """What was said, and then the hunks; not that there are none."""
    shown = "\n".join(line for line in hunks.splitlines() if not line.startswith("* Unmerged path "))
    return "\n".join(part for part in (words(output), shown) if part)
