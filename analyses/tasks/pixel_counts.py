"""Pixels that are right, predicted and annotated, for each image and class, and the metrics that follow from them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from analyses.tasks.base import Metric
from cachetool.datasets import IGNORE

COUNTS = ("intersection", "predicted", "annotated")
"""Pixels that are predicted as a class and annotated as it, predicted as it, annotated as it."""


def count_pixels(prediction: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """Count the pixels of one image for each of `COUNTS` and each class, (count, class).

    Parameters
    ----------
    prediction, mask
        Class of each pixel, (row, column), 255 = none; pixels without annotation are left out.
    """
    annotated = mask != IGNORE
    counted = (mask[annotated & (prediction == mask)], prediction[annotated], mask[annotated])
    return np.stack([np.bincount(values, minlength=IGNORE + 1)[:classes] for values in counted])


def pixel_metrics() -> tuple[Metric, Metric]:
    """Mean intersection over union, and the share of annotated pixels that are right."""
    return (
        Metric(
            "miou", "mean intersection over union", "image", _all_counts, mean_intersection_over_union, keep_absent=True
        ),
        Metric("pixel_accuracy", "pixel accuracy", "image", _right_and_annotated),
    )


def mean_intersection_over_union(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of I / (P + A - I) over the classes with annotated pixels (A > 0); NaN where there is none.

    Over all images these are the classes annotated somewhere in them. In a resample without a pixel of some class that
    class keeps the value that it has over all images (`Metric.keep_absent`), so that all resamples average the same
    classes.

    Parameters
    ----------
    sums
        Weighted sums of `COUNTS`, (..., count x class), all classes of one count after those of another.
    """
    intersection, predicted, annotated = np.split(sums, len(COUNTS), axis=-1)
    present = annotated > 0
    union = np.where(present, predicted + annotated - intersection, 1.0)
    total = np.where(present, intersection / union, 0.0).sum(axis=-1)
    classes = present.sum(axis=-1)
    return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def per_class(outcomes: xr.Dataset) -> pd.DataFrame:
    """Intersection over union of each class, over all images.

    Returns
    -------
    One row for each class of the masks: `class`, `iou` (NaN without annotated pixels) and `annotated_pixels`.
    """
    intersection, predicted, annotated = (outcomes[name].values.sum(axis=0) for name in COUNTS)
    union = predicted + annotated - intersection
    iou = np.where(annotated > 0, intersection / np.maximum(union, 1), np.nan)
    return pd.DataFrame({"class": outcomes.mask_class.values, "iou": iou, "annotated_pixels": annotated})


def _all_counts(outcomes: xr.Dataset) -> npt.NDArray[np.float64]:
    return np.concatenate([outcomes[name].values for name in COUNTS], axis=1).astype(np.float64)


def _right_and_annotated(outcomes: xr.Dataset) -> npt.NDArray[np.float64]:
    return np.stack([outcomes[name].values.sum(axis=1) for name in ("intersection", "annotated")], axis=1).astype(float)
