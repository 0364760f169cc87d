"""Running statistics of the tokens of one type, and the choice of its reference tokens: the parts of a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.moments import Chunk, Moments
from cachetool.randomness import random_order, uniforms
from cachetool.store import StoreSpec


@dataclass(frozen=True)
class Classes:
    """Classes of the calibration images."""

    by_image: NDArray[np.int64]
    """Label of every image of the cache, -1 where unknown."""
    classes: NDArray[np.int64]
    """The known classes of the calibration images, ascending."""
    counts: NDArray[np.int64]
    """Number of calibration images of each."""

    def arrays(self, spec: StoreSpec, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """The classes, named and shaped as in the artefact; `chosen` (image,) are the calibration images."""
        own = self.by_image[chosen]
        found = {"label": own, "class": self.classes, "class_count": self.counts}
        if spec.images.class_name is not None:
            first = chosen[[int(np.flatnonzero(own == label)[0]) for label in self.classes]]
            found["class_name"] = np.array([spec.images.class_name[image] for image in first], dtype=object)
        return found


@dataclass(frozen=True)
class ReferenceRows:
    """Reference tokens of one token type: which image and, for patches, which patch."""

    image: NDArray[np.int64]
    token: NDArray[np.int64]
    """Index of the patch; -1 where every slot of the image gives its own token."""
    fit: NDArray[np.bool_]
    """Whether the row is in the half for fitting; no image is in both halves."""


@dataclass(frozen=True)
class Summary:
    """What statistics take in of the tokens of some images at one state."""

    chunks: tuple[Chunk, ...]
    """Moments of each slot."""
    classes: NDArray[np.int64]
    """Positions, among the known classes, of those of the images, (class,)."""
    class_sums: NDArray[np.float64]
    """Sums over the images of each, (class, slot, channel)."""
    rows: NDArray[np.int64]
    """Which reference tokens are of these images, (row,)."""
    reference: NDArray[np.float32]
    """These tokens, (slot, row, channel)."""


class TokenStatistics:
    """Running sums of one token type over all its states."""

    def __init__(
        self,
        spec: StoreSpec,
        token_type: str,
        layers: int,
        covariance: bool,
        labels: Classes | None,
        rows: ReferenceRows | None,
    ) -> None:
        self.token_type = token_type
        self._pooled = token_type == "patches"
        self._slots = spec.layout.registers if token_type == "registers" else 1
        self._covariance = covariance
        self._moments = [
            [Moments(spec.channels, covariance=covariance) for _ in range(self._slots)] for _ in range(layers)
        ]
        self._labels = labels
        if labels is not None:
            self._class_sums = np.zeros((layers, len(labels.classes), self._slots, spec.channels))
        self._rows = rows
        if rows is not None:
            self._reference = np.empty((layers, self._slots, len(rows.image), spec.channels), dtype=np.float32)

    def summarize(self, tokens: NDArray[np.float32], images: NDArray[np.int64]) -> Summary:
        """What `add` needs of the tokens (image, token, channel) of some images at one state; nothing is taken in."""
        channels = tokens.shape[2]
        slots = [tokens.reshape(-1, channels)] if self._pooled else [tokens[:, slot] for slot in range(self._slots)]
        chunks = tuple(Chunk.of(rows, covariance=self._covariance) for rows in slots)
        classes = np.empty(0, dtype=np.int64)
        class_sums = np.empty((0, self._slots, channels))
        if self._labels is not None:
            per_image = tokens.mean(axis=1, keepdims=True, dtype=np.float64) if self._pooled else tokens
            own = self._labels.by_image[images]
            order = np.argsort(own, kind="stable")
            order = order[own[order] >= 0]
            present, starts = np.unique(own[order], return_index=True)
            if len(present):
                classes = np.searchsorted(self._labels.classes, present)
                class_sums = np.add.reduceat(per_image[order], starts, axis=0, dtype=np.float64)
        wanted = np.empty(0, dtype=np.int64)
        reference = np.empty((self._slots, 0, channels), dtype=np.float32)
        if self._rows is not None:
            wanted = np.flatnonzero(np.isin(self._rows.image, images))
            row = np.searchsorted(images, self._rows.image[wanted])
            reference = tokens[row, self._rows.token[wanted]][None] if self._pooled else tokens[row].swapaxes(0, 1)
        return Summary(chunks, classes, class_sums, wanted, reference)

    def add(self, layer: int, summary: Summary) -> None:
        """Take in some images at one state, given by its position."""
        for moments, chunk in zip(self._moments[layer], summary.chunks, strict=True):
            moments.merge(chunk)
        if self._labels is not None and len(summary.classes):
            self._class_sums[layer, summary.classes] += summary.class_sums
        if self._rows is not None:
            self._reference[layer][:, summary.rows] = summary.reference

    def arrays(self, spec: StoreSpec) -> dict[str, Any]:
        """The statistics, named and shaped as in the artefact."""
        name = self.token_type
        found: dict[str, Any] = {
            f"{name}_count": np.array(self._moments[0][0].count, dtype=np.int64),
            f"{name}_mean": self._stack([[moments.mean for moments in slots] for slots in self._moments]),
            f"{name}_variance": self._stack([[moments.variance for moments in slots] for slots in self._moments]),
        }
        if self._covariance:
            found[f"{name}_covariance"] = self._stack(
                [[moments.covariance for moments in slots] for slots in self._moments]
            )
        if self._labels is not None:
            means = (self._class_sums / self._labels.counts[:, None, None]).astype(np.float32)
            found[f"{name}_class_mean"] = means if name == "registers" else means[:, :, 0]
        if self._rows is not None:
            found |= {
                f"{name}_reference": self._stack(self._reference),
                f"{name}_reference_image": np.array(
                    [spec.images.image_id[image] for image in self._rows.image], dtype=object
                ),
                f"{name}_reference_token": self._rows.token,
                f"{name}_reference_fit": self._rows.fit,
            }
        return found

    def _stack(self, per_slot: Any) -> NDArray[Any]:
        """(layer, slot, ...) as it is for registers, (layer, ...) for the types of a single slot."""
        stacked = np.asarray(per_slot)
        return stacked if self.token_type == "registers" else stacked[:, 0]


def find_classes(spec: StoreSpec, chosen: NDArray[np.int64]) -> Classes | None:
    """Classes of the images, or None where no label is known."""
    if spec.images.label is None:
        return None
    by_image = np.asarray(spec.images.label, dtype=np.int64)
    known = by_image[chosen]
    classes, counts = np.unique(known[known >= 0], return_counts=True)
    return Classes(by_image, classes, counts) if len(classes) else None


def choose_reference(
    spec: StoreSpec, token_type: str, chosen: NDArray[np.int64], count: int, seed: int
) -> ReferenceRows | None:
    """Draw reference tokens: one per image, in random order; of patches, a random one of each image, or several.

    Every other image of the order is in the half for fitting, so that no image is in both.
    """
    if count <= 0:
        return None
    image_ids = [spec.images.image_id[image] for image in chosen]
    order = random_order(seed, image_ids, None, "reference")[:count]
    fit = np.arange(len(order)) % 2 == 0
    if token_type != "patches":
        return ReferenceRows(chosen[order], np.full(len(order), -1, dtype=np.int64), fit)
    per_image = min(-(-count // len(order)), spec.layout.patches)
    drawn = uniforms(seed, [image_ids[row] for row in order], None, spec.layout.patches, "reference-patches")
    patch = drawn.argsort(axis=1, kind="stable")[:, :per_image]
    image = np.repeat(chosen[order][None], per_image, axis=0)
    return ReferenceRows(image.ravel()[:count], patch.T.ravel()[:count], np.tile(fit, per_image)[:count])
