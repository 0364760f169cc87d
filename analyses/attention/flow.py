"""Who attends to whom: attention between [CLS], registers and patches, by layer and head."""

from __future__ import annotations

import numpy as np
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
    read, and removed queries are left out. Memory: 8 MB of attention (one image at least) per dask thread, and a
    block of images at one state.

    Raises
    ------
    IncompleteError
        A state is not whole.
    UnsupportedModelError
        The model's blocks have no single softmax attention each.
    """
    attention = cachetool.attention(store, weights=weights, device=device)
    types = list(dict.fromkeys(attention.key_type.values.tolist()))
    keys = {
        name: attention.isel(key=_of(attention.key_type, name)).sum("key", dtype=np.float64, skipna=False)
        for name in types
    }
    rows = [
        xr.concat([keys[key].isel(query=_of(attention.query_type, query)).mean("query") for key in types], "key_type")
        for query in types
    ]
    flow = xr.concat(rows, "query_type").assign_coords(query_type=types, key_type=types)
    flow = flow.transpose("image", "layer", "head", "query_type", "key_type")
    found = {"flow": flow.assign_attrs(long_name="share of attention", units="1")}
    if "registers" in types and "cls" in types:
        own = attention.isel(query=_of(attention.query_type, "cls"), key=_of(attention.key_type, "registers"))
        shares = (
            own.isel(query=0, drop=True).rename(key="register").drop_vars(["key_type", "query_type"], errors="ignore")
        )
        found["cls_to_register"] = shares.assign_attrs(long_name="share of [CLS] attention", units="1")
    return xr.Dataset(found)


def _of(types: xr.DataArray, name: str) -> slice:
    """Where a token type lies: types are contiguous, and a slice takes a view where a mask would copy."""
    places = np.flatnonzero(types.values == name)
    return slice(int(places[0]), int(places[-1]) + 1)
