"""Tokens as analyses read them: every state as stored, but the model's last after its final norm.

Blocks of tokens are what takes memory, and every dask thread holds its own: nothing here copies one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from cachetool.errors import MissingDataError


def tokens_of(store: xr.Dataset, token_type: str, *, normalized: bool = True) -> xr.DataArray:
    """Tokens of one type at all states of a store, lazy, with its dimensions.

    Parameters
    ----------
    store
        A cache or run as `cachetool.open` gives it, restricted or not.
    token_type
        `cls`, `registers` or `patches`.
    normalized
        Whether the model's last state is read after the final norm, as the model itself reads it.

    Raises
    ------
    MissingDataError
        The store does not hold tokens of this type, or no state.
    """
    if token_type not in store or store[token_type].sizes["layer"] == 0:
        held = ", ".join(name for name in ("cls", "registers", "patches") if name in store) or "none"
        raise MissingDataError(f"expected {token_type} in the store, found {held}; extract or keep them")
    tokens = store[token_type]
    depth = int(store.attrs["depth"])
    if not normalized or depth not in tokens.layer.values:
        return tokens
    earlier = [layer for layer in tokens.layer.values.tolist() if layer < depth]
    last = cachetool.normalize(at_layers(tokens, [depth]), store)
    return xr.concat([at_layers(tokens, earlier), last], "layer") if earlier else last


def shared_layers(run: xr.Dataset, intact: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both stores, restricted to the states that both hold. Raises `MissingDataError` where there is none."""
    shared = [layer for layer in run.layer.values.tolist() if layer in intact.layer.values]
    if not shared:
        raise MissingDataError(
            f"expected states that both stores hold, found {run.layer.values.tolist()} and "
            f"{intact.layer.values.tolist()}; replay with `--keep`"
        )
    return at_layers(run, shared), at_layers(intact, shared)


Tokens = TypeVar("Tokens", xr.Dataset, xr.DataArray)


def at_layers(tokens: Tokens, layers: Sequence[int]) -> Tokens:
    """Some states in this order, which must be held: xarray's `sel(layer=[...])`, as views.

    dask copies every block that is chosen by a list of positions, and none that is chosen by a slice.
    """
    places = [tokens.layer.values.tolist().index(layer) for layer in layers]
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    parts = [tokens.isel(layer=slice(int(run[0]), int(run[-1]) + 1)) for run in runs]
    if len(parts) == 1:
        return parts[0]
    if isinstance(tokens, xr.DataArray):
        return xr.concat(parts, "layer")
    return xr.concat(parts, "layer", data_vars="minimal", coords="minimal", compat="override")


def over_channels(function: Callable[..., npt.NDArray[np.float32]], *tokens: xr.DataArray) -> xr.DataArray:
    """Reduce tokens by a function of arrays (..., channel), block by block.

    Lazy, float32, without `channel`; arrays are aligned as xarray does it.
    """

    def reduce_block(*blocks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return function(*blocks)[..., np.newaxis]

    def apply(*arrays: Any) -> Any:
        if not any(isinstance(array, da.Array) for array in arrays):
            return function(*arrays)
        index = tuple(range(arrays[0].ndim))
        whole = [da.asarray(array).rechunk({-1: -1}) for array in arrays]  # type: ignore[no-untyped-call]
        pairs = [part for array in whole for part in (array, index)]
        # `channel` stays, with length 1, since dask joins the chunks of a dimension that is dropped, which copies even
        # a single one.
        found = da.blockwise(  # type: ignore[no-untyped-call]
            reduce_block, index, *pairs, adjust_chunks={index[-1]: 1}, dtype=np.float32
        )
        return found[..., 0]

    found: xr.DataArray = xr.apply_ufunc(apply, *tokens, input_core_dims=[["channel"]] * len(tokens), dask="allowed")
    return found
