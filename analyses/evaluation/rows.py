"""The tidy table of a comparison: one row per arm, task and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from analyses.table_files import write_both

Head = Literal["intact", "refit"]
"""What the head of a fitted task was fitted on: intact training features, or features under the same edit."""


@dataclass(frozen=True)
class Row:
    """One arm under one metric, against the intact arm; percentage points (pp) where a name ends in `_pp`.

    A value that does not apply is NaN, or an empty text.
    """

    model: str
    """Model of the cache."""
    dataset: str
    """Evaluated data set."""
    train: str
    """Data set that the head was fitted on; empty for tasks without a head."""
    task: str
    """Name of the task, such as `classification`."""
    metric: str
    """Name of the metric, such as `top1`."""
    unit: str
    """What an outcome belongs to: `image` or `pair`."""
    edit: str
    """Name for people, such as `registers shuffle`; `intact` for the unedited replay."""
    target: str
    """Edited tokens, such as `registers`; empty for the intact arm."""
    replacement: str
    """What was put in, such as `shuffle`; `none` for the intact arm."""
    from_layer: int
    """First edited state, from which both arms are replayed; the last state where nothing was replayed."""
    until_layer: int
    """Last edited state; equal to `from_layer` for the intact arm."""
    sustained: bool
    """Whether every state from the first to the last edited one was edited."""
    seeds: int
    """Number of seeds that were averaged."""
    head: Head
    """What the head was fitted on; `intact` for tasks without a head."""
    value: float
    """The metric, a fraction, averaged over seeds."""
    value_low: float
    """Lower end of its confidence interval."""
    value_high: float
    """Upper end of its confidence interval."""
    intact: float
    """The metric of the intact arm."""
    difference_pp: float
    """Change against the intact arm; 0 for the intact arm itself."""
    low_pp: float
    """Lower end of the confidence interval of the change."""
    high_pp: float
    """Upper end of the confidence interval of the change."""
    p_value: float
    """Two-sided p-value of no change, of the bootstrap, or the larger one of the sign test where few things change."""
    p_holm: float
    """The same, adjusted by Holm's method over all arms of the task and metric in this comparison."""
    equivalent_1pp: bool
    """Whether the whole interval of the change lies within 1 pp: the claim that nothing breaks."""
    p_equivalence: float
    """p-value of the two one-sided tests of a change of 1 pp or more."""
    mcnemar_p: float
    """Exact McNemar test, largest over seeds; NaN where units are not right or wrong, or not independent."""
    units: int
    """Number of units: images or pairs."""
    images: int
    """Number of images among them."""
    drawn: int
    """Number of things that resamples draw: images, or sequences where these are named."""
    confidence: float
    """Coverage of the intervals, a fraction."""
    edited_tokens: float
    """Edited tokens per image, mean over images and seeds; 0 where a target such as outlier patches found none."""
    off_distribution: float
    """Rank of the injected tokens' Mahalanobis distance among natural tokens, 0 to 100, mean over images and seeds."""
    off_distribution_mahalanobis: float
    """That distance itself, mean over images and seeds."""
    off_distribution_neighbour_percentile: float
    """Rank of the distance to the nearest natural token of another image, 0 to 100, mean over images and seeds."""
    certificate: float
    """Relative error of the unedited replay against the stored last state, the largest over seeds."""
    calibration: str
    """File of the calibration that values and distances come from."""
    calibration_overlap: float
    """Number of evaluated images that are calibration images too."""
    training_overlap: float
    """Number of evaluated images that the head was fitted on too; NaN for tasks without a head."""
    oracle: bool
    """Whether the replacement injects the image's label."""
    by_construction: bool
    """Whether tokens that the task reads were edited at the last state, so that no block could make use of them."""
    note: str
    """What a reader must know besides."""

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values; numbers that are not finite are null."""
        return json_values(asdict(self))


def json_values(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Values by name; numbers that are not finite are null."""
    return {
        str(name): None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def as_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as a table, one column per field of `Row` in its order; an empty table keeps its columns."""
    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Row)])


def as_dataset(rows: Sequence[Row]) -> xr.Dataset:
    """The rows as variables along `row`, with `units` where a variable has one."""
    variables: dict[str, xr.Variable] = {}
    for field in fields(Row):
        values = [getattr(row, field.name) for row in rows]
        array = np.array(values, dtype={"str": object, "Head": object}.get(str(field.type), str(field.type)))
        units = "percentage points" if field.name.endswith("_pp") else None
        variables[field.name] = xr.Variable("row", array, {"units": units} if units else None)
    return xr.Dataset(variables)


def write_table(rows: Sequence[Row], path: Path) -> tuple[Path, Path]:
    """Write the rows as CSV and as netCDF-4; `path` has no ending. Returns the two paths."""
    return write_both(as_frame(rows), as_dataset(rows), path)
