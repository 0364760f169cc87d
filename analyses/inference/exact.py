"""Exact bounds where few units deviate, because a bootstrap cannot show what the sample holds too little of.

Where an edit changes the outcome of no image, or of a few, resamples hardly vary: the percentile interval of three
changed images among 1,000 ends at zero changed ones, and of none has no width at all. Claims of equivalence live in
this corner, so there the mean is written as

    mean = base + E[rise] - E[fall],

with `base` the commonest outcome of a thing drawn (no change, or always right), and `rise` and `fall` how far the few
others lie above and below it. The share of things that rise (or fall) has an exact binomial interval (Clopper and
Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934). Its distances from the share seen, times the
root mean square of the deviations, bound E[rise] and E[fall], and the two are combined by the square-and-add method
(Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
Statistics in Medicine 17, 1998). Where nothing deviates, the whole confidence goes into one bound on the share that
went unseen, 1 - (1 - confidence)^(1/n), and a deviation may be as large as the outcome allows ("rule of three"; Hanley
and Lippman-Hand, JAMA 249, 1983).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from analyses.inference.design import Design

RARE = 50
"""Below so many deviating things the exact bounds are used.

A percentile interval treats the distribution of rare counts as if it did not widen with their mean: with 10 to 20
losses, a nominal 5 % test of equivalence errs in up to 7.7 % of samples, from 50 on in at most 6.1 %.
"""
FEW = 10
"""Below so many differing things a p-value is at least that of the sign test."""

_DECIMALS = 12
"""Outcomes that agree to so many decimals are the same: a mean over seeds is not exact in floating point."""


@dataclass(frozen=True)
class FewDeviations:
    """A mean over things, all but a few of which have the same outcome."""

    base: float
    """The commonest outcome."""
    count: int
    """Number of independent things."""
    rises: int
    """How many lie above the base."""
    falls: int
    """How many lie below it."""
    rise: float
    """What those above add to the mean."""
    fall: float
    """What those below take from the mean."""
    size_of_rises: float
    """Typical deviation upwards, in units of the mean (a large group deviates by more than 1)."""
    size_of_falls: float
    """The same downwards."""
    largest_rise: float
    """Largest possible deviation upwards: what an image that went unseen may do."""
    largest_fall: float
    """The same downwards."""
    alike: bool
    """Whether all deviations are of one size, so that counting their directions tests the mean."""
    lowest: float
    """Smallest possible mean."""
    highest: float
    """Largest possible mean."""

    @classmethod
    def find(
        cls,
        numerators: npt.NDArray[np.float64],
        denominators: npt.NDArray[np.float64],
        design: Design,
        lowest: float,
        highest: float,
    ) -> FewDeviations | None:
        """Describe sum(numerators) / sum(denominators), (unit,) each; None where `RARE` or more things deviate.

        Every unit's quotient must lie between `lowest` and `highest`. Pairs hang together through their images, so that
        no binomial holds for those that deviate: they are described only where none does, by the number of pairs that
        share nothing.
        """
        amounts, sizes = numerators, denominators
        if design.second is None:
            amounts = np.bincount(design.first, weights=numerators, minlength=design.drawn).astype(np.float64)
            sizes = np.bincount(design.first, weights=denominators, minlength=design.drawn).astype(np.float64)
        counted = sizes > 0
        amounts, sizes = amounts[counted], sizes[counted]
        if len(sizes) == 0:
            return None
        rates = np.round(amounts / sizes, _DECIMALS)
        base = _commonest(rates)
        deviations = np.where(rates == base, 0.0, (rates - base) * sizes / sizes.mean())
        deviating = int(np.count_nonzero(deviations))
        if deviating >= (RARE if design.second is None else 1):
            return None
        typical = float(np.sqrt((deviations**2).sum() / deviating)) if deviating else None
        factor = float(sizes.max() / sizes.mean())
        return cls(
            base=base,
            count=len(sizes) if design.second is None else design.independent,
            rises=int((deviations > 0).sum()),
            falls=int((deviations < 0).sum()),
            rise=float(deviations.clip(min=0).mean()),
            fall=float(-deviations.clip(max=0).mean()),
            size_of_rises=(highest - base) * factor if typical is None else typical,
            size_of_falls=(base - lowest) * factor if typical is None else typical,
            largest_rise=(highest - base) * factor,
            largest_fall=(base - lowest) * factor,
            alike=deviating == 0 or bool(np.ptp(np.abs(deviations[deviations != 0])) < 10.0**-_DECIMALS),
            lowest=lowest,
            highest=highest,
        )

    def interval(self, confidence: float) -> tuple[float, float]:
        """Confidence interval of the mean."""
        mean = self._mean
        # Small deviations (an image lost in one seed of ten) say nothing about larger ones that went unseen.
        unseen = 1 - (1 - confidence) ** (1 / self.count)
        low, high = mean - unseen * self.largest_fall, mean + unseen * self.largest_rise
        if self.rises or self.falls:
            least_rise, most_rise = self._limits(self.rises, self.rise, self.size_of_rises, confidence)
            least_fall, most_fall = self._limits(self.falls, self.fall, self.size_of_falls, confidence)
            low = min(low, mean - float(np.hypot(self.rise - least_rise, most_fall - self.fall)))
            high = max(high, mean + float(np.hypot(most_rise - self.rise, self.fall - least_fall)))
        return max(low, self.lowest), min(high, self.highest)

    def p_at_least(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the mean is `bound` or more."""
        seen = _binomial_tail(self.rises, self.count, bound - self.base + self.fall, self.size_of_rises)
        return max(seen, _binomial_tail(0, self.count, bound - self._mean, self.largest_rise))

    def p_at_most(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the mean is `bound` or less."""
        seen = _binomial_tail(self.falls, self.count, self.base - bound + self.rise, self.size_of_falls)
        return max(seen, _binomial_tail(0, self.count, self._mean - bound, self.largest_fall))

    @property
    def _mean(self) -> float:
        return self.base + self.rise - self.fall

    @property
    def p_sign(self) -> float:
        """Two-sided sign test of no change, for means that are differences; 0 where too many deviate for it.

        These are `FEW` and more if their sizes differ, since directions then say less about the mean. Deviations of one
        size are tested up to `RARE`, as far as the interval is the exact one, so that both say the same.

        Things at the base count for its side of 0. Those that deviate count for the side to which they deviate: their
        own where the base is 0, and else the cautious choice.
        """
        if self.rises + self.falls >= FEW and not self.alike:
            return 0.0
        same = self.count - self.rises - self.falls
        up, down = self.rises + same * (self.base > 0), self.falls + same * (self.base < 0)
        return float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0

    def _limits(self, seen: int, mean: float, size: float, confidence: float) -> tuple[float, float]:
        """Bounds of E[rise] or E[fall]; `seen` things deviate so, by `mean` over all things."""
        tail = (1 - confidence) / 2
        least = stats.beta.ppf(tail, seen, self.count - seen + 1) if seen else 0.0
        most = stats.beta.ppf(1 - tail, seen + 1, self.count - seen) if seen < self.count else 1.0
        share = seen / self.count
        return max(0.0, mean - float(share - least) * size), mean + float(most - share) * size


def _commonest(rates: npt.NDArray[np.float64]) -> float:
    """The commonest value, and of several the one next to 0."""
    values, occurrences = np.unique(rates, return_counts=True)
    common = values[occurrences == occurrences.max()]
    return float(common[np.argmin(np.abs(common))])


def _binomial_tail(seen: int, count: int, mean: float, size: float) -> float:
    """Probability of seeing so few deviations or fewer if they amounted to this mean."""
    if mean <= 0:
        return 1.0
    return float(stats.binom.cdf(seen, count, min(1.0, mean / size))) if size > 0 else 0.0
