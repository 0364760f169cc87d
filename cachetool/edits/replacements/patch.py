"""`patch`: the token of one named image, or of the same image in a second cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.grammar import listed
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources
from cachetool.errors import IncompleteError, InvalidEditError, MissingDataError
from cachetool.objects import place

SAME = "same"
"""Stands for the image of the same id, in a second cache: clean and corrupted pairs."""


class Patch(Replacement):
    """Puts in the token, of the same type and index, of one named donor image.

    `patch:IMAGE` takes it from this cache, `patch:IMAGE@CACHE.zarr` from another, `patch:same@CACHE.zarr` takes each
    image's own token from another cache. The cache is what follows the last @, if that ends in `.zarr`.
    """

    name = "patch"
    description = "the token of one named image, or of the same image in a second cache (clean and corrupted pairs)"
    usage = "patch:IMAGE[@CACHE.zarr] or patch:same@CACHE.zarr"

    def __init__(self, image_id: str, cache: str | None) -> None:
        """Take tokens of `image_id` (or "same") from `cache`, a path, or from the replayed cache itself."""
        self.image_id = image_id
        self.cache = cache
        self.argument = image_id if cache is None else f"{image_id}@{cache}"
        self.needs = frozenset({"stored-states"}) if cache is None else frozenset()
        self._rows: tuple[Sources, NDArray[np.int64]] | None = None

    @classmethod
    def parse(cls, argument: str | None) -> Self:
        """Read IMAGE[@CACHE.zarr]."""
        image_id, separator, cache = (argument or "").rpartition("@")
        named = bool(separator) and cache.rstrip("/").endswith(".zarr")
        if not named:
            image_id, cache = argument or "", ""
        if not image_id:
            raise InvalidEditError(f"'patch' needs the id of the donor image; write {cls.usage}")
        if image_id == SAME and not named:
            raise InvalidEditError(
                "'patch:same' alone puts each token in its own place; name a second cache: patch:same@CACHE.zarr"
            )
        return cls(image_id, cache if named else None)

    def check_early(self, image_ids: Sequence[str]) -> None:
        """Refuse a second cache that is absent, and a donor that is not among the edited images."""
        if self.cache is not None and not (place(self.cache) / "zarr.json").is_file():
            raise MissingDataError(f"{str(self)!r} needs the cache {self.cache!r}, but there is none")
        if self.cache is None and self.image_id not in image_ids:
            raise MissingDataError(f"{str(self)!r} needs an image that is not among the edited ones")

    def check(self, sources: Sources, edit: Edit) -> None:
        """Refuse images that the donor cache lacks, and a donor cache of another shape or without the edited states."""
        donor = self._donor(sources)
        here, there = (sources.layout, sources.channels, sources.depth), (donor.layout, donor.channels, donor.depth)
        if here != there:
            raise InvalidEditError(
                f"the cache {self.cache!r} must hold states of the same shape: layout, channels and depth are "
                f"{there} there, {here} here"
            )
        rows = self._donor_rows(sources)
        if self.cache is not None:
            self._check_states(donor, edit, rows[rows >= 0][:1])

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """Digest of the second cache's key and images."""
        return {} if self.cache is None else {"patch_cache": self._donor(sources).key_digest}

    def donors(self, sources: Sources, edit: Edit, layer: int) -> NDArray[np.int64] | None:
        """The donor for every image, int64 (image,), where it is an image of this cache."""
        return self._donor_rows(sources) if self.cache is None else None

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """The donor's tokens, float32 (pair, channel)."""
        rows = self._donor_rows(sources)[images]
        return self._donor(sources).tokens(layer, selection.token_type, rows, selection.token)

    def _check_states(self, donor: Sources, edit: Edit, row: NDArray[np.int64]) -> None:
        """Read one token of each edited state from the second cache."""
        token_type, absent = edit.parsed_target().token_type, []
        for layer in edit.edited_layers(donor.depth):
            try:
                donor.tokens(layer, token_type, row, np.zeros_like(row))
            except IncompleteError:
                absent.append(layer)
        if absent:
            raise IncompleteError(
                f"{str(self)!r} needs {token_type} at the edited states, but the cache {self.cache!r} lacks state "
                f"{listed(absent)}; extract them there, or end the edit earlier"
            )

    def _donor(self, sources: Sources) -> Sources:
        return sources if self.cache is None else sources.other(self.cache)

    def _donor_rows(self, sources: Sources) -> NDArray[np.int64]:
        """Index in the donor cache of each image's donor, int64 (image,), -1 for images that receive nothing."""
        if self._rows is None or self._rows[0] is not sources:
            self._rows = (sources, self._find_rows(sources))
        return self._rows[1]

    def _find_rows(self, sources: Sources) -> NDArray[np.int64]:
        donor = self._donor(sources)
        index = {image_id: row for row, image_id in enumerate(donor.images.image_id) if donor.readable[row]}
        wanted = [
            (self.image_id if self.image_id != SAME else image_id) if readable else None
            for image_id, readable in zip(sources.images.image_id, sources.readable, strict=True)
        ]
        missing = dict.fromkeys(image_id for image_id in wanted if image_id is not None and image_id not in index)
        if missing:
            where = "this cache" if self.cache is None else f"the cache {self.cache!r}"
            raise InvalidEditError(
                f"'patch' takes tokens from {where}, which has no readable image {listed(missing)}; "
                "use ids as in its image_id coordinate"
            )
        return np.array([-1 if image_id is None else index[image_id] for image_id in wanted], dtype=np.int64)
