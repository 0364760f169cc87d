"""The calibration: what natural tokens look like at each state, as a small versioned artefact of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachetool.edits import calibration_store
from cachetool.edits.grammar import listed
from cachetool.errors import InvalidEditError, KeyMismatchError
from cachetool.objects import AnyPlace, place
from cachetool.store.key import differences, key_digest
from cachetool.tokens import TOKEN_TYPES

FRAMING = ("crop", "crop_fraction", "exif")
"""Parts of a transform that the kind of data set decides: how images are framed and turned, not what a pixel is."""


@dataclass(frozen=True)
class Reference:
    """Natural tokens of one kind at one state, in two halves that share no image: what the meter measures against."""

    fit: NDArray[np.float32]
    """Tokens that distributions are fitted on and neighbours are searched in, (fit row, channel)."""
    held_out: NDArray[np.float32]
    """Tokens that injected ones are ranked among, (held-out row, channel)."""
    fit_image: NDArray[np.object_]
    """Id of the image of each fit row."""


class Calibration:
    """Mean and variance of the tokens of a list of images, per state and per kind of token.

    A kind is [CLS], each single register, or the patches of all positions together; a token type has one slot per kind:
    one for `cls`, one per register for `registers`, one for `patches`. Variances and covariances have divisor n
    (ddof = 0). Optional parts: covariance, means per class, and reference tokens for the off-distribution meter.
    """

    def __init__(self, arrays: Mapping[str, Any], key: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Hold `arrays` (NumPy, or Zarr arrays that are read layer by layer), named as in the artefact."""
        self._arrays = arrays
        self.key = dict(key)
        """The key of the cache that the calibration was computed from."""
        self.facts = dict(facts)
        """What is recorded beside the key."""
        self._at_layer: dict[tuple[str, int], NDArray[Any]] = {}

    @classmethod
    def read(cls, path: AnyPlace) -> Calibration:
        """Open the artefact at `path`; large parts are read when they are asked for.

        Raises `MissingDataError` where there is none, `StoreError` for what is no calibration of this format.
        """
        return cls(*calibration_store.read(place(path)))

    def write(self, path: AnyPlace) -> None:
        """Write the artefact, in one step that either happens or does not.

        Raises `StoreError` where something is there already, or the disk refuses.
        """
        calibration_store.write(place(path), self._arrays, self.key, self.facts)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The calibrated states, ascending."""
        return tuple(int(layer) for layer in self._whole("layer"))

    @cached_property
    def token_types(self) -> tuple[str, ...]:
        """The calibrated token types."""
        return tuple(name for name in TOKEN_TYPES if f"{name}_mean" in self._arrays)

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """Ids of the images, in the order of their cache; unreadable ones are left out."""
        return tuple(str(name) for name in self._whole("image_id"))

    @cached_property
    def sha256(self) -> tuple[str, ...]:
        """SHA-256 of the images' bytes."""
        return tuple(str(digest) for digest in self._whole("content_sha256"))

    @cached_property
    def digest(self) -> str:
        """What the statistics depend on, digested: the cache's key, and content and class of each image."""
        labels = self._whole("label").tolist() if "label" in self._arrays else None
        return key_digest({"cache": self.key, "images": list(self.sha256), "labels": labels})

    @cached_property
    def content_sha256(self) -> str:
        """Digest of its numbers: what it was written with, else of what it holds."""
        return str(self.facts.get(calibration_store.CONTENT) or self.recompute_content())

    def recompute_content(self) -> str:
        """Digest of its numbers as they are read now. Raises `DamagedError` where they cannot be read."""
        return calibration_store.content_sha256(self._arrays)

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Classes with at least one image, ascending, int64 (class,); empty where there are no labels."""
        return self._whole("class") if "class" in self._arrays else np.empty(0, dtype=np.int64)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Names of the classes, where known."""
        if "class_name" not in self._arrays:
            return {}
        return dict(zip(self.classes.tolist(), map(str, self._whole("class_name")), strict=True))

    def has_reference(self, layer: int, token_type: str) -> bool:
        """Whether it holds reference tokens of this type at this state."""
        return layer in self.layers and f"{token_type}_reference" in self._arrays

    def count(self, token_type: str) -> int:
        """Number of tokens that each statistic of a type is over: images, times patches for `patches`."""
        self._require((token_type,), ())
        return int(self._whole(f"{token_type}_count"))

    def slots(self, token_type: str, token: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slot of each token, given its index within its type, int64 (pair,)."""
        return token if token_type == "registers" else np.zeros_like(token)

    def mean(self, layer: int, token_type: str) -> NDArray[np.float64]:
        """Means, float64 (slot, channel)."""
        return self._slots_at(f"{token_type}_mean", layer, token_type, 1)

    def variance(self, layer: int, token_type: str) -> NDArray[np.float64]:
        """Variances with divisor n, float64 (slot, channel)."""
        return self._slots_at(f"{token_type}_variance", layer, token_type, 1)

    def covariance(self, layer: int, token_type: str) -> NDArray[np.float64]:
        """Covariances with divisor n, float64 (slot, channel, channel)."""
        return self._slots_at(f"{token_type}_covariance", layer, token_type, 2)

    def class_mean(self, layer: int, token_type: str) -> NDArray[np.float32]:
        """Means over the images of each class, float32 (class, slot, channel), in the order of `classes`."""
        return self._slots_at(f"{token_type}_class_mean", layer, token_type, 1)

    def reference(self, layer: int, token_type: str, slot: int) -> Reference:
        """Natural tokens of one slot at one state."""
        tokens = self._slots_at(f"{token_type}_reference", layer, token_type, 2)[slot]
        fit = self._whole(f"{token_type}_reference_fit")
        return Reference(tokens[fit], tokens[~fit], self._whole(f"{token_type}_reference_image")[fit].astype(object))

    def check_covers(self, token_type: str, layers: Iterable[int]) -> None:
        """Raise `InvalidEditError` naming the token type or states that were not calibrated."""
        self._require((token_type,), layers)

    def check_classes(self, labels: NDArray[np.int64]) -> None:
        """Raise `InvalidEditError` naming the classes that the calibration has no image of."""
        absent = np.setdiff1d(labels, self.classes)
        if len(absent):
            raise InvalidEditError(
                f"class means are needed for {len(np.unique(labels))} classes, but the calibration has no image of "
                f"class {listed(absent)}; calibrate on images of all classes, or leave these images out"
            )

    def check_matches(self, cache_key: Mapping[str, Any]) -> None:
        """Raise `KeyMismatchError` where the calibration describes tokens of another kind than those of a cache.

        Architecture, weights, input size, normalisation, interpolation and dtype must agree. The data set may be
        another, and so may what comes with it: its crop (classification sets are cropped, segmentation sets are not)
        and whether EXIF orientation is applied.
        """
        different = differences(_comparable(self.key), _comparable(cache_key))
        if different:
            raise KeyMismatchError(
                "the calibration ('here') is of another model or transform than the cache ('there'): "
                f"{'; '.join(different)}; calibrate on a cache of the same model and transform"
            )

    def overlap(self, image_ids: Sequence[str], sha256: Sequence[str]) -> list[str]:
        """Ids of those of the given images that are calibration images too, matched by the SHA-256 of their bytes."""
        calibrated = set(self.sha256)
        return [image_id for image_id, digest in zip(image_ids, sha256, strict=True) if digest in calibrated]

    def _require(self, token_types: Iterable[str], layers: Iterable[int]) -> None:
        absent_types = [name for name in token_types if name not in self.token_types]
        absent_layers = [layer for layer in layers if layer not in self.layers]
        absent = [f"token type {listed(absent_types)}"] if absent_types else []
        absent += [f"state {listed(absent_layers)}"] if absent_layers else []
        if absent:
            raise InvalidEditError(
                f"the calibration lacks {' and '.join(absent)}: it covers states {listed(self.layers)} of "
                f"{', '.join(self.token_types)}; calibrate on a cache that holds them"
            )

    def _whole(self, name: str) -> NDArray[Any]:
        return np.asarray(self._arrays[name][...])

    def _slots_at(self, name: str, layer: int, token_type: str, trailing: int) -> NDArray[Any]:
        """One array at one state, with a slot dimension before the last `trailing` dimensions."""
        self._require((token_type,), (layer,))
        if name not in self._arrays:
            part = name.removeprefix(f"{token_type}_").replace("_", " ")
            raise InvalidEditError(
                f"the calibration holds no {part} of {token_type}; calibrate again and ask for it "
                "(class means need labels)"
            )
        if (name, layer) not in self._at_layer:
            found = np.asarray(self._arrays[name][self.layers.index(layer)])
            self._at_layer[name, layer] = found if token_type == "registers" else np.expand_dims(found, -1 - trailing)
        return self._at_layer[name, layer]


def _comparable(key: Mapping[str, Any]) -> dict[str, Any]:
    """A cache's key without its data set and what comes with that."""
    kept = {name: part for name, part in key.items() if name != "dataset"}
    if isinstance(kept.get("transform"), Mapping):
        kept["transform"] = {name: part for name, part in kept["transform"].items() if name not in FRAMING}
    return kept
