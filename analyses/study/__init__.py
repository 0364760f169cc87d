"""A study: models x data sets x tasks x edits, written down in a TOML file, planned, run in stages and tabulated.

`loading.load_study` reads one, `plan.plan_study` says what it will cost, `run.run_study` carries it out, and `table`
writes what it found. Nothing is imported here, so that the command line starts without torch.
"""
