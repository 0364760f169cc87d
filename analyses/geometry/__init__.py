"""Where tokens lie and how far edits move them: cosines, norms, ranks, similarities."""
