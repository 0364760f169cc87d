"""The weights' own classification head on stored final tokens: no image is decoded and no block is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from cachetool import places
from cachetool.errors import IncompleteError, InvalidEditError
from cachetool.objects import AnyPlace
from cachetool.query import store_path
from cachetool.replaying import open_backbone
from cachetool.store import StoreReader, to_float32


def classify(
    store: AnyPlace | xr.Dataset, *, weights: str | Path | None = None, limit: int | None = None
) -> xr.DataArray:
    """Logits of the model's own head, from the last state of a cache or run.

    Parameters
    ----------
    store
        A cache or a run, as a path or opened.
    weights
        Weights file, where it has moved since the extraction.
    limit
        Classify the first images only.

    Returns
    -------
    float32 (image, class), loaded; NaN for images that could not be read.

    Raises
    ------
    InvalidEditError
        The weights bring no classification head.
    IncompleteError
        The store lacks the last state, or tokens that the head pools.
    """
    path = store_path(store)
    reader = StoreReader(path)
    spec = reader.spec
    cache_path = path if spec.kind == "cache" else places.cache_of_run(path)
    cache = spec if spec.kind == "cache" else StoreReader(cache_path).spec
    backbone = open_backbone(cache_path, cache, weights)
    if backbone.classes == 0:
        raise InvalidEditError(f"{backbone.name}: the weights bring no classification head; fit a linear probe instead")
    depth, layout = backbone.depth, spec.layout
    held = [name for name in spec.token_types if depth in reader.coverage(name)]
    if not held:
        raise IncompleteError(f"{path} does not hold state {depth}, which the head reads; keep the last state")
    images = len(spec.images) if limit is None else min(limit, len(spec.images))
    logits = np.full((images, backbone.classes), np.nan, dtype=np.float32)
    for first in range(0, images, spec.block):
        last = min(first + spec.block, images)
        # Tokens that the store lacks are NaN: a head that pools them answers NaN, which is found below.
        state = np.full((last - first, layout.tokens, spec.channels), np.nan, dtype=np.float32)
        for name in held:
            tokens = to_float32(reader.read(name, depth, first, last), spec.dtype)
            state[:, layout.slice(name)] = tokens.reshape(last - first, -1, spec.channels)
        with torch.inference_mode():
            found = backbone.classify(torch.from_numpy(state))
        if found is not None:
            logits[first:last] = found.numpy()
    if np.isnan(logits[reader.readable[:images]]).any():
        raise IncompleteError(
            f"the head of {backbone.name} pools tokens that {path} lacks or that were removed; it holds "
            f"{', '.join(held)} of state {depth}: keep all token types"
        )
    return xr.DataArray(
        logits,
        dims=("image", "class"),
        coords={"image_id": ("image", np.array(spec.images.image_id[:images], dtype=object))},
    )
