"""Stored tokens as the arrays that scikit-learn takes: samples, labels, and which rows belong together."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from cachetool.errors import IncompleteError
from cachetool.objects import AnyPlace
from cachetool.query import normalize, open_store, store_path
from cachetool.store import StoreReader


class Features(NamedTuple):
    """What `features` returns; unpacks as `X, y, groups`."""

    X: npt.NDArray[np.float32]
    """Samples, (sample, channel)."""
    y: npt.NDArray[np.int64] | None
    """Class of each sample's image, -1 where unknown, (sample,); None where the data set has no classes."""
    groups: npt.NDArray[np.int64]
    """Position in the cache of each sample's image, (sample,): rows of one image must not be split by a validation."""


def features(
    cache: AnyPlace | xr.Dataset, layer: int | None = None, tokens: str = "cls", *, normalized: bool = False
) -> Features:
    """Read one state of one token type as samples for scikit-learn.

    Parameters
    ----------
    cache
        A cache or run, as a path or opened.
    layer
        The state; by default the last that is stored.
    tokens
        `cls`: one sample an image. `registers`, `patches`: one a token, the tokens of an image one after another.
    normalized
        Apply the model's final norm to each token.

    Returns
    -------
    X, y and groups, in the order of the cache. Images that could not be read are left out, with a warning that names
    them.

    Raises
    ------
    IncompleteError
        The state or token type is not stored for all images; names what is missing and what there is.
    """
    path = store_path(cache)
    reader = StoreReader(path)
    spec = reader.spec
    held = reader.coverage(tokens)
    state = held[-1] if layer is None and held else layer
    if state is None or state not in held:
        what = f"state {layer} of {tokens}" if layer is not None else f"any state of {tokens}"
        raise IncompleteError(
            f"{path} does not hold {what} for all images, only {tokens} at {', '.join(map(str, held)) or 'no state'}; "
            "run `cachetool extract` to complete it, or choose others"
        )
    count, images = spec.layout.count(tokens), len(spec.images)
    readable = reader.readable
    if not readable.all():
        names = [name for name, well in zip(spec.images.image_id, readable, strict=True) if not well]
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        warnings.warn(f"{len(names)} of {images} images could not be read and are left out: {shown}", stacklevel=2)
    opened = open_store(path) if normalized else None
    samples = np.empty((int(readable.sum()), count, spec.channels), dtype=np.float32)
    done = 0
    for start in range(0, images, spec.block):
        stop = min(start + spec.block, images)
        values: Any = reader.read_float32(tokens, state, start, stop)[readable[start:stop]]
        if opened is not None:
            values = normalize(xr.DataArray(values, dims=("image", "token", "channel")), opened).values
        samples[done : done + len(values)] = values
        done += len(values)
    groups = np.repeat(np.flatnonzero(readable).astype(np.int64), count)
    labels = spec.images.label
    y = None if labels is None else np.array(labels, dtype=np.int64)[groups]
    return Features(samples.reshape(-1, spec.channels), y, groups)
