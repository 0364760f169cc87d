"""What replacements may draw on: the intact stored states, the images' names and labels, and a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cachetool.tokens import TokenLayout

if TYPE_CHECKING:
    from cachetool.edits.calibration import Calibration


class Images(Protocol):
    """The images of a cache, in its order; `cachetool.store.ImageTable` fits."""

    @property
    def image_id(self) -> Sequence[str]:
        """Stable id per image."""

    @property
    def sha256(self) -> Sequence[str]:
        """SHA-256 of each image's bytes."""

    @property
    def label(self) -> Sequence[int] | None:
        """Class index per image, -1 where unknown; None for a data set without labels."""

    @property
    def class_name(self) -> Sequence[str] | None:
        """Name of the class per image; None where classes have no names."""


class Sources(Protocol):
    """One cache as replacements see it. A replay implements it over its reader."""

    @property
    def depth(self) -> int:
        """Number of blocks: the last state."""

    @property
    def channels(self) -> int:
        """Length of a token."""

    @property
    def layout(self) -> TokenLayout:
        """Where each token type lies in the sequence."""

    @property
    def images(self) -> Images:
        """All images of the cache."""

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each image could be decoded, bool (image,)."""

    @property
    def key_digest(self) -> str:
        """Digest of the cache's key and images."""

    @property
    def calibration(self) -> Calibration:
        """The calibration to draw means and variances from; asked for only where a replacement needs one."""

    def tokens(
        self, layer: int, token_type: str, image: NDArray[np.int64], token: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Intact stored tokens of state `layer`, float32 (pair, channel); `image` and `token` (within type) (pair,)."""

    def other(self, path: str) -> Sources:
        """A second cache, for `patch:IMAGE@CACHE`; the same object whenever the same path is asked for."""
