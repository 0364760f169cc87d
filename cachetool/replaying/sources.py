"""One cache as replacements see it: its stored tokens, names, labels and calibration, over the store's reader."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cachetool.edits.calibration import Calibration
from cachetool.edits.sources import Sources
from cachetool.images import image_digest
from cachetool.objects import place
from cachetool.store import ImageTable, StoreReader, key_digest, to_float32
from cachetool.tokens import TokenLayout


class CacheSources:
    """Sources over a cache on disk; a calibration is made or opened only when a replacement asks for it."""

    def __init__(self, reader: StoreReader, calibration: Callable[[], Calibration]) -> None:
        self._reader = reader
        self._make_calibration = calibration
        self._calibration: Calibration | None = None
        self._others: dict[str, CacheSources] = {}

    @property
    def depth(self) -> int:
        """Number of blocks: the last state that a cache can hold."""
        return self._reader.spec.layers[-1]

    @property
    def channels(self) -> int:
        """Length of a token."""
        return self._reader.spec.channels

    @property
    def layout(self) -> TokenLayout:
        """Where each token type lies in the sequence."""
        return self._reader.spec.layout

    @property
    def images(self) -> ImageTable:
        """All images of the cache."""
        return self._reader.spec.images

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Whether each image could be decoded, bool (image,)."""
        return self._reader.readable

    @property
    def key_digest(self) -> str:
        """Digest of what the cache holds: its key, which does not name single images, and the images themselves."""
        return key_digest({"cache": self._reader.spec.key, "images": image_digest(self.images)})

    @property
    def calibration(self) -> Calibration:
        """The calibration that the replay was given, or the cache's own."""
        if self._calibration is None:
            self._calibration = self._make_calibration()
        return self._calibration

    def tokens(
        self, layer: int, token_type: str, image: npt.NDArray[np.int64], token: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Intact stored tokens of state `layer`, float32 (pair, channel)."""
        stored = self._reader.read_tokens(token_type, layer, image, token)
        return to_float32(stored, self._reader.spec.dtype)

    def other(self, path: str) -> Sources:
        """A second cache, for `patch:IMAGE@CACHE`."""
        if path not in self._others:
            self._others[path] = CacheSources(StoreReader(place(path)), self._make_calibration)
        return self._others[path]
