"""Caches and runs as lazy xarray objects: nothing is read until a result is asked for."""

from cachetool.query.normalizing import normalize
from cachetool.query.opened_runs import changed_since, open_runs, runs
from cachetool.query.opening import open_store, store_path

__all__ = ["changed_since", "normalize", "open_runs", "open_store", "runs", "store_path"]
