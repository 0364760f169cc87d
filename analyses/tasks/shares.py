"""Outcomes that are right or wrong for each image, and the metrics that are the share of right ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.base import Metric


def share(name: str, label: str, variable: str) -> Metric:
    """The share of images whose outcome `variable` (image,) is true."""
    return Metric(name, label, "image", _hits_and_images(variable), binary=True)


def accuracies() -> tuple[Metric, Metric]:
    """Top-1 and top-5 accuracy, of the outcomes `hit` and `hit5`."""
    return share("top1", "top-1 accuracy", "hit"), share("top5", "top-5 accuracy", "hit5")


def hits(
    scores: npt.NDArray[np.floating], true: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether the true class has the best score, and whether fewer than five other classes score as high.

    Parameters
    ----------
    scores
        (image, class).
    true
        Column of the true class, (image,).

    Returns
    -------
    Two arrays (image,). The first of equally good classes counts as the best; equals count against the five best.
    """
    best = scores.argmax(axis=1) == true
    own = np.take_along_axis(scores, true[:, None], axis=1)
    return best, best | ((scores >= own).sum(axis=1) <= 5)


def image_outcomes(
    store: xr.Dataset, images: npt.NDArray[np.int64], variables: Mapping[str, Any], facts: Mapping[str, Any]
) -> xr.Dataset:
    """Outcomes of some images of a store.

    Parameters
    ----------
    store
        The cache or run that was measured.
    images
        Positions of the measured images in the store, (image,).
    variables
        Outcomes by name, (image,) or (image, rank).
    facts
        What the outcomes' attributes say about the measurement.
    """
    named = {name: (("image", "rank")[: np.ndim(values)], np.asarray(values)) for name, values in variables.items()}
    return xr.Dataset(named, {"image_id": ("image", store.image_id.values[images])}, dict(facts))


def _hits_and_images(variable: str) -> Callable[[xr.Dataset], npt.NDArray[np.float64]]:
    def columns(outcomes: xr.Dataset) -> npt.NDArray[np.float64]:
        hits = outcomes[variable].values.astype(np.float64)
        return np.stack([hits, np.ones_like(hits)], axis=1)

    return columns
