"""G1: classification by a linear probe that is fitted on the features of a training cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.base import Metric, Task
from analyses.tasks.linear_probe import (
    DEFAULT,
    GRID,
    HELD_OUT,
    MAXIMAL_ITERATIONS,
    TOLERANCE,
    LinearProbe,
    fit_linear_probe,
)
from analyses.tasks.readouts import Readout, readable_features
from analyses.tasks.shares import accuracies, hits, image_outcomes
from cachetool.annotations import Annotations
from cachetool.errors import DatasetError, UnknownNameError


@dataclass(frozen=True)
class ClassificationHead:
    """A linear probe and the names of the classes that it tells apart."""

    probe: LinearProbe
    """Fitted on the images of the training cache that could be decoded."""
    names: tuple[str, ...] | None
    """Class names of the training set by label; None where it has none."""
    dataset: str
    """Name of the training set, for messages."""


@dataclass(frozen=True)
class Classification(Task):
    """Top-1 and top-5 accuracy of a linear probe (Alain and Bengio, arXiv 1610.01644) on one readout.

    Features are standardised and classified by multinomial logistic regression, whose penalty held-out training images
    choose (`analyses.tasks.linear_probe`). Classes of the two data sets are matched by name, or by index where one of
    them has no names.
    """

    readout: str = "cls"
    """What is read, as `analyses.tasks.readouts.Readout` writes it."""
    strength: float | None = None
    """Inverse strength of the penalty, scikit-learn's C; None lets held-out training images choose it."""
    seed: int = 0
    """Decides which training images are held out."""

    kind: ClassVar[str] = "classification"
    description: ClassVar[str] = "linear probe fitted on a training cache (top-1, top-5)"
    fitted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot be fitted, all at once."""
        Readout.parse(self.readout)  # a wrong name is an error now, not when something is measured
        problems = []
        if self.strength is not None and not self.strength > 0:
            problems.append(f"strength lies above 0, got {self.strength}")
        if self.seed < 0:
            problems.append(f"seed is 0 or more, got {self.seed}")
        if problems:
            raise UnknownNameError(f"cannot set up the classification task: {'; '.join(problems)}")

    @property
    def name(self) -> str:
        """`classification`, with the readout unless that is [CLS]."""
        readout = str(Readout.parse(self.readout))
        return self.kind if readout == "cls" else f"{self.kind}:{readout}"

    @property
    def layer(self) -> int | None:
        """The state of the readout."""
        return Readout.parse(self.readout).layer

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Top-1 and top-5 accuracy."""
        return accuracies()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The token types of the readout."""
        return Readout.parse(self.readout).tokens

    @property
    def settings(self) -> dict[str, Any]:
        """Readout, and how the probe is fitted."""
        chosen = {"grid": list(GRID), "held_out": HELD_OUT, "seed": self.seed, "default": DEFAULT}
        return {
            "readout": str(Readout.parse(self.readout)),
            "features": "standardised",
            "strength": chosen if self.strength is None else self.strength,
            "tolerance": TOLERANCE,
            "maximal_iterations": MAXIMAL_ITERATIONS,
        }

    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        """Labels and the tokens of the readout are needed."""
        if annotations.labels is None:
            return f"{annotations.dataset.name} has no class labels"
        if not (annotations.labels[np.flatnonzero(store.readable.values)] >= 0).any():
            return f"no image of {annotations.dataset.name} that could be decoded has a class label"
        return Readout.parse(self.readout).obstacle(store)

    def fit(self, train: xr.Dataset, annotations: Annotations) -> ClassificationHead:
        """Fit the probe on the labelled images of a training cache or run.

        Raises
        ------
        DatasetError
            The training images have no labels, or are of fewer than two classes.
        IncompleteError
            The store does not give the readout.
        """
        _, labels, features = _labelled(Readout.parse(self.readout), train, annotations)
        probe = fit_linear_probe(features, labels, strength=self.strength, seed=self.seed)
        return ClassificationHead(probe, annotations.class_names, annotations.dataset.name)

    def measure(self, store: xr.Dataset, head: ClassificationHead, annotations: Annotations) -> xr.Dataset:
        """Classify the labelled images that could be decoded.

        Returns
        -------
        `label` and `prediction` (image,), classes of the evaluated set, -1 for one that it lacks; `hit` (image,),
        whether they agree; `hit5` (image,), whether fewer than five other classes score as high as the true one, as is
        always so among five. The attributes tell the probe's strength, the held-out accuracies that chose it, and
        whether its fit converged.

        Raises
        ------
        DatasetError
            There are no labels, or the training images lack classes that occur here.
        IncompleteError
            The store does not give the readout.
        """
        images, labels, features = _labelled(Readout.parse(self.readout), store, annotations)
        evaluated = _evaluated_labels(head, annotations)
        _require_known(labels, evaluated, head, annotations)
        scores = head.probe.scores(features)
        order = np.argsort(evaluated)
        position = order[np.searchsorted(evaluated, labels, sorter=order)]
        hit, hit5 = hits(scores, position)
        facts: dict[str, Any] = {"strength": head.probe.strength, "converged": int(head.probe.converged)}
        if head.probe.held_out_accuracy:
            facts["strengths_tried"] = list(head.probe.held_out_accuracy)
            facts["held_out_accuracies"] = list(head.probe.held_out_accuracy.values())
        outcomes = {"label": labels, "prediction": evaluated[scores.argmax(axis=1)], "hit": hit, "hit5": hit5}
        return image_outcomes(store, images, outcomes, facts)


def _labelled(
    readout: Readout, store: xr.Dataset, annotations: Annotations
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Position, label and features of the images that could be decoded and have a label."""
    if annotations.labels is None:
        raise DatasetError(
            f"{annotations.dataset.name} has no class labels; name a data set with classes, such as imagefolder:DIR"
        )
    images, features = readable_features(readout, store)
    labels = annotations.labels[images]
    known = labels >= 0
    if not known.any():
        raise DatasetError(
            f"no image of {annotations.dataset.name} that could be decoded has a class label, out of "
            f"{store.sizes['image']}; name a data set with labelled images, or raise its limit"
        )
    return images[known], labels[known], features[known]


def _evaluated_labels(head: ClassificationHead, annotations: Annotations) -> npt.NDArray[np.int64]:
    """The label in the evaluated set of each class of the probe, (class,); -1 where the set lacks the class."""
    labels = head.probe.classes
    if head.names is None or annotations.class_names is None or head.names == annotations.class_names:
        return labels
    index = {name: label for label, name in enumerate(annotations.class_names)}
    return np.array([index.get(head.names[label], -1) for label in labels], dtype=np.int64)


def _require_known(
    labels: npt.NDArray[np.int64],
    evaluated: npt.NDArray[np.int64],
    head: ClassificationHead,
    annotations: Annotations,
) -> None:
    """Raise `DatasetError` where classes occur that the probe cannot predict."""
    absent = np.setdiff1d(labels, evaluated)
    if len(absent):
        names = annotations.class_names
        named = ", ".join(str(label) if names is None else names[label] for label in absent)
        raise DatasetError(
            f"{len(absent)} classes of {annotations.dataset.name} have no training image in {head.dataset}: {named}; "
            "name a training set with these classes, or raise its limit"
        )
