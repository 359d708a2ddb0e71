"""epicwave: run a whole epic of stories in parallel git worktrees, each result proven on the merged tree."""

__version__ = "0.1.0"
