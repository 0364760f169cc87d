"""Who attends to whom: attention between [CLS], registers and patches, by layer and head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool


def attention_flow(store: xr.Dataset, *, weights: str | None = None, device: str | None = None) -> xr.Dataset:
    """Share of attention that queries of one token type give to the keys of each type.

    Summed over keys, averaged over the queries of the type: rows of a 3 x 3 table that sum to 1.

    Parameters
    ----------
    store
        A cache, or a run that kept the states, restricted or not; block k is run again on state k.
    weights, device
        As for `cachetool.attention`.

    Returns
    -------
    `flow` (image, layer, head, query_type, key_type) and, with registers, `cls_to_register` (image, layer, head,
    register): the share of [CLS] attention that each register gets. Lazy, float64; NaN for images that could not be
    read, and removed queries are left out. Memory: 3 W + T x A (see `analyses.analysis`).

    Raises
    ------
    IncompleteError
        A state is not whole.
    UnsupportedModelError
        The model's blocks have no single softmax attention each.
    """
    attention = cachetool.attention(store, weights=weights, device=device)
    types = list(dict.fromkeys(attention.key_type.values.tolist()))
    places = {name: _of(attention.key_type, name) for name in types}
    registers = range(attention.sizes["key"])[places.get("registers", slice(0))]
    # A task that gives all sums at once holds its attention no longer than it runs; were each sum a task of its own,
    # dask would hold it until the last of them had run.
    parts = [*places.values(), *(slice(one, one + 1) for one in registers)]
    sums = xr.apply_ufunc(
        _sums, attention.drop_vars("key_type"), kwargs={"parts": parts},
        input_core_dims=[["key"]], output_core_dims=[["part"]], dask="parallelized", output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"part": len(parts)}},
    )  # fmt: skip
    rows = [sums.isel(query=places[query], part=slice(len(types))).mean("query") for query in types]
    flow = xr.concat(rows, "query_type").rename(part="key_type").assign_coords(query_type=types, key_type=types)
    flow = flow.transpose("image", "layer", "head", "query_type", "key_type")
    found = {"flow": flow.assign_attrs(long_name="share of attention", units="1")}
    if registers and "cls" in types:
        shares = sums.isel(query=places["cls"].start, part=slice(len(types), None), drop=True)
        shares = shares.astype(np.float32).rename(part="register").drop_vars("query_type", errors="ignore")
        found["cls_to_register"] = shares.assign_attrs(long_name="share of [CLS] attention", units="1")
    return xr.Dataset(found)


def _sums(attention: npt.NDArray[np.float32], *, parts: list[slice]) -> npt.NDArray[np.float64]:
    """Attention (..., key) summed over parts of the keys, (..., part)."""
    return np.stack([attention[..., part].sum(axis=-1, dtype=np.float64) for part in parts], axis=-1)


def _of(types: xr.DataArray, name: str) -> slice:
    """Where a token type lies: types are contiguous, and a slice takes a view where a mask would copy."""
    places = np.flatnonzero(types.values == name)
    return slice(int(places[0]), int(places[-1]) + 1)
