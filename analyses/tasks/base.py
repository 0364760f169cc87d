"""What a task is: heads that are fitted on intact features, outcomes per image or pair, and metrics of them.

Outcomes are kept per unit (image or pair) and every metric is a function of *weighted sums* of per-unit columns, so
that one bootstrap serves all metrics: a resample is a vector of weights, its metric `combine(weights @ columns)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from cachetool.annotations import Annotations

Unit = Literal["image", "pair"]
"""What an outcome belongs to; pairs are resampled through their images."""


def ratio(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Value of a metric that is a mean: (..., [numerator, denominator]) to (...)."""
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


@dataclass(frozen=True)
class Metric:
    """A number between 0 and 1 (larger is better) that is computed from outcomes."""

    name: str
    """Name in tables, such as `top1`."""
    label: str
    """Name for people, such as `top-1 accuracy`."""
    unit: Unit
    """What an outcome belongs to."""
    columns: Callable[[xr.Dataset], npt.NDArray[np.float64]]
    """Outcomes of one arm to numbers (unit, column) whose weighted sums decide the metric."""
    combine: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] = ratio
    """Weighted sums (..., column) to values (...)."""
    keep_absent: bool = False
    """Whether a part of the metric (a class) that a resample lacks counts there with its value in the sample: left out,
    rare parts would weigh less in resamples than in the sample, and intervals would miss their estimate."""
    binary: bool = False
    """Whether each unit is right or wrong (column 0 is 0 or 1, column 1 is 1), so that McNemar's test applies."""

    def value(self, outcomes: xr.Dataset) -> float:
        """The metric over all units, each with weight 1."""
        return float(self.combine(self.columns(outcomes).sum(axis=0)))


class Task(ABC):
    """One measurement on final tokens, the same for intact and edited arms."""

    kind: ClassVar[str]
    """Name of the kind of task, which `analyses.tasks.parse_task` knows it by."""
    description: ClassVar[str]
    """One line for lists."""
    fitted: ClassVar[bool] = False
    """Whether a head is fitted on a training cache."""
    reads_masks: ClassVar[bool] = False
    """Whether outcomes depend on masks, which are files of the data set."""

    @property
    def name(self) -> str:
        """Name in tables and definitions of studies: the kind, and what differs from its defaults."""
        return self.kind

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """What is computed from outcomes; the first is the headline."""

    @property
    @abstractmethod
    def tokens(self) -> tuple[str, ...]:
        """Token types of the last state that are read."""

    @property
    def layer(self) -> int | None:
        """State that is read; None for the model's last."""
        return None

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything but the data that changes outcomes, as JSON values; part of the key under which they are kept."""

    @abstractmethod
    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        """Why this cannot be measured on a cache (annotations or tokens that it lacks); None where it can."""

    def fit(self, train: xr.Dataset, annotations: Annotations) -> Any:
        """Fit the head on the features of a training cache or run; None for tasks without one."""
        return None

    def floors(self, annotations: Annotations) -> dict[str, xr.Dataset]:
        """Outcomes by name of predictions that look at no feature, where a task has such; they may hold more units."""
        return {}

    @abstractmethod
    def measure(self, store: xr.Dataset, head: Any, annotations: Annotations) -> xr.Dataset:
        """Outcomes of one arm, loaded.

        Parameters
        ----------
        store
            A cache or run as `cachetool.open` gives it, which holds the last state.
        head
            What `fit` returned.
        annotations
            Labels, masks and pairs of the same images in the same order.

        Returns
        -------
        Data set with the dimension `image` (coordinate `image_id`) or `pair` (coordinates `source` and `target`, the
        images' positions in the cache, and `source_id` and `target_id`). Units that cannot be measured, such as images
        that could not be decoded, are left out.
        """
