"""Tokens as analyses read them: every state as stored, but the model's last after its final norm."""

from __future__ import annotations

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
    earlier = tokens.sel(layer=tokens.layer < depth)
    last = cachetool.normalize(tokens.sel(layer=[depth]), store)
    return xr.concat([earlier, last], "layer") if earlier.sizes["layer"] else last


def shared_layers(run: xr.Dataset, intact: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both stores, restricted to the states that both hold. Raises `MissingDataError` where there is none."""
    shared = [layer for layer in run.layer.values.tolist() if layer in intact.layer.values]
    if not shared:
        raise MissingDataError(
            f"expected states that both stores hold, found {run.layer.values.tolist()} and "
            f"{intact.layer.values.tolist()}; replay with `--keep`"
        )
    return run.sel(layer=shared), intact.sel(layer=shared)
