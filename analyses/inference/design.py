"""Which things are drawn anew in a bootstrap, and the weights of units that follow from a draw.

Outcomes belong to units (images or pairs of images), but units that share something vary together: the frames of one
sequence, the pairs of one image. A bootstrap that draws units as if they were independent then gives intervals that are
too narrow, so the independent things are drawn instead, and a unit's weight is how often its things were drawn:

- **images**: each image by itself (Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7,
  1979).
- **groups of images**: whole sequences are drawn, and all images of a sequence get its weight (cluster bootstrap;
  Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
- **pairs**: the images are drawn, and a pair gets the product of the weights of its two images (Davezies,
  D'Haultfoeuille and Guyonvarch, "Empirical process results for exchangeable arrays", Annals of Statistics 49, 2021;
  for two separate sets, Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). It is right where
  images carry the variation, and errs to the wide side (by up to the square root of 3) where only pairs do.
- **pairs of images in groups**: the groups are drawn; a pair between two groups gets the product of their weights, a
  pair within one group that group's weight once, since a sequence drawn twice brings its inner pairs twice, not four
  times. A pair of an image with itself follows the same rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DatasetError

CHUNK_BYTES = 64 * 2**20
"""Bound on the weights that are held at once, unless one resample alone is larger."""


@dataclass(frozen=True)
class Design:
    """What is drawn, and which units hang on it; made by `Design.images` or `Design.pairs`."""

    units: int
    """Number of units that have outcomes."""
    image_count: int
    """Number of images that these units are, or that occur in these pairs."""
    drawn: int
    """Number of things that a resample draws from (and as many are drawn): images or groups."""
    first: npt.NDArray[np.int64]
    """What each unit hangs on, (unit,), index into the things drawn."""
    second: npt.NDArray[np.int64] | None = None
    """The other thing that each pair hangs on, (unit,); None where units are images."""
    grouped: bool = False
    """Whether groups of images are drawn rather than images."""

    @classmethod
    def images(cls, count: int, groups: npt.ArrayLike | Sequence[Any] | None = None) -> Design:
        """Units are images; they are drawn one by one, or by whole groups.

        Parameters
        ----------
        count
            Number of images.
        groups
            Group (sequence) of each image, (image,), of any type that sorts; None where images are independent.

        Raises
        ------
        DatasetError
            There are no images, or the groups are not one per image.
        """
        if count < 1:
            raise DatasetError(f"a bootstrap needs at least one image, found {count}; evaluate more images")
        if groups is None:
            return cls(count, count, count, np.arange(count))
        names, first = _indexed(groups, count, "images")
        return cls(count, count, names, first, grouped=True)

    @classmethod
    def pairs(
        cls, source: npt.ArrayLike, target: npt.ArrayLike, groups: npt.ArrayLike | Sequence[Any] | None = None
    ) -> Design:
        """Units are pairs of images; the images that occur in pairs are drawn, or whole groups of them.

        Parameters
        ----------
        source, target
            Position of each pair's two images, int (pair,).
        groups
            Group of each image, (image,), by position; None where images are independent.

        Raises
        ------
        DatasetError
            There are no pairs, source and target differ in length, or a position has no group.
        """
        ends = np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64)
        if ends[0].shape != ends[1].shape or ends[0].ndim != 1 or ends[0].size == 0:
            raise DatasetError(
                f"a bootstrap over pairs needs a source and a target for each of at least one pair, found "
                f"{ends[0].shape} sources and {ends[1].shape} targets; evaluate images that occur in pairs"
            )
        images, positions = np.unique(np.concatenate(ends), return_inverse=True)
        if groups is None:
            drawn, hangs = len(images), positions
        else:
            labels = np.asarray(groups)
            if images[0] < 0 or images[-1] >= len(labels):
                raise DatasetError(
                    f"pairs name images {images[0]} to {images[-1]}, but groups are given for {len(labels)} images; "
                    "give the group of every image, by position"
                )
            drawn, inverse = _indexed(labels[images], len(images), "images in pairs")
            hangs = inverse[positions]
        first, second = hangs[: len(ends[0])], hangs[len(ends[0]) :]
        return cls(len(first), len(images), drawn, first, second, grouped=groups is not None)

    @property
    def independent_units(self) -> bool:
        """Whether units are drawn one by one, so that tests for independent units apply."""
        return self.second is None and not self.grouped

    @property
    def independent(self) -> int:
        """Number of units that share nothing with each other: for pairs, of pairs without a common image or group.

        For pairs a greedy choice, at least half of the largest possible number.
        """
        if self.second is None:
            return self.drawn
        taken: set[int] = set()
        chosen = 0
        for one, other in zip(self.first.tolist(), self.second.tolist(), strict=True):
            if one not in taken and other not in taken:
                taken |= {one, other}
                chosen += 1
        return chosen

    def weights(self, resamples: int, seed: int, chunk: int | None = None) -> Iterator[npt.NDArray[np.float64]]:
        """Weights of the units in each resample, in chunks of float64 (resample, unit).

        Every resample has its own Philox stream, keyed by the seed and counted by the resample, so that the weights
        depend on neither the size of the chunks nor the number of resamples.

        Parameters
        ----------
        resamples
            Number of resamples in all.
        seed
            Any integer.
        chunk
            Resamples per chunk; None holds the chunks to `CHUNK_BYTES`.
        """
        rows = chunk or max(1, CHUNK_BYTES // (8 * max(self.units, self.drawn)))
        for start in range(0, resamples, rows):
            yield self._weigh(self._counts(range(start, min(start + rows, resamples)), seed))

    def _counts(self, resamples: range, seed: int) -> npt.NDArray[np.float64]:
        """How often each thing was drawn, (resample, thing): multinomial, as many draws as things."""
        key = np.frombuffer(blake2b(f"bootstrap|{seed}".encode(), digest_size=16).digest(), dtype="<u8")
        bits = np.random.Philox(key=key.astype(np.uint64), counter=0)
        stream = np.random.Generator(bits)
        fresh = bits.state  # nothing buffered; the running word of the counter is the first
        counts = np.empty((len(resamples), self.drawn))
        for row, resample in enumerate(resamples):
            fresh["state"]["counter"] = np.array([0, resample, 0, 0], dtype=np.uint64)
            bits.state = fresh
            # 32-bit draws take less than half the time of 64-bit ones, and no data set has 2^32 images.
            draws = stream.integers(0, self.drawn, size=self.drawn, dtype=np.uint32)
            counts[row] = np.bincount(draws, minlength=self.drawn)
        return counts

    def _weigh(self, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.second is None:
            return counts[:, self.first] if self.grouped else counts
        inner = self.first == self.second
        return counts[:, self.first] * np.where(inner, 1.0, counts[:, self.second])


def _indexed(groups: npt.ArrayLike | Sequence[Any], count: int, of: str) -> tuple[int, npt.NDArray[np.int64]]:
    """Number of groups, and the index of each member's group."""
    labels = np.asarray(groups)
    if labels.shape != (count,):
        raise DatasetError(f"groups must name one group for each of {count} {of}, found the shape {labels.shape}")
    names, inverse = np.unique(labels, return_inverse=True)
    return len(names), inverse.astype(np.int64)
