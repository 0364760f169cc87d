"""Count, means and scatter of all tokens of a store, in one pass and float64, for any chunking."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from analyses.blas_threads import one_blas_thread

Matrix = npt.NDArray[np.float64]

SLICE = 1024
"""Tokens that are converted to float64 at a time: enough for the speed of matrix products, and little memory."""

FAN = 2
"""Partial results that are merged at once: more would hold more matrices in memory."""


@dataclass(frozen=True)
class Moments:
    """What is left of two views of the same tokens once they are pooled over images and positions."""

    count: int
    """Number of tokens."""
    mean: Matrix
    """Mean of the first view, (channel,)."""
    other_mean: Matrix
    """Mean of the second view, (other channel,)."""
    scatter: Matrix
    """Sum of outer products of both views less their means, (channel, other channel)."""

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating], others: npt.NDArray[np.floating] | None = None) -> Moments:
        """Moments of an array (..., channel) with itself or with another one of the same tokens.

        Tokens that are not finite in one of them are left out.
        """
        rows = tokens.reshape(-1, tokens.shape[-1])
        columns = rows if others is None or others is tokens else others.reshape(-1, others.shape[-1])
        with one_blas_thread() if len(rows) > SLICE else nullcontext():
            return cls._of_rows(rows, columns)

    @classmethod
    def _of_rows(cls, rows: npt.NDArray[np.floating], columns: npt.NDArray[np.floating]) -> Moments:
        """Moments of (token, channel) and (token, other channel), slice by slice in the same memory."""
        count, shapes = 0, (rows.shape[1], columns.shape[1])
        shift, other_shift = (np.zeros(channels) for channels in shapes)
        total, other_total = (np.zeros(channels) for channels in shapes)
        scatter, product = np.zeros(shapes), np.empty(shapes)
        for start in range(0, len(rows), SLICE):
            first = rows[start : start + SLICE].astype(np.float64)
            second = first if columns is rows else columns[start : start + SLICE].astype(np.float64)
            sums, other_sums = _sums(first, second)
            # A sum is finite only if all its terms are, and is needed anyhow.
            if not (np.isfinite(sums).all() and np.isfinite(other_sums).all()):
                first, second = _finite(first, second)
                sums, other_sums = _sums(first, second)
            if len(first) == 0:
                continue
            if count == 0:
                # Near enough to the mean: sums of squares less squared sums would cancel where the mean is large.
                shift, other_shift = sums / len(first), other_sums / len(first)
            first -= shift
            if second is not first:
                second -= other_shift
            total += sums - len(first) * shift
            other_total += other_sums - len(first) * other_shift
            scatter += np.matmul(first.T, second, out=product)
            count += len(first)
        mean, other_mean = total / max(count, 1), other_total / max(count, 1)
        scatter -= np.multiply(mean[:, np.newaxis], count * other_mean, out=product)
        return cls(count, shift + mean, other_shift + other_mean, scatter)

    def merge(self, other: Moments) -> Moments:
        """Moments of both (Chan, Golub and LeVeque 1983, equation 2.1, for matrices)."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        shift, other_shift = other.mean - self.mean, other.other_mean - self.other_mean
        share = other.count / count
        scatter = self.scatter + other.scatter
        scatter += np.outer(shift, other_shift) * (self.count * share)
        return Moments(count, self.mean + shift * share, self.other_mean + other_shift * share, scatter)

    def covariance(self, *, centre: bool) -> Matrix:
        """Mean outer product of both views, less their means or not."""
        raw = self.scatter + (0 if centre else self.count * np.outer(self.mean, self.other_mean))
        return raw / max(self.count, 1)


def _sums(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Sums over tokens of both views, once where they are one."""
    with np.errstate(invalid="ignore"):
        sums: Matrix = first.sum(axis=0)
        return sums, sums if second is first else second.sum(axis=0)


def _finite(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """The tokens that are finite in both views; one array where both are."""
    finite = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    chosen = first[finite]
    return chosen, chosen if second is first else second[finite]


def pooled_moments(tokens: xr.DataArray) -> Any:
    """Moments of tokens (image, ..., channel) at one state, pooled over all but `channel`: a dask value.

    Each chunk is reduced before the next is needed: memory is a chunk per dask thread, and P as `analyses.analysis`
    states it.
    """
    return merged([delayed(Moments.of)(block) for block in blocks_of(tokens)])


def blocks_of(tokens: xr.DataArray) -> list[Any]:
    """The chunks (image, ..., channel) of tokens at one state, whole in all but `image`, as dask values."""
    whole = dict.fromkeys((name for name in tokens.dims if name != "image"), -1)
    blocks: list[Any] = tokens.transpose(..., "channel").chunk(whole).data.to_delayed().ravel().tolist()
    return blocks


def merged(parts: Sequence[Any]) -> Any:
    """Moments of all parts, which are dask values, merged as a tree."""
    left = list(parts)
    while len(left) > 1:
        left = [delayed(_merge_all)(left[first : first + FAN]) for first in range(0, len(left), FAN)]
    return left[0]


def _merge_all(parts: list[Moments]) -> Moments:
    return reduce(Moments.merge, parts)
