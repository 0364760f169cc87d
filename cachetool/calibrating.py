"""Compute a calibration: mean, variance and more of stored tokens, in one streaming pass over a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.calibration import Calibration
from cachetool.edits.grammar import listed
from cachetool.edits.statistics import Summary, TokenStatistics, choose_reference, find_classes
from cachetool.errors import IncompleteError, InvalidEditError
from cachetool.events import Events, Silent
from cachetool.store import StoreSpec, to_float32
from cachetool.tokens import TOKEN_TYPES

DEFAULT_REFERENCE_TOKENS = 1000
"""Natural tokens that are kept per slot and state for the off-distribution meter."""


class TokenReader(Protocol):
    """What is read from a cache; `cachetool.store.StoreReader` fits."""

    @property
    def spec(self) -> StoreSpec:
        """What the cache says about itself."""

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each image could be decoded, bool (image,)."""

    def coverage(self, token_type: str, images: NDArray[np.integer[Any]] | None = None) -> tuple[int, ...]:
        """States of a token type that are finished for all images, or for some, given by position."""

    def read(self, token_type: str, layer: int, start: int, stop: int) -> NDArray[Any]:
        """Tokens of images start to stop, (image, token, channel), in the storage dtype."""


@dataclass(frozen=True)
class Scope:
    """What a calibration is computed of; small, so that it travels to other processes."""

    layers: tuple[int, ...]
    """States, ascending."""
    token_types: tuple[str, ...]
    """Token types, in storage order."""
    images: NDArray[np.int64]
    """The calibration images, (image,), ascending."""
    covariance: bool
    """Whether covariances are computed."""
    class_means: bool
    """Whether means per class are, where images have labels."""
    reference_tokens: int
    """Natural tokens kept per state and slot."""
    seed: int
    """Seed of their choice."""

    def statistics(self, spec: StoreSpec) -> list[TokenStatistics]:
        """Empty statistics of each token type of a cache."""
        labels = find_classes(spec, self.images) if self.class_means else None
        return [
            TokenStatistics(
                spec,
                token_type,
                len(self.layers),
                self.covariance,
                labels,
                choose_reference(spec, token_type, self.images, self.reference_tokens, self.seed),
            )
            for token_type in self.token_types
        ]

    def inside(self, spec: StoreSpec, block: int) -> NDArray[np.int64]:
        """The calibration images of a block."""
        images = spec.geometry.block_range(block)
        return self.images[(self.images >= images.start) & (self.images < images.stop)]


Summaries = list[list[Summary]]
"""Of one block, by token type and state."""

Summarize = Callable[[TokenReader, Scope, Sequence[TokenStatistics], Sequence[int]], Iterator[Summaries]]
"""What summarizes blocks, in their order: this process, or others."""


def summarize_here(
    reader: TokenReader, scope: Scope, statistics: Sequence[TokenStatistics], blocks: Sequence[int]
) -> Iterator[Summaries]:
    """Summarize blocks in this process."""
    spec = reader.spec
    for block in blocks:
        images, inside = spec.geometry.block_range(block), scope.inside(spec, block)
        found: Summaries = []
        for kind in statistics:
            found.append([])
            for layer in scope.layers:
                stored = reader.read(kind.token_type, layer, images.start, images.stop)
                if len(inside) < len(images):
                    stored = stored[inside - images.start]
                found[-1].append(kind.summarize(to_float32(stored, spec.dtype), inside))
        yield found


def calibrate(
    reader: TokenReader,
    *,
    layers: Sequence[int] | None = None,
    token_types: Sequence[str] | None = None,
    images: Sequence[int] | None = None,
    covariance: bool = False,
    class_means: bool = True,
    reference_tokens: int = DEFAULT_REFERENCE_TOKENS,
    seed: int = 0,
    events: Events | None = None,
    summarize: Summarize = summarize_here,
) -> Calibration:
    """Compute the statistics of the tokens of a cache, in float64, one block of images at a time.

    Parameters
    ----------
    reader
        The cache.
    layers
        States; by default those that are finished for all token types asked for.
    token_types
        By default all that the cache holds.
    images
        Indices of the calibration images; by default all. Images that could not be read are left out.
    covariance
        Compute covariances too: channels x channels numbers per state and slot.
    class_means
        Compute means per class, where images have labels.
    reference_tokens
        Natural tokens kept per state and slot for the off-distribution meter; 0 for none. Those of every other image
        are for fitting, the rest are held out.
    seed
        Seed of the choice of reference tokens.
    events
        Told of progress, in images.
    summarize
        What reads and summarizes blocks: this process, unless `cachetool.distributing` gives others.

    Raises
    ------
    IncompleteError
        The cache does not hold the states asked for.
    InvalidEditError
        No image is left, or an image or token type does not exist.
    """
    spec, told = reader.spec, events or Silent()
    types = _token_types(spec, token_types)
    chosen = _images(reader, images)
    covered = _layers(reader, types, layers, chosen)
    scope = Scope(covered, types, chosen, covariance, class_means, reference_tokens, seed)
    kinds = scope.statistics(spec)
    told.start("calibrate", len(chosen))
    blocks = [block for block in range(spec.geometry.blocks) if len(scope.inside(spec, block))]
    for block, summaries in zip(blocks, summarize(reader, scope, kinds, blocks), strict=True):
        for kind, states in zip(kinds, summaries, strict=True):
            for index, summary in enumerate(states):
                kind.add(index, summary)
        told.advance(len(scope.inside(spec, block)))

    arrays: dict[str, Any] = {
        "layer": np.array(covered, dtype=np.int64),
        "image_id": np.array([spec.images.image_id[image] for image in chosen], dtype=object),
        "content_sha256": np.array([spec.images.sha256[image] for image in chosen], dtype=object),
    }
    if class_means and (labels := find_classes(spec, chosen)) is not None:
        arrays |= labels.arrays(spec, chosen)
    for kind in kinds:
        arrays |= kind.arrays(spec)
    return Calibration(arrays, spec.key, {"reference_seed": seed, "images": len(chosen)})


def _token_types(spec: StoreSpec, wanted: Sequence[str] | None) -> tuple[str, ...]:
    held = tuple(name for name in TOKEN_TYPES if name in spec.token_types)
    absent = [name for name in wanted or () if name not in held]
    if absent:
        raise InvalidEditError(f"the cache holds {', '.join(held)}; it cannot be calibrated for {listed(absent)}")
    return held if wanted is None else tuple(name for name in held if name in wanted)


def _layers(
    reader: TokenReader, types: Sequence[str], wanted: Sequence[int] | None, images: NDArray[np.int64]
) -> tuple[int, ...]:
    coverage = {token_type: set(reader.coverage(token_type, images)) for token_type in types}
    common = set(reader.spec.layers).intersection(*coverage.values())
    if wanted is None:
        if not common:
            raise IncompleteError(f"no state is finished for all of {', '.join(types)}; extract at least one")
        return tuple(sorted(common))
    absent = [
        f"{token_type} at state {listed(lacking)}"
        for token_type in types
        if (lacking := sorted(set(wanted) - coverage[token_type]))
    ]
    if absent:
        raise IncompleteError(
            f"a calibration of states {listed(sorted(set(wanted)))} needs them finished for all of its images, but the "
            f"cache lacks {'; '.join(absent)}; extract them first"
        )
    return tuple(sorted(set(wanted)))


def _images(reader: TokenReader, wanted: Sequence[int] | None) -> NDArray[np.int64]:
    count = len(reader.spec.images)
    chosen = np.arange(count) if wanted is None else np.unique(np.asarray(wanted, dtype=np.int64))
    beyond = chosen[(chosen < 0) | (chosen >= count)]
    if len(beyond):
        raise InvalidEditError(f"images are counted from 0 to {count - 1}; there is no image {listed(beyond)}")
    chosen = chosen[reader.readable[chosen]]
    if len(chosen) == 0:
        raise InvalidEditError("a calibration needs at least one readable image, and there is none among those chosen")
    return chosen
