"""Measurements on caches and runs: tasks, geometry and inference, through cachetool's public interface only."""
