"""Honest differences: a paired bootstrap over images of an edited arm against the intact arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 10_000
EQUIVALENCE_MARGIN = 0.01
"""Half width of the band within which an effect counts as none: 1 percentage point, the paper's own claim."""


@dataclass(frozen=True)
class Difference:
    """Mean of edited minus intact over images, with its confidence interval."""

    estimate: float
    """Mean difference, a fraction."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end of the confidence interval."""
    images: int
    """Number of images."""

    @property
    def equivalent(self) -> bool:
        """Whether the interval lies inside the margin: the only ground to say that nothing breaks."""
        return self.low > -EQUIVALENCE_MARGIN and self.high < EQUIVALENCE_MARGIN


def paired_difference(
    edited: npt.NDArray[np.number | np.bool_],
    intact: npt.NDArray[np.number | np.bool_],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Bootstrap the mean of per-image differences; images are the unit, so that both arms share their difficulty.

    Parameters
    ----------
    edited, intact
        Outcome of each image under the edit and without it, (image,), in the same order.

    Returns
    -------
    Percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13); where all images
    agree, the exact bound on what could have gone unseen.
    """
    differences = edited.astype(np.float64) - intact.astype(np.float64)
    estimate = float(differences.mean())
    if np.all(differences == differences[0]):
        # No resample can vary, but a few images that agree prove little: at most this share of all images differs, with
        # the same confidence (exact binomial; the "rule of three" of Hanley and Lippman-Hand, JAMA 249, 1983).
        unseen = 1 - (1 - confidence) ** (1 / len(differences))
        return Difference(estimate, estimate - unseen, estimate + unseen, len(differences))
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(estimate, float(interval.low), float(interval.high), len(differences))
