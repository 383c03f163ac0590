"""`sentiment reproduce` and `sentiment relock`: run the pipeline of a commit again, in a worktree."""
