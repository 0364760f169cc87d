"""Keypoints carried from image to image and scored: the percentage of correct keypoints (PCK).

Yang and Ramanan, "Articulated human detection with flexible mixtures of parts", TPAMI 2013: a point is correct where it
lies within alpha * max(width, height) of the annotated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.base import Metric
from cachetool.annotations import Annotations
from cachetool.datasets import KeypointPair

Yardstick = Literal["box", "image"]
"""What tolerances are a share of: the larger side of the target's box, or of the target image."""

Side = Literal["source", "target"]

TOLERANCES = (0.1, 0.05, 0.15)
"""Shares of the yardstick within which a point counts as correct; the first is the headline."""

_SUFFIX = {"box": "", "image": " of image"}
_EXPLANATION = {
    "box": "the larger side of the target's box, of the target image where it has no box",
    "image": "the larger side of the target image",
}


def keypoints(pairs: Sequence[KeypointPair], side: Side) -> npt.NDArray[np.float64]:
    """Keypoints of one side of pairs, float64 (pair, point, xy) in original pixels, padded with NaN."""
    listed = [pair.source_keypoints if side == "source" else pair.target_keypoints for pair in pairs]
    padded = np.full((len(listed), max(map(len, listed), default=0), 2), np.nan)
    for row, points in enumerate(listed):
        padded[row, : len(points)] = points
    return padded


def score(
    annotations: Annotations,
    chosen: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.float64],
    yardstick: Yardstick,
    transferable: npt.NDArray[np.bool_] | None = None,
) -> xr.Dataset:
    """Compare predicted keypoints with the annotated ones.

    Parameters
    ----------
    annotations
        Whose pairs were predicted.
    chosen
        (pair,) positions of the predicted pairs in `annotations.pairs`.
    predicted
        (pair, point, xy) in pixels of the target; NaN where nothing is predicted.
    yardstick
        What tolerances are a share of.
    transferable
        (pair, point) False where a point counts as wrong whatever is predicted; by default none does.

    Returns
    -------
    `error` (pair, point): distance in pixels of the target, infinite where a point is wrong at any tolerance and NaN
    beyond the points of the pair; `yardstick` (pair,) in pixels; `points` (pair,): their number; `predicted` (pair,
    point, xy). Coordinates along `pair`: `pair` (position in `annotations.pairs`), `source`, `target`, `source_id`,
    `target_id`, `category`. Attributes: `yardstick` in words, `pairs_without_box`.
    """
    pairs = [annotations.pairs[index] for index in chosen]
    annotated = keypoints(pairs, "target")
    with np.errstate(invalid="ignore"):
        error = np.linalg.norm(predicted - annotated, axis=-1)
    exists = np.isfinite(annotated).all(axis=-1)
    wrong = np.isnan(error) if transferable is None else np.isnan(error) | ~transferable
    lengths = [_length(pair, yardstick) for pair in pairs]
    sides = {
        "source": ("pair", np.array([pair.source for pair in pairs], dtype=np.int64)),
        "target": ("pair", np.array([pair.target for pair in pairs], dtype=np.int64)),
        "source_id": ("pair", np.array([annotations.image_ids[pair.source] for pair in pairs], dtype=object)),
        "target_id": ("pair", np.array([annotations.image_ids[pair.target] for pair in pairs], dtype=object)),
        "category": ("pair", np.array([pair.category for pair in pairs], dtype=object)),
    }
    return xr.Dataset(
        {
            "error": (("pair", "point"), np.where(exists, np.where(wrong, np.inf, error), np.nan)),
            "yardstick": ("pair", np.array(lengths, dtype=np.float64)),
            "points": ("pair", exists.sum(axis=1)),
            "predicted": (("pair", "point", "xy"), predicted),
        },
        coords={"pair": chosen, "xy": ["x", "y"], **sides},
        attrs={
            "yardstick": _EXPLANATION[yardstick],
            "pairs_without_box": sum(pair.target_box is None for pair in pairs),
        },
    )


def correct_keypoints(yardstick: Yardstick) -> tuple[Metric, ...]:
    """PCK at each tolerance: as the mean over pairs of a pair's share first, then over all points pooled."""
    return tuple(
        Metric(
            name=f"pck@{tolerance}{_SUFFIX[yardstick]}{' per point' if pooled else ''}",
            label=f"PCK at {tolerance} of {_EXPLANATION[yardstick]}; {'all points' if pooled else 'mean over pairs'}",
            unit="pair",
            columns=partial(_columns, tolerance=tolerance, pooled=pooled),
        )
        for pooled in (False, True)
        for tolerance in TOLERANCES
    )


def _columns(outcomes: xr.Dataset, tolerance: float, pooled: bool) -> npt.NDArray[np.float64]:
    """(pair, [correct points, points]), or (pair, [share of correct points, 1])."""
    correct = (outcomes.error.values <= tolerance * outcomes.yardstick.values[:, None]).sum(axis=1)
    points = outcomes.points.values
    columns = (correct, points) if pooled else (correct / points, np.ones(len(points)))
    return np.stack(columns, axis=1).astype(np.float64)


def _length(pair: KeypointPair, yardstick: Yardstick) -> float:
    """The yardstick in pixels of the target."""
    if yardstick == "image" or pair.target_box is None:
        return float(max(pair.target_size))
    left, top, right, bottom = pair.target_box
    return max(right - left, bottom - top)
