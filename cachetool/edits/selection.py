"""Which tokens of which images an edit touches, as flat pairs: the number of outlier patches differs by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.targets import AllTokens, OutlierPatches, RandomPatches, Target, TokenIndices
from cachetool.randomness import uniforms
from cachetool.tokens import TokenLayout


@dataclass(frozen=True)
class Selection:
    """Selected tokens of one block of images, ordered by image and then by token; all arrays are int64 (pair,)."""

    token_type: str
    """The type of all selected tokens."""
    image: NDArray[np.int64]
    """Index of the image within the block."""
    position: NDArray[np.int64]
    """Position of the token in the sequence."""
    token: NDArray[np.int64]
    """Index of the token within its type."""
    images: int
    """Number of images in the block, selected or not."""

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.image)

    @property
    def per_image(self) -> NDArray[np.int64]:
        """Number of selected tokens of each image of the block, int64 (image,); zero for unreadable images."""
        return np.bincount(self.image, minlength=self.images).astype(np.int64, copy=False)

    def mask(self, tokens: int) -> NDArray[np.bool_]:
        """Whether each position of each image is selected, bool (image, token)."""
        selected = np.zeros((self.images, tokens), dtype=np.bool_)
        selected[self.image, self.position] = True
        return selected


def select(
    target: Target,
    layout: TokenLayout,
    state: NDArray[np.float32],
    image_ids: Sequence[str],
    readable: NDArray[np.bool_],
    seed: int,
) -> Selection:
    """Choose the tokens that an edit touches, once, on the intact state it starts from.

    Parameters
    ----------
    target
        Which tokens.
    layout
        Where each token type lies in the sequence.
    state
        The intact state k of a block, float32 (image, token, channel).
    image_ids
        Ids of the block's images; random patches depend on the id and the seed alone.
    readable
        Whether each of these images could be decoded, bool (image,); no token of the others is selected.
    seed
        The edit's seed.

    Raises
    ------
    InvalidEditError
        The model lacks the tokens that the target names.
    """
    target.check(layout)
    count = layout.count(target.token_type)
    match target.choice:
        case AllTokens():
            chosen = np.ones((len(image_ids), count), dtype=np.bool_)
        case TokenIndices(indices):
            chosen = np.zeros((len(image_ids), count), dtype=np.bool_)
            chosen[:, list(indices)] = True
        case RandomPatches(wanted):
            # The patches with the smallest of independent draws: without replacement, and 4 of them are among 8.
            ranks = uniforms(seed, image_ids, None, count, "random-patches").argsort(axis=1, kind="stable")
            chosen = np.zeros((len(image_ids), count), dtype=np.bool_)
            np.put_along_axis(chosen, ranks[:, :wanted], True, axis=1)
        case OutlierPatches(factor):
            patches = state[:, layout.slice("patches")]
            norms = np.sqrt(np.einsum("ipc,ipc->ip", patches, patches))
            norms[~readable] = 0
            chosen = norms > factor * np.median(norms, axis=1, keepdims=True)
    image, token = np.nonzero(chosen & readable[:, None])
    first = layout.slice(target.token_type).start
    return Selection(target.token_type, image, token + first, token, len(image_ids))


def select_nothing(target: Target, images: int) -> Selection:
    """The empty selection of `none`."""
    empty = np.empty(0, dtype=np.int64)
    return Selection(target.token_type, empty, empty, empty, images)
