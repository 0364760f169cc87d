"""Mean, variance and covariance of rows that arrive in chunks, without ever holding all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chunk:
    """Moments of some rows, about their own mean."""

    count: int
    """Number of rows."""
    mean: NDArray[np.float64]
    """Mean, (channel,)."""
    scatter: NDArray[np.float64]
    """Sum of squared deviations from it, (channel,); sums of products, (channel, channel), for covariances."""

    @classmethod
    def of(cls, rows: NDArray[np.floating], *, covariance: bool = False) -> Chunk:
        """Moments of rows (row, channel), at least one."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred if covariance else np.einsum("rc,rc->c", centred, centred))


class Moments:
    """Running first and second moments in float64, merged chunk by chunk.

    Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", COMPSTAT
    1982): each chunk is centred on its own mean, and what two means differ by is added, so that large means (registers
    have some) cost no precision, as they would in sums of squares.
    """

    def __init__(self, channels: int, *, covariance: bool = False) -> None:
        """Start empty, for rows of this many channels."""
        self.count = 0
        """Number of rows so far."""
        self.mean: NDArray[np.float64] = np.zeros(channels)
        """Mean of the rows so far, (channel,)."""
        self._scatter: NDArray[np.float64] = np.zeros((channels, channels) if covariance else channels)

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in rows (row, channel)."""
        if len(rows):
            self.merge(Chunk.of(rows, covariance=self._scatter.ndim == 2))

    def merge(self, chunk: Chunk) -> None:
        """Take in rows by their moments, which give what `add` gives of the rows, to the bit."""
        total = self.count + chunk.count
        step = chunk.mean - self.mean
        weight = self.count * chunk.count / total
        self._scatter += chunk.scatter + weight * (step**2 if self._scatter.ndim == 1 else np.outer(step, step))
        self.mean = self.mean + step * (chunk.count / total)
        self.count = total

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance with divisor n (ddof = 0), (channel,)."""
        scatter = self._scatter if self._scatter.ndim == 1 else np.diagonal(self._scatter)
        return np.asarray(scatter / self.count)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance with divisor n (ddof = 0), (channel, channel); only where it was asked for."""
        if self._scatter.ndim == 1:
            raise ValueError("covariances were not asked for: use Moments(channels, covariance=True)")
        return self._scatter / self.count
