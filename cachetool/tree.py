"""All caches below a root, and their runs, as one lazy tree."""

from __future__ import annotations

import xarray as xr

from cachetool import places
from cachetool.objects import AnyPlace
from cachetool.query import open_store


def open_tree(root: AnyPlace | None = None) -> xr.DataTree:
    """Open every cache and run below a root as `xarray.DataTree`; no token is read.

    Parameters
    ----------
    root
        Directory of all caches, or `s3://BUCKET/PREFIX`; by default `CACHETOOL_ROOT`, else `activations`.

    Returns
    -------
    Tree with the nodes `DATASET/MODEL/cache` and `DATASET/MODEL/runs/RUN`, each as `cachetool.open` gives it. A cache
    is no parent of its runs, since xarray wants the states of a child to be those of its parent. Empty where there is
    no cache.

    Raises
    ------
    StoreError
        A cache or run cannot be opened.
    """
    base = places.resolve_root(root)
    nodes = {}
    for cache in places.list_caches(base):
        here = f"{cache.parent.name}/{cache.name.removesuffix('.zarr')}"
        nodes[f"{here}/cache"] = open_store(cache)
        for run in places.list_runs(cache):
            nodes[f"{here}/runs/{run.name.removesuffix('.zarr')}"] = open_store(run)
    return xr.DataTree.from_dict(nodes, name=base.name)
