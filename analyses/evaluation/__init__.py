"""The tasks on the runs of a cache: outcomes kept beside it, arms of seeds, refitted heads, one tidy table."""
