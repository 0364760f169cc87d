"""The runs of a cache: those that were made from what it holds now, one by one or along a dimension."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from cachetool import places
from cachetool.errors import MissingDataError, StaleRunWarning
from cachetool.events import Events
from cachetool.objects import AnyPlace, place
from cachetool.provenance import FINISHED, check_provenance
from cachetool.query.opening import PATH_ATTRIBUTE, open_store, store_path
from cachetool.store import StateDigests, StoreReader, StoreSpec, key_digest


def runs(
    cache: AnyPlace | xr.Dataset, paths: Sequence[AnyPlace] | None = None, *, events: Events | None = None
) -> list[xr.Dataset]:
    """Open the finished runs of a cache, each lazily as `open_store` gives it, in the order of their names.

    Parameters
    ----------
    cache
        The cache, as a path or opened.
    paths
        Runs to open; by default all that lie beside the cache.
    events
        Told of runs that are left out because values of the cache changed since; without it, `StaleRunWarning` warns.

    Returns
    -------
    The runs that are finished and were made from this very cache, and not from another that lay at its place before,
    nor from other values than it holds now.
    """
    base = store_path(cache)
    chosen = [place(path) for path in paths] if paths is not None else places.list_runs(base)
    own = StoreReader(base).spec
    opened = [data for data in map(open_store, chosen) if data.attrs["facts"].get("finished") and _belongs(data, own)]
    for data in opened:
        check_provenance(store_path(data), data.attrs["key"], data.attrs["facts"], *FINISHED)
    digests = StateDigests(base)
    stale = {
        data.attrs[PATH_ATTRIBUTE]: changed
        for data in opened
        if (changed := changed_since(data.attrs["facts"], digests))
    }
    if stale:
        listing = "\n".join(f"  {PurePath(path).name}: {', '.join(changed)}" for path, changed in stale.items())
        text = (
            f"{len(stale)} of {len(opened)} runs are left out, because values of {base} that they were made from have "
            f"changed since:\n{listing}\nreplay them again, or remove them"
        )
        warnings.warn(text, StaleRunWarning, stacklevel=2) if events is None else events.message(text)
    return [data for data in opened if data.attrs[PATH_ATTRIBUTE] not in stale]


def changed_since(facts: Mapping[str, Any], cache: StateDigests) -> list[str]:
    """States of a cache that a run read, by its facts, and whose values are others now, such as `cls at state 6`.

    Empty where a run does not say what it read.
    """
    read = facts.get("read")
    return [] if read is None else cache.changed(read["states"], read["images"])


def open_runs(cache: AnyPlace | xr.Dataset, paths: Sequence[AnyPlace] | None = None) -> xr.Dataset:
    """Open the runs of a cache lazily as one data set with a `run` dimension.

    Parameters
    ----------
    cache
        The cache, as a path or opened.
    paths
        Runs to open; by default all finished runs of the cache.

    Returns
    -------
    Data set as of `open_store` with a first dimension `run` and the coordinates `target`, `replacement`, `from_layer`,
    `sustained`, `until_layer` (-1 for the last state), `seed`, `oracle` and `run_path` along it, so that
    `runs.isel(run=runs.replacement == "zero")` finds runs, and xarray's alignment on `image` joins them with the cache.

    Raises
    ------
    MissingDataError
        The cache has no finished run.
    """
    base = store_path(cache)
    opened = runs(base, paths)
    if not opened:
        raise MissingDataError(
            f"no finished run in {places.runs_directory(base)}; make one with `cachetool replay {base} --ablation zero`"
        )
    edits = [data.attrs["key"]["edit"] for data in opened]
    # A cache grows at its end only, so runs of fewer images lack the last ones, and the longest names all of them.
    longest = max(opened, key=lambda data: data.sizes["image"])
    per_image = [name for name, coordinate in longest.coords.items() if coordinate.dims == ("image",)]
    shared = [*per_image, *(name for name in ("norm_weight", "norm_bias") if name in longest)]
    joined = xr.concat(
        [
            data.drop_vars(shared).drop_attrs(deep=False).assign_coords(image=np.arange(data.sizes["image"]))
            for data in opened
        ],
        dim="run",
        join="outer",
        data_vars="all",
        coords="minimal",
        compat="override",
        fill_value={"edited": False, "donor": -1},
    )
    joined = joined.drop_vars("image").assign({name: longest.variables[name] for name in shared})
    joined = joined.set_coords(per_image)
    joined.attrs = {"norm": longest.attrs["norm"]}
    return joined.assign_coords(
        target=("run", [edit["target"] for edit in edits]),
        replacement=("run", [edit["replacement"] for edit in edits]),
        from_layer=("run", [edit["from_layer"] for edit in edits]),
        sustained=("run", [edit["sustained"] for edit in edits]),
        until_layer=("run", [-1 if edit["until_layer"] is None else edit["until_layer"] for edit in edits]),
        seed=("run", [edit["seed"] for edit in edits]),
        oracle=("run", [bool(data.attrs["facts"]["oracle"]) for data in opened]),
        run_path=("run", [data.attrs[PATH_ATTRIBUTE] for data in opened]),
    )


def _belongs(run: xr.Dataset, cache: StoreSpec) -> bool:
    """Whether a run was made from this cache, and not from another that lay at the same place before."""
    digests = tuple(run.content_sha256.values.tolist())
    return run.attrs["key"]["cache"] == key_digest(cache.key) and cache.images.sha256[: len(digests)] == digests
