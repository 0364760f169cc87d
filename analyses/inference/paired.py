"""The difference of two arms under a mean, where no more than its interval is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyses.inference.bootstrap import RESAMPLES, Arm
from analyses.inference.compare import EQUIVALENCE_MARGIN, compare
from analyses.inference.design import Design


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
        Outcome of each image under the edit and without it, from 0 to 1, (image,), in the same order.

    Raises
    ------
    DatasetError
        The arms are not of the same images, or there is none.
    """
    design = Design.images(len(intact))
    arm = Arm([_columns(edited)], _columns(intact))
    found = compare([arm], design, confidence=confidence, resamples=resamples, seed=seed)[0]
    return Difference(found.difference, found.low, found.high, found.images)


def _columns(outcomes: npt.NDArray[np.number | np.bool_]) -> npt.NDArray[np.float64]:
    return np.stack([outcomes.astype(np.float64), np.ones(len(outcomes))], axis=1)
