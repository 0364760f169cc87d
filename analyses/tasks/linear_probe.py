"""Linear probe: what features tell about the class, by logistic regression whose penalty held-out images choose."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from analyses.blas_threads import one_blas_thread
from cachetool.errors import DatasetError

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the L2 penalty that are tried, scikit-learn's C, from strong to weak."""
HELD_OUT = 0.2
"""Share of each class's training images on which the strengths are compared."""
DEFAULT = 1.0
"""Strength where no class has two images, so that none can be held out."""
TOLERANCE = 1e-6
"""Largest gradient of the mean loss at which a fit ends. scikit-learn's own 1e-4 ends weakly penalised fits so early
that the strength hardly matters any more."""
MAXIMAL_ITERATIONS = 5000
"""Iterations of L-BFGS after which a fit is recorded as not converged."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted linear classifier on standardised features."""

    scaler: StandardScaler
    """Mean and standard deviation of each feature over the training images."""
    classifier: LogisticRegression
    """Multinomial logistic regression on the standardised features."""
    held_out_accuracy: dict[float, float]
    """Top-1 accuracy on held-out training images by strength; empty where the strength was given or none held out."""
    converged: bool
    """Whether the final fit reached the tolerance."""

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """Labels that the probe knows, ascending, (class,)."""
        return np.asarray(self.classifier.classes_, dtype=np.int64)

    @property
    def strength(self) -> float:
        """The C of the final fit."""
        return float(self.classifier.C)

    def scores(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Logits (image, class), in the order of `classes`, of features (image, feature)."""
        found = np.asarray(self.classifier.decision_function(self.scaler.transform(features)), dtype=np.float64)
        # scikit-learn gives the logit of the second class alone where there are two.
        return found if found.ndim == 2 else np.stack([np.zeros_like(found), found], axis=1)


def fit_linear_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, strength: float | None = None, seed: int = 0
) -> LinearProbe:
    """Fit a linear probe; the same input and seed give the same probe.

    The strength with the best top-1 accuracy on a stratified fifth of the images is taken, of equals the one with the
    strongest penalty, and the probe is fitted on all images. Every strength is tried: with few images several strong
    penalties in a row predict the largest class alone, so that a search could not tell a plateau from the end.

    Parameters
    ----------
    features
        (image, feature) of training images.
    labels
        Class index (image,).
    strength
        Inverse strength of the penalty, scikit-learn's C; by default it is chosen from `GRID`.
    seed
        Decides which images are held out.

    Raises
    ------
    DatasetError
        There are fewer than two classes.
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DatasetError(
            f"a linear probe needs training images of two classes or more, found {len(labels)} images of "
            f"{len(classes)}; name a training set with more classes, or raise its limit"
        )
    accuracy: dict[float, float] = {}
    if strength is None:
        accuracy = _search(features, labels, held_out_images(labels, seed))
        strength = max(accuracy, key=lambda tried: (accuracy[tried], -tried), default=DEFAULT)
    scaler = StandardScaler().fit(features)
    classifier, converged = _fit(strength, scaler.transform(features), labels)
    return LinearProbe(scaler, classifier, accuracy, converged)


def held_out_images(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.bool_]:
    """Choose a fifth of the images of each class, (image,): at least one, and none of classes with a single image.

    scikit-learn's stratified splits refuse classes of one image and held-out parts smaller than the number of classes,
    which small and long-tailed data sets have.
    """
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    held_out = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held_out[members[: max(1, round(HELD_OUT * len(members))) if len(members) > 1 else 0]] = True
    return held_out


def _search(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]
) -> dict[float, float]:
    """Held-out accuracy by strength; empty where nothing is held out."""
    if not held_out.any():
        return {}
    scaler = StandardScaler().fit(features[~held_out])
    fitted, tested = scaler.transform(features[~held_out]), scaler.transform(features[held_out])
    accuracy: dict[float, float] = {}
    for strength in GRID:
        classifier, _ = _fit(strength, fitted, labels[~held_out])
        accuracy[strength] = float(np.mean(classifier.predict(tested) == labels[held_out]))
    return accuracy


def _fit(
    strength: float, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[LogisticRegression, bool]:
    """Fit one strength; returns the classifier and whether it converged, which is recorded instead of warned of."""
    classifier = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MAXIMAL_ITERATIONS)
    # In float32 the rounding of the loss, not its slope, ends a strongly penalised fit: 14 iterations instead of 22.
    with one_blas_thread(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(features.astype(np.float64), labels)
    return classifier, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
