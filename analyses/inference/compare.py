"""Edited arms against intact ones: intervals, p-values and tests of equivalence, a family at a time.

All statements are about other images of the same kind, given the fitted heads and the seeds at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from analyses.inference.bootstrap import RESAMPLES, Arm, Combine, bootstrap
from analyses.inference.design import Design
from analyses.inference.exact import FEW, FewDeviations
from analyses.tasks.base import ratio
from cachetool.errors import UnknownNameError

EQUIVALENCE_MARGIN = 0.01
"""Half width of the band within which an effect counts as none: 1 percentage point, the paper's own claim."""

_ROUNDING = 1e-12
"""Differences closer to 0 are 0: the mean over seeds of equal numbers is not exact in floating point."""


@dataclass(frozen=True)
class Comparison:
    """One edited arm against its intact arm under one metric; all values are fractions."""

    value: float
    """Metric of the edited arm, mean over seeds."""
    value_low: float
    """Lower end of its confidence interval."""
    value_high: float
    """Upper end of its confidence interval."""
    intact: float
    """Metric of the intact arm."""
    difference: float
    """Edited minus intact."""
    low: float
    """Lower end of the confidence interval of the difference; NaN where the sample cannot tell (see `compare`)."""
    high: float
    """Upper end of the confidence interval of the difference."""
    p_value: float
    """Two-sided p-value of no difference, by inversion of the percentile interval; never 0."""
    equivalent: bool
    """Whether the whole interval lies inside the margin: the only ground to say that nothing breaks."""
    p_equivalence: float
    """Larger p-value of the two one-sided tests of equivalence; NaN where the sample cannot tell.

    Small values speak for equivalence. At 5 % this asks for less than `equivalent` at 95 % confidence, which leaves
    2.5 % on either side.
    """
    mcnemar_p: float
    """Exact McNemar test, the largest over seeds; NaN where units are not right or wrong, or not independent."""
    units: int
    """Number of images or pairs that were measured."""
    images: int
    """Number of images among them."""
    drawn: int
    """Number of independent things that resamples draw from: images or groups."""
    seeds: int
    """Number of seeds that were averaged."""
    resamples: int
    """Number of resamples in which the difference is defined."""


def check_confidence(confidence: float) -> None:
    """Raise `UnknownNameError` for what is no coverage of an interval."""
    if not 0 < confidence < 1:
        raise UnknownNameError(f"--confidence {confidence}: expected a fraction between 0 and 1, such as 0.95")


def compare(
    arms: Sequence[Arm],
    design: Design,
    *,
    combine: Combine = ratio,
    keep_absent: bool = False,
    binary: bool = False,
    confidence: float = 0.95,
    margin: float = EQUIVALENCE_MARGIN,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every arm with its intact arm on shared resamples.

    Intervals are percentile intervals of the bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13). With d* the differences in B resamples,

        p_value       = min(1, 2 (1 + min(#{d* <= 0}, #{d* >= 0})) / (1 + B)),
        p_equivalence = (1 + max(#{d* <= -margin}, #{d* >= margin})) / (1 + B),

    the latter being the larger of two one-sided tests (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15,
    1987). Where only few of the things drawn deviate from the commonest outcome, a bootstrap promises too much. Means
    over units then (below 50) get the wider of the percentile and the exact interval, and the larger p-values
    (`analyses.inference.exact`). Other metrics, and means over pairs, are then (below 10) not called equivalent; where
    their resamples do not vary at all, interval and p_equivalence are NaN. Pairs none of which differs do get
    exact bounds.

    Parameters
    ----------
    arms
        One family: the same metric of the same units.
    design
        What is drawn, and which units hang on it.
    combine
        Weighted sums (..., column) to values (...), as in `analyses.tasks.base.Metric`.
    keep_absent
        Whether parts that a resample lacks keep their values in the sample, as in `analyses.inference.bootstrap`.
    binary
        Whether column 0 is 0 or 1 and column 1 is 1, so that McNemar's test applies to independent units (McNemar,
        Psychometrika 12, 1947). The largest p-value over seeds is given, which is conservative.
    confidence
        Between 0 and 1.
    margin
        Half width of the band of equivalence, a fraction.

    Raises
    ------
    DatasetError
        Arms do not fit the design or each other.
    UnknownNameError
        Confidence, margin or resamples are outside their range.
    """
    check_confidence(confidence)
    if not margin > 0:
        raise UnknownNameError(f"margin {margin}: expected a positive fraction, such as {EQUIVALENCE_MARGIN}")
    found = bootstrap(arms, combine, design, resamples=resamples, seed=seed, keep_absent=keep_absent)
    comparisons = []
    for number, arm in enumerate(arms):
        values = found.edited_resampled[number]
        differences = values - found.intact_resampled[number]
        difference = _Estimate.of(found.edited[number] - found.intact[number], differences, confidence)
        value = _Estimate.of(found.edited[number], values, confidence)
        few = None
        if _is_mean(arm, combine):
            numerators = np.mean([columns[:, 0] for columns in arm.edited], axis=0)
            sizes = arm.intact[:, 1]
            few = FewDeviations.find(numerators - arm.intact[:, 0], sizes, design, -1.0, 1.0)
            value = value.widened(FewDeviations.find(numerators, sizes, design, 0.0, 1.0), confidence)
        difference = difference.widened(few, confidence)
        p_value, p_equivalence = _p_values(difference, few, margin)
        differing = _differing(arm, design)
        trusted = few is not None or differing >= FEW
        comparisons.append(
            Comparison(
                value=value.point,
                value_low=value.low,
                value_high=value.high,
                intact=float(found.intact[number]),
                difference=difference.point,
                low=difference.low,
                high=difference.high,
                # A sign test of so many things cannot give less, whatever the metric.
                p_value=p_value if trusted else max(p_value, min(1.0, 2.0 ** (1 - differing))),
                equivalent=trusted and -margin < difference.low <= difference.point <= difference.high < margin,
                p_equivalence=p_equivalence if trusted else float("nan"),
                mcnemar_p=_mcnemar(arm) if binary and design.independent_units else float("nan"),
                units=design.units,
                images=design.image_count,
                drawn=design.drawn,
                seeds=len(arm.edited),
                resamples=len(difference.resampled),
            )
        )
    return comparisons


@dataclass(frozen=True)
class _Estimate:
    """A number with its interval and the resamples behind it."""

    point: float
    low: float
    high: float
    resampled: npt.NDArray[np.float64]
    """Defined values only, (resample,)."""

    @classmethod
    def of(cls, point: float, resampled: npt.NDArray[np.float64], confidence: float) -> _Estimate:
        """The percentile interval; NaN where resamples do not vary, which says nothing about other images."""
        defined = resampled[np.isfinite(resampled)]
        defined = np.where(np.abs(defined) <= _ROUNDING, 0.0, defined)
        point = 0.0 if abs(point) <= _ROUNDING else float(point)
        if len(defined) == 0 or np.ptp(defined) <= _ROUNDING:
            return cls(point, float("nan"), float("nan"), defined)
        low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
        return cls(point, float(low), float(high), defined)

    def widened(self, few: FewDeviations | None, confidence: float) -> _Estimate:
        """The interval that holds this one and the exact one."""
        if few is None:
            return self
        low, high = few.interval(confidence)
        return _Estimate(self.point, float(np.fmin(self.low, low)), float(np.fmax(self.high, high)), self.resampled)


def _is_mean(arm: Arm, combine: Combine) -> bool:
    """Whether the metric is a mean of numbers from 0 to 1, weighted alike in both arms."""
    if combine is not ratio or arm.intact.shape[1] != 2:
        return False
    sizes = arm.intact[:, 1]
    return all(
        bool(np.array_equal(columns[:, 1], sizes) and (columns[:, 0] >= 0).all() and (columns[:, 0] <= sizes).all())
        for columns in (arm.intact, *arm.edited)
    )


def _p_values(difference: _Estimate, few: FewDeviations | None, margin: float) -> tuple[float, float]:
    resampled = difference.resampled
    draws = 1 + len(resampled)
    at_most_0, at_least_0 = np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0)
    p_value = min(1.0, 2 * (1 + min(at_most_0, at_least_0)) / draws)
    beyond = max(np.count_nonzero(resampled <= -margin), np.count_nonzero(resampled >= margin))
    p_equivalence = (1 + beyond) / draws
    if few is None:
        return p_value, p_equivalence
    return max(p_value, few.p_sign), max(p_equivalence, few.p_at_least(margin), few.p_at_most(-margin))


def _differing(arm: Arm, design: Design) -> int:
    """Number of drawn things (for pairs: pairs) with a unit whose outcome differs from the intact one in any seed."""
    units = np.any([(columns != arm.intact).any(axis=1) for columns in arm.edited], axis=0)
    return int(units.sum()) if design.second is not None else len(np.unique(design.first[units]))


def _mcnemar(arm: Arm) -> float:
    p_values = []
    for columns in arm.edited:
        gained = int((columns[:, 0] > arm.intact[:, 0]).sum())
        lost = int((columns[:, 0] < arm.intact[:, 0]).sum())
        p_values.append(float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0)
    return max(p_values)
