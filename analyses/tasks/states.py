"""Which state of a store a task reads: the model's last after its final norm, or an earlier one as it is stored."""

from __future__ import annotations

import numpy as np
import xarray as xr

import cachetool


def read_state(store: xr.Dataset, token_type: str, layer: int | None = None) -> xr.DataArray:
    """Tokens of one type at one state, float32, lazy, with the dimensions of the store's but `layer`.

    Without a layer the model's last state is read after the final norm, as the model itself reads it. Any state that is
    named is read as stored: the norm was learned for the last state alone. `missing_state` must be None.
    """
    if layer is None:
        return cachetool.normalize(store[token_type].isel(layer=-1), store)
    return store[token_type].sel(layer=layer).astype(np.float32)


def missing_state(store: xr.Dataset, layer: int | None = None) -> str | None:
    """Why a store does not hold the state that is read; None where it does. `layer` as in `read_state`."""
    held = store.layer.values.tolist()
    wanted = int(store.attrs["depth"]) if layer is None else layer
    if wanted in held:
        return None
    which = f"state {wanted}, the model's last," if layer is None else f"state {wanted}"
    return f"{which} is needed, and the store holds {', '.join(map(str, held)) or 'none'}"
