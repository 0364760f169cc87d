"""Which patches of the whole cache lie nearest to each register."""

from __future__ import annotations

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from analyses.geometry.tokens_of import tokens_of
from cachetool.errors import InvalidEditError

Ranked = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
"""Cosines in descending order and positions in the cache (image x patches + patch), each (register, rank)."""


def nearest_patches(store: xr.Dataset, *, count: int = 12) -> xr.Dataset:
    """The patches with the highest cosine to each register's mean over images, exact, over the whole cache.

    Parameters
    ----------
    store
        A cache or run with registers and patches.
    count
        Patches per register and layer.

    Returns
    -------
    `cosine` (layer, register, rank), and with the same dimensions `image` (position in the store), `row` and `col` of
    each patch, -1 where there are fewer patches than `count`. Ties go to the first image and patch. The last state is
    read after the final norm. Lazy, one pass after that for the means. Memory: T x (1 + 10 x registers / channels) x B,
    one B more per thread at the last state (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        The store lacks registers or patches.
    InvalidEditError
        `count` is below 1.
    """
    if count < 1:
        raise InvalidEditError(f"count: expected 1 or more, found {count}")
    registers, patches = tokens_of(store, "registers"), tokens_of(store, "patches")
    layers = [layer for layer in patches.layer.values.tolist() if layer in registers.layer.values]
    shape = (2, registers.sizes["register"], count)
    parts = []
    for layer in layers:
        mean = registers.sel(layer=layer).astype(np.float64).mean("image").data
        own = patches.sel(layer=layer).transpose("image", "patch", "channel").chunk(patch=-1, channel=-1).data
        starts = np.cumsum((0, *own.chunks[0][:-1])) * own.shape[1]
        found = [
            delayed(_nearest)(block, mean, int(start), count)
            for block, start in zip(own.to_delayed().ravel(), starts, strict=True)
        ]
        while len(found) > 1:
            found = [delayed(_merge)(found[first : first + 8], count) for first in range(0, len(found), 8)]
        parts.append(da.from_delayed(delayed(_as_array)(found[0]), shape, np.float64))  # type: ignore[no-untyped-call]
    stacked = xr.DataArray(
        da.stack(parts),  # type: ignore[no-untyped-call]
        dims=("layer", "value", "register", "rank"),
        coords={"layer": layers},
    )
    position = stacked.isel(value=1).astype(np.int64)
    known, grid = position >= 0, patches.sizes["patch"]
    index = (position % grid).clip(0)
    place = {name: xr.DataArray(store[name].values, dims="patch") for name in ("row", "col")}
    found_at = {name: xr.apply_ufunc(_take, index, kwargs={"values": place[name].values}, dask="parallelized",
                                     output_dtypes=[np.int64]) for name in place}  # fmt: skip
    identifiers = {"image": (position // grid).where(known, -1)} | {
        name: values.where(known, -1) for name, values in found_at.items()
    }
    cosine = stacked.isel(value=0).assign_attrs(long_name="cosine of a patch with the mean register", units="1")
    return xr.Dataset(
        {"cosine": cosine}
        | {
            f"nearest_{name}": values.astype(np.int64).assign_attrs(identifier=name, units="1")
            for name, values in identifiers.items()
        }
    )


def _take(index: npt.NDArray[np.int64], *, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.asarray(values[index], dtype=np.int64)


def _nearest(block: npt.NDArray[np.floating], mean: npt.NDArray[np.float64], start: int, count: int) -> Ranked:
    """The nearest patches of one block (image, patch, channel) to the mean registers (register, channel)."""
    rows = block.reshape(-1, block.shape[-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
        norms = np.sqrt(np.einsum("pc,pc->p", rows, rows, dtype=np.float64))
        cosine = (rows @ unit.T.astype(rows.dtype)).T.astype(np.float64) / norms
    cosine[np.isnan(cosine)] = -np.inf
    position = np.broadcast_to(np.arange(start, start + len(rows)), cosine.shape)
    return _best(cosine, position, count)


def _best(cosine: npt.NDArray[np.float64], position: npt.NDArray[np.int64], count: int) -> Ranked:
    """The first of the highest, ties by position; padded with -inf and -1."""
    order = np.lexsort((position, -cosine), axis=-1)[:, :count]
    best = np.take_along_axis(cosine, order, -1), np.take_along_axis(position, order, -1)
    lacking = count - order.shape[1]
    pad = ((0, 0), (0, lacking))
    return np.pad(best[0], pad, constant_values=-np.inf), np.pad(best[1], pad, constant_values=-1)


def _merge(parts: list[Ranked], count: int) -> Ranked:
    cosine, position = (np.concatenate(side, axis=-1) for side in zip(*parts, strict=True))
    return _best(cosine, position, count)


def _as_array(ranked: Ranked) -> npt.NDArray[np.float64]:
    """Cosine, NaN where there is none, and position, -1 there: (2, register, rank)."""
    cosine, position = ranked
    known = np.isfinite(cosine)
    return np.stack([np.where(known, cosine, np.nan), np.where(known, position, -1)])
