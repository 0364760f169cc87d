"""Keypoints carried from image to image, right and wrong, intact and under edits: for some pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.correspondence import Correspondence
from analyses.tasks.keypoints import TOLERANCES
from cachetool.annotations import Annotations
from cachetool.errors import MissingDataError

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CarriedPair:
    """One pair of images, and where each arm carries its keypoints; positions in pixels of the original images."""

    pair: int
    """Position in the data set's pairs."""
    source: int
    """Position of the source image in the cache."""
    target: int
    """Position of the target image in the cache."""
    category: str
    """What both images show."""
    source_size: tuple[int, int]
    """Width and height."""
    target_size: tuple[int, int]
    """Width and height."""
    source_points: Points
    """Annotated, (keypoint, xy)."""
    target_points: Points
    """Annotated, (keypoint, xy)."""
    predicted: dict[str, Points]
    """By arm, (keypoint, xy); NaN where nothing is predicted."""
    correct: dict[str, npt.NDArray[np.bool_]]
    """By arm, whether each keypoint lies within the headline tolerance (keypoint,)."""


def carried_pairs(
    arms: Mapping[str, xr.Dataset], annotations: Annotations, *, count: int = 4, task: Correspondence | None = None
) -> list[CarriedPair]:
    """Pairs evenly spread over the data set's list, chosen without a look at what comes out.

    Parameters
    ----------
    arms
        Stores by the name that they are shown under.
    annotations
        Pairs of the same images in the same order.
    count
        Pairs to show.
    task
        How points are carried; by default the patch of the largest cosine, right within 0.1 of the object's box.

    Raises
    ------
    MissingDataError
        The data set has no pairs of readable images, or a store lacks the patches; the text names the store.
    """
    measured = task or Correspondence()
    # A cache may have grown since it was replayed: pairs are chosen among the images that all arms hold.
    held = min(store.sizes["image"] for store in arms.values())
    readable = np.logical_and.reduce([store.readable.values[:held] for store in arms.values()])
    usable = [
        index
        for index, pair in enumerate(annotations.pairs)
        if max(pair.source, pair.target) < held and readable[pair.source] and readable[pair.target]
    ]
    within = annotations.with_pairs(usable)
    for name, store in arms.items():
        if (reason := measured.obstacle(store, within)) is not None:
            raise MissingDataError(f"{name}: {reason}")
    places = np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(np.int64)
    chosen = [usable[place] for place in places]
    outcomes = {name: measured.measure(store, None, annotations.with_pairs(chosen)) for name, store in arms.items()}
    return [_carried(annotations, index, row, outcomes) for row, index in enumerate(chosen)]


def _carried(annotations: Annotations, index: int, row: int, outcomes: Mapping[str, xr.Dataset]) -> CarriedPair:
    pair = annotations.pairs[index]
    points = len(pair.source_keypoints)
    predicted, correct = {}, {}
    for name, outcome in outcomes.items():
        predicted[name] = outcome.predicted.values[row, :points]
        error, yardstick = outcome.error.values[row, :points], float(outcome.yardstick.values[row])
        correct[name] = np.asarray(error <= TOLERANCES[0] * yardstick)
    return CarriedPair(
        index, pair.source, pair.target, pair.category, pair.source_size, pair.target_size,
        pair.source_keypoints, pair.target_keypoints, predicted, correct,
    )  # fmt: skip


def tolerance(task: Correspondence | None = None) -> str:
    """What counts as right, in words."""
    yardstick = (task or Correspondence()).yardstick
    return f"{TOLERANCES[0]:g} of the larger side of the {'object' if yardstick == 'box' else 'target image'}"
