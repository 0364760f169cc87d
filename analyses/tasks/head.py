"""The weights' own classification head, for data sets whose classes are the head's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

import cachetool
from analyses.tasks.base import Metric, Task
from analyses.tasks.shares import accuracies, hits, image_outcomes
from cachetool.annotations import Annotations
from cachetool.errors import CachetoolError, DatasetError

_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class OwnHead(Task):
    """Top-1 and top-5 accuracy of the head that came with the weights; nothing is fitted.

    The head's classes have no names in the weights. They are taken for those of the data set where this has as many,
    and is ImageNet or names all its classes by WordNet ids, in the ascending order that heads of ImageNet use.
    """

    weights: str | None = None
    """Weights file, where it has moved since the extraction."""

    kind: ClassVar[str] = "head"
    description: ClassVar[str] = "the weights' own classification head (top-1, top-5)"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Top-1 and top-5 accuracy."""
        return accuracies()

    @property
    def tokens(self) -> tuple[str, ...]:
        """[CLS], which heads of supervised models read; a head that pools patches says so where they are absent."""
        return ("cls",)

    @property
    def settings(self) -> dict[str, Any]:
        """None: the head is part of the weights, which are part of the cache's key."""
        return {}

    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        """Labels in the order of the head's classes, and a head, are needed. Opens the model."""
        if (reason := _unordered(annotations)) is not None:
            return reason
        try:
            classes = cachetool.classify(store, weights=self.weights, limit=1).sizes["class"]
        except CachetoolError as error:
            return str(error)
        return _unequal(classes, annotations)

    def measure(self, store: xr.Dataset, head: Any, annotations: Annotations) -> xr.Dataset:
        """Classify the labelled images that could be decoded.

        Returns
        -------
        `label`, `prediction` and `hit` (image,), and `hit5` (image,), whether fewer than five other classes score as
        high as the true one.

        Raises
        ------
        DatasetError
            The classes of the data set are not known to be the head's.
        InvalidEditError
            The weights bring no head.
        IncompleteError
            The store lacks tokens that the head reads.
        """
        reason = _unordered(annotations)
        if annotations.labels is None or reason is not None:
            raise DatasetError(f"{reason}; fit a linear probe instead (task `classification`)")
        logits = cachetool.classify(store, weights=self.weights).values
        if (reason := _unequal(logits.shape[1], annotations)) is not None:
            raise DatasetError(f"{reason}; fit a linear probe instead (task `classification`)")
        readable = np.flatnonzero(store.readable.values)
        images = readable[annotations.labels[readable] >= 0]
        labels, scores = annotations.labels[images], logits[images]
        hit, hit5 = hits(scores, labels)
        outcomes = {"label": labels, "prediction": scores.argmax(axis=1), "hit": hit, "hit5": hit5}
        return image_outcomes(store, images, outcomes, {"classes": logits.shape[1]})


def _unordered(annotations: Annotations) -> str | None:
    """Why the order of the data set's classes is not known to be that of a head; None where it is."""
    dataset, names = annotations.dataset, annotations.class_names
    if annotations.labels is None or names is None:
        return f"{dataset.name} has no named classes"
    if dataset.family in ("imagenet-val", "imagenet-train"):
        return None
    if not all(_WORDNET_ID.fullmatch(name) for name in names) or list(names) != sorted(names):
        return (
            f"the classes of {dataset.name} are not known to be those of the weights' head: it is not ImageNet, and "
            "its classes are not named by ascending WordNet ids"
        )
    return None


def _unequal(classes: int, annotations: Annotations) -> str | None:
    """Why the number of classes differs from the head's; None where it does not."""
    own = len(annotations.class_names or ())
    return None if classes == own else f"{annotations.dataset.name} has {own} classes, and the weights' head {classes}"
