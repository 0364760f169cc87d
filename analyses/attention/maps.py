"""Where [CLS] and registers look: their attention to patches as maps over the image."""

from __future__ import annotations

import numpy as np
import xarray as xr

import cachetool
from cachetool.errors import InvalidEditError


def attention_maps(
    store: xr.Dataset, *, images: tuple[int, ...] = (0, 1, 2, 3), weights: str | None = None, device: str | None = None
) -> xr.Dataset:
    """Attention of [CLS] and of each register to every patch, by layer and head, for some images.

    Parameters
    ----------
    store
        A cache, or a run that kept the states; block k is run again on state k.
    images
        Positions of the images in the store.
    weights, device
        As for `cachetool.attention`.

    Returns
    -------
    `attention` (image, layer, head, query, row, col), lazy, float32; queries are `cls` and `register 0`, ... Rows do
    not sum to 1, since [CLS] and registers are keys too. Memory: 3 W + T x A (see `analyses.analysis`), and twice the
    result.

    Raises
    ------
    InvalidEditError
        The store lacks one of the images; names all of them.
    IncompleteError, UnsupportedModelError
        As `cachetool.attention`.
    """
    count = store.sizes["image"]
    beyond = [image for image in images if not 0 <= image < count]
    if beyond:
        raise InvalidEditError(f"images: expected positions from 0 to {count - 1}, found {', '.join(map(str, beyond))}")
    attention = cachetool.attention(store.isel(image=list(images)), weights=weights, device=device)
    types = attention.query_type.values
    asking, keys = np.flatnonzero(types != "patches"), np.flatnonzero(types == "patches")
    first = int((types == "cls").sum())
    names = [name if name == "cls" else f"register {place - first}" for place, name in enumerate(types)]
    found = attention.isel(query=asking, key=keys).drop_vars(["query_type", "key_type"])
    found = found.assign_coords(
        query=[names[place] for place in asking], row=("key", store.row.values), col=("key", store.col.values)
    )
    grid = found.set_index(key=["row", "col"]).unstack("key")
    return xr.Dataset({"attention": grid.assign_attrs(long_name="attention to patches", units="1")})
