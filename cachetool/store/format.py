"""Names, version and geometry of a store: which arrays it has, how they are cut into shards and chunks.

Nothing here touches a disk. `docs/format.md` is the normative text of what these definitions say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cachetool.errors import StoreError
from cachetool.store.dtypes import DTYPES, storage_dtype
from cachetool.store.shards import ShardLayout
from cachetool.tokens import TOKEN_TYPES, TokenLayout

FORMAT_VERSION = 1
"""Version of the format that this code writes, and the newest that it reads."""

KINDS = ("cache", "run", "calibration")
"""What a store can be; stores of kind `calibration` are written elsewhere and hold no token arrays."""

COORDINATES = ("image_id", "content_sha256", "label", "class_name", "readable", "row", "col")
"""Arrays that describe a dimension without bearing its name; `layer` and `token_type` are coordinates by their name."""

NORM_TYPES = ("layer_norm", "rms_norm")
"""What the final normalisation of a model can be."""

PRIVATE = ".cachetool"
"""Folder inside a store for done records and locks: no part of the Zarr hierarchy."""

TABLE_CHUNK = 4096
"""Images per chunk of the tables over images, so that a store grows without rewriting all of them."""

MEBIBYTE = 1024**2


@dataclass(frozen=True)
class ArraySpec:
    """Shape of one token array, without its images and layers."""

    name: str
    """Token type: the array's name in the store."""
    tokens: int
    """Tokens per image; 0 for `cls`, whose array has no token dimension."""
    channels: int
    """Width of the residual stream."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimension names of the array."""
        token = {"cls": (), "registers": ("register",), "patches": ("patch",)}[self.name]
        return ("image", "layer", *token, "channel")

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Shape of one image at one state: (token, channel), or (channel,) for `cls`."""
        return (self.tokens, self.channels) if self.tokens else (self.channels,)

    @property
    def values(self) -> int:
        """Number of values of one image at one state."""
        return max(self.tokens, 1) * self.channels

    def chunk_images(self, block: int) -> int:
        """Images per inner chunk: all of the block for the few tokens of `cls` and `registers`, up to 8 for patches."""
        if self.name != "patches":
            return block
        return max(count for count in range(1, 9) if block % count == 0)

    def chunk_key(self, block: int) -> str:
        """File name of a block's shard inside the array's folder."""
        return ".".join(["c", str(block), *("0" for _ in self.dimensions[1:])])


@dataclass(frozen=True)
class ImageTable:
    """The images of a store, in its order."""

    image_id: tuple[str, ...]
    """Stable name of each image; unique."""
    sha256: tuple[str, ...]
    """SHA-256 of each image file, hexadecimal."""
    label: tuple[int, ...] | None = None
    """Class index of each image, -1 where unknown; None where the data set has no classes."""
    class_name: tuple[str, ...] | None = None
    """Class name of each image; None where the data set has no names."""

    COLUMNS: ClassVar = ("image_id", "content_sha256", "label", "class_name")
    """Names of the arrays that hold the columns."""

    def __post_init__(self) -> None:
        """Raise `StoreError` unless all columns have the same length and the ids are unique."""
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(f"The columns of an image table must have the same length; found {lengths}.")
        if len(set(self.image_id)) < len(self.image_id):
            repeated = sorted(name for name, count in Counter(self.image_id).items() if count > 1)
            raise StoreError(f"Image ids must be unique; these occur more than once: {', '.join(repeated)}.")

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def columns(self) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
        """The columns that are there, by array name."""
        columns = zip(self.COLUMNS, (self.image_id, self.sha256, self.label, self.class_name), strict=True)
        return {name: column for name, column in columns if column is not None}


@dataclass(frozen=True)
class NormSpec:
    """The model's final normalisation, so that normalised tokens need neither weights nor model."""

    type: str
    """`layer_norm` or `rms_norm`."""
    epsilon: float
    weight: npt.NDArray[np.float32] | None = None
    """Scale (channel,), None where the norm has none."""
    bias: npt.NDArray[np.float32] | None = None
    """Shift (channel,), None where the norm has none."""


@dataclass(frozen=True)
class Geometry:
    """Everything about a store that decides where its bytes lie."""

    layout: TokenLayout
    channels: int
    layers: tuple[int, ...]
    """The `layer` coordinate: all states of a cache, the kept states of a run; ascending."""
    token_types: tuple[str, ...]
    """The token arrays that exist, in the order of `TOKEN_TYPES`."""
    dtype: str
    """`float32`, `float16` or `bfloat16`."""
    block: int
    """Images per shard: the unit of commit."""
    images: int
    """Number of images."""

    def __post_init__(self) -> None:
        """Raise `StoreError` naming every part that cannot be stored."""
        problems = []
        if self.dtype not in DTYPES:
            problems.append(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.block < 1 or self.channels < 1 or self.images < 0:
            problems.append(
                f"block {self.block} and channels {self.channels} must be positive, images {self.images} too"
            )
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            problems.append(f"layers must be ascending state numbers from 0 on, not {self.layers}")
        unknown = [name for name in self.token_types if name not in self.layout.types]
        if unknown:
            problems.append(f"this model has the token types {self.layout.types}, not {', '.join(unknown)}")
        if not self.token_types:
            problems.append("at least one token type must be stored")
        if problems:
            raise StoreError("This store cannot be made: " + "; ".join(problems) + ".")

    @property
    def blocks(self) -> int:
        """Number of blocks; the last may be partly filled."""
        return -(-self.images // self.block)

    def block_range(self, block: int) -> range:
        """The images of a block. Raises `StoreError` for a block that is not there."""
        if not 0 <= block < self.blocks:
            raise StoreError(f"The store has the blocks 0 to {self.blocks - 1}; block {block} was asked for.")
        return range(block * self.block, min((block + 1) * self.block, self.images))

    def array(self, token_type: str) -> ArraySpec:
        """The array of a token type."""
        return ArraySpec(token_type, 0 if token_type == "cls" else self.layout.count(token_type), self.channels)

    def shape(self, token_type: str) -> tuple[int, ...]:
        """Shape of a token array: (image, layer, [token,] channel)."""
        return (self.images, len(self.layers), *self.array(token_type).inner_shape)

    def shard_layout(self, token_type: str) -> ShardLayout:
        """Where the chunks of a shard of this token type lie."""
        spec = self.array(token_type)
        chunk_images = spec.chunk_images(self.block)
        itemsize = storage_dtype(self.dtype).itemsize
        return ShardLayout(
            layers=len(self.layers),
            chunks=self.block // chunk_images,
            chunk_images=chunk_images,
            image_bytes=spec.values * itemsize,
        )

    def layer_indices(self, layers: Sequence[int]) -> list[int]:
        """Positions of states in the `layer` coordinate. Raises `StoreError` naming every state that it lacks."""
        absent = [layer for layer in layers if layer not in self.layers]
        if absent:
            raise StoreError(f"The store has the states {list(self.layers)}; it has no place for {absent}.")
        return [self.layers.index(layer) for layer in layers]


@dataclass(frozen=True)
class StoreSpec:
    """What a new store is made from, and what an existing one says about itself."""

    kind: str
    """`cache` or `run`."""
    key: Mapping[str, Any]
    """What the values depend on; JSON."""
    facts: Mapping[str, Any]
    """What is recorded beside the key (versions, device, times); JSON."""
    layout: TokenLayout
    channels: int
    layers: tuple[int, ...]
    token_types: tuple[str, ...]
    dtype: str
    block: int
    images: ImageTable
    norm: NormSpec | None = None

    @property
    def geometry(self) -> Geometry:
        """The part that decides where bytes lie. Raises `StoreError` for a combination that cannot be stored."""
        types = (
            tuple(sorted(self.token_types, key=TOKEN_TYPES.index)) if set(self.token_types) <= set(TOKEN_TYPES) else ()
        )
        return Geometry(
            layout=self.layout,
            channels=self.channels,
            layers=tuple(self.layers),
            token_types=types or tuple(self.token_types),
            dtype=self.dtype,
            block=self.block,
            images=len(self.images),
        )


def default_block(layout: TokenLayout, channels: int, layers: int, itemsize: int) -> int:
    """Images per block: the power of two from 8 to 256 that keeps the largest shard at or under 128 MiB.

    `layers` is the number of states, `itemsize` the bytes of one stored value.
    """
    image_bytes = max(layout.patches, layout.registers, layout.cls) * channels * layers * itemsize
    block = 256
    while block > 8 and block * image_bytes > 128 * MEBIBYTE:
        block //= 2
    return block
