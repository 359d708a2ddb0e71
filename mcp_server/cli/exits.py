"""How a command ends, as a number: the same for every one of them."""

from __future__ import annotations

DONE = 0
"""It was done; of a run or a watch: every story is merged, or was skipped."""
NOT_ALL_MERGED = 1
"""A run or a watch has come to rest before that."""
REFUSED = 2
"""Nothing was done; what, why and the next move are two lines on standard error."""
INTERRUPTED = 130
"""Ctrl-C, or SIGTERM."""
