"""Linear probe on soft labels: multinomial logistic regression whose penalty held-out images choose."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from analyses.blas_threads import one_blas_thread
from analyses.tasks.soft_labels import SoftLabels
from cachetool.errors import DatasetError

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the L2 penalty that are tried, scikit-learn's C, from strong to weak; each patch weighs 1."""
HELD_OUT = 0.2
"""Share of the training images on which the strengths are compared."""
MARGIN = 0.01
"""Relative excess over the least held-out loss that does not count: the minimum is flat, and the strongest penalty
within it is fitted soonest and does not hang on the last digits of a machine."""
DEFAULT = 1e-2
"""Strength where no image can be held out because there is one alone, or because the others hold one class."""
SEARCH_TOLERANCE = 1e-4
"""Largest gradient of the mean loss at which a fit ends that only ranks a strength."""
TOLERANCE = 1e-5
"""Largest gradient of the mean loss at which the final fit ends."""
MAXIMAL_ITERATIONS = 5000
"""Iterations of L-BFGS after which a fit is recorded as not converged."""
SEARCH = {"grid": list(GRID), "held_out": HELD_OUT, "margin": MARGIN, "default": DEFAULT, "tolerance": SEARCH_TOLERANCE}
"""How a strength is chosen, for the settings of tasks."""


@dataclass(frozen=True, eq=False)
class SoftProbe:
    """A fitted linear classifier; standardising is part of its weights."""

    classes: npt.NDArray[np.int64]
    """Labels that the probe knows, ascending, (class,)."""
    weight: npt.NDArray[np.float32]
    """(class, channel)."""
    bias: npt.NDArray[np.float32]
    """(class,)."""
    strength: float
    """The C of the final fit."""
    held_out_loss: dict[float, float]
    """Mean cross-entropy on held-out training images, nats per patch, by strength; empty where none was chosen."""
    converged: bool
    """Whether the final fit reached the tolerance."""
    patches: int
    """Number of patches it was fitted on."""

    @property
    def facts(self) -> dict[str, Any]:
        """How it was fitted, for the attributes of outcomes."""
        facts: dict[str, Any] = {
            "strength": self.strength,
            "converged": int(self.converged),
            "training_patches": self.patches,
        }
        if self.held_out_loss:
            facts["strengths_tried"] = list(self.held_out_loss)
            facts["held_out_losses"] = list(self.held_out_loss.values())
        return facts

    def logits(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (..., class), in the order of `classes`, of features (..., channel)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)


def fit_soft_probe(
    features: npt.NDArray[np.float32], labels: SoftLabels, *, strength: float | None = None, seed: int = 0
) -> SoftProbe:
    """Fit a linear probe on patches with soft labels; the same input and seed give the same probe.

    A patch is entered once for each of its classes with the class's share as sample weight: the weighted sum of the
    entries' cross-entropies is the cross-entropy of the soft label. Classes are not weighted. scikit-learn minimises
    C * sum of cross-entropies + half the sum of squared weights; features are standardised over patches.

    Parameters
    ----------
    features
        Features of the patch of each entry of the labels, float32 (entry, channel).
    labels
        Soft labels.
    strength
        Inverse strength of the penalty, scikit-learn's C. By default the smallest of `GRID` whose cross-entropy on a
        fifth of the images comes within a hundredth of the best; the probe is then fitted on all images.
    seed
        Decides which images are held out.

    Raises
    ------
    DatasetError
        There are fewer than two classes.
    """
    classes = np.unique(labels.label)
    if len(classes) < 2:
        raise DatasetError(
            f"a segmentation head needs annotated training patches of two classes or more, found {len(labels.label)} "
            f"of {len(classes)}; name a training set with more classes, or raise its limit"
        )
    loss: dict[float, float] = {}
    if strength is None:
        loss = _search(features, labels, seed)
        least = min(loss.values(), default=0.0)
        strength = next((tried for tried, found in loss.items() if found <= (1 + MARGIN) * least), DEFAULT)
    scaler = _standardise(features, labels)
    classifier = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MAXIMAL_ITERATIONS)
    converged = _fit(classifier, _scaled(scaler, features), labels.label, labels.share)
    coefficients, intercept = classifier.coef_, classifier.intercept_
    if len(classes) == 2:  # scikit-learn gives the logit of the second class alone
        coefficients, intercept = np.concatenate([0 * coefficients, coefficients]), np.append(0.0, intercept)
    weight = coefficients / scaler.scale_
    return SoftProbe(
        classes=classes,
        weight=weight.astype(np.float32),
        bias=(intercept - weight @ scaler.mean_).astype(np.float32),
        strength=float(strength),
        held_out_loss=loss,
        converged=converged,
        patches=int(_first_entries(labels).sum()),
    )


def _search(features: npt.NDArray[np.float32], labels: SoftLabels, seed: int) -> dict[float, float]:
    """Held-out loss by strength; empty where the strengths cannot be compared."""
    images = np.random.Generator(np.random.Philox(key=seed)).permutation(np.unique(labels.image))
    held_out = np.isin(labels.image, images[: max(1, round(HELD_OUT * len(images)))])
    known = np.unique(labels.label[~held_out])
    # A class that only held-out images show has probability 0 whatever the strength: it cannot tell them apart.
    tested = held_out & np.isin(labels.label, known)
    if len(known) < 2 or not tested.any():
        return {}
    scaler = _standardise(features[~held_out], labels.select(~held_out))
    fitted_features, tested_features = _scaled(scaler, features[~held_out]), _scaled(scaler, features[tested])
    # Each fit starts from the one before, which is near, as the penalty weakens step by step.
    classifier = LogisticRegression(tol=SEARCH_TOLERANCE, max_iter=MAXIMAL_ITERATIONS, warm_start=True)
    loss: dict[float, float] = {}
    for strength in GRID:
        classifier.set_params(C=strength)
        _fit(classifier, fitted_features, labels.label[~held_out], labels.share[~held_out])
        probability = classifier.predict_proba(tested_features)
        loss[strength] = float(
            log_loss(labels.label[tested], probability, sample_weight=labels.share[tested], labels=known)
        )
    return loss


def _fit(
    classifier: LogisticRegression,
    features: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    share: npt.NDArray[np.float64],
) -> bool:
    """Fit in place; returns whether it converged, which is recorded instead of warned of."""
    with one_blas_thread(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(features, label, sample_weight=share)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _standardise(features: npt.NDArray[np.float32], labels: SoftLabels) -> StandardScaler:
    """Mean and standard deviation over patches, each counted once however many classes it has."""
    return StandardScaler().fit(features[_first_entries(labels)])


def _scaled(scaler: StandardScaler, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Standardised features; in float32 the rounding of the loss, not its slope, would decide when a fit ends."""
    return np.asarray(scaler.transform(features.astype(np.float64), copy=False), dtype=np.float64)


def _first_entries(labels: SoftLabels) -> npt.NDArray[np.bool_]:
    """Which entries are the first of their patch, (entry,); entries of one patch follow each other."""
    changes = (np.diff(labels.image) != 0) | (np.diff(labels.patch) != 0)
    return np.concatenate([np.ones(min(1, len(labels.image)), dtype=np.bool_), changes])
