"""Measurements on caches and runs: tasks, geometry and inference, using cachetool as any user would."""
