"""What an analysis found, as a tidy table: means over images with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from analyses.inference import Design

RESAMPLES = 2_000
"""Resamples of the intervals: enough for two digits of a 95 % interval."""

_PLACES = ("row", "col", "patch")
"""Dimensions over the image, averaged for a table."""


def summarize(
    found: xr.Dataset, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Average an analysis over images, and over the seeds of an edit.

    Parameters
    ----------
    found
        What an analysis returned, loaded.
    confidence, resamples, seed
        Coverage, number and seed of the percentile bootstrap over images (Efron and Tibshirani 1993, chapter 13).

    Returns
    -------
    A row per variable and cell: `variable`, `units`, a column per remaining dimension (and `edit`, `from_layer` of
    runs), `value`, `low`, `high` (NaN where a quantity is not measured per image), `images` (0 there). Positions in the
    image (rows, columns, patches) are averaged. Variables that are no numbers, or that name images, are left out.
    """
    frames = [
        _rows(_per_edit(found[name].astype(np.float64)), str(name), confidence, resamples, seed)
        for name in found.data_vars
        if found[name].dtype.kind in "biuf" and not found[name].attrs.get("identifier")
    ]
    frames = [frame for frame in frames if not frame.empty]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["variable", "value"])


def _per_edit(values: xr.DataArray) -> xr.DataArray:
    """Average the runs of one edit, which differ in their seed, before images are resampled."""
    if "run" not in values.dims:
        return values
    names = [f"{edit}\0{first}" for edit, first in zip(values.edit.values, values.from_layer.values, strict=True)]
    order = list(dict.fromkeys(names))
    groups = [values.isel(run=[index for index, name in enumerate(names) if name == wanted]) for wanted in order]
    averaged = xr.concat([group.mean("run") for group in groups], dim="run", coords="minimal", compat="override")
    return averaged.assign_coords(
        edit=("run", [name.split("\0")[0] for name in order]),
        from_layer=("run", [int(name.split("\0")[1]) for name in order]),
    )


def _rows(values: xr.DataArray, name: str, confidence: float, resamples: int, seed: int) -> pd.DataFrame:
    values = values.mean([place for place in _PLACES if place in values.dims])
    rest = [str(dimension) for dimension in values.dims if dimension != "image"]
    if "image" not in values.dims:
        cells = values.expand_dims("image", axis=0).transpose("image", *rest)
        matrix = cells.values.reshape(1, -1)
        point, low, high = matrix[0], np.full(matrix.shape[1], np.nan), np.full(matrix.shape[1], np.nan)
        counts = np.zeros(matrix.shape[1], dtype=np.int64)
    else:
        cells = values.transpose("image", *rest)
        matrix = cells.values.reshape(values.sizes["image"], -1)
        point, low, high, counts = _intervals(matrix, confidence, resamples, seed)
    index = pd.MultiIndex.from_product([_labels(values, dimension) for dimension in rest], names=rest) if rest else None
    frame = pd.DataFrame({"value": point, "low": low, "high": high, "images": counts}, index=index)
    frame = frame.reset_index() if rest else frame
    if "run" in rest:
        for column in ("from_layer", "edit"):
            frame.insert(0, column, values[column].values[frame["run"]])
        frame = frame.drop(columns="run")
    frame.insert(0, "units", values.attrs.get("units", ""))
    frame.insert(0, "variable", name)
    return frame[frame["value"].notna()]


def _labels(values: xr.DataArray, dimension: str) -> npt.NDArray[np.generic]:
    if dimension in values.coords and dimension != "run":
        return np.asarray(values[dimension].values)
    return np.arange(values.sizes[dimension])


def _intervals(
    matrix: npt.NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean, interval and number of images of each column (image, cell); images without a value are left out."""
    known = np.isfinite(matrix)
    values, counts = np.where(known, matrix, 0.0), known.astype(np.float64)
    weights = list(Design.images(len(matrix)).weights(resamples, seed))
    tail = 50 * (1 - confidence)
    with np.errstate(invalid="ignore", divide="ignore"):
        point = values.sum(axis=0) / counts.sum(axis=0)
        drawn = np.concatenate([(part @ values) / (part @ counts) for part in weights])
    usable = np.isfinite(point)
    bounds = np.full((2, matrix.shape[1]), np.nan)
    bounds[:, usable] = np.nanpercentile(drawn[:, usable], [tail, 100 - tail], axis=0)
    return point, bounds[0], bounds[1], known.sum(axis=0)
