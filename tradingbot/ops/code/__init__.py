"""Rolling back by code: a branch in a worktree of its own, built, tried, put to work."""
