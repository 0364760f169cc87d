"""Commands that `analyses` adds to `cachetool`: one file each, thin, and quick to import."""
