"""Encode and decode one shard: inner chunks laid layer-major, then the index, each with its CRC32C.

A shard is what Zarr's `sharding_indexed` codec defines, with inner codecs `bytes` (little) and `crc32c` and the index
at the end. Nothing is compressed, so every chunk has the same size and its place follows from the layers that are
stored. Layer-major order makes one layer of a block one contiguous read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError
from cachetool.objects import Place
from cachetool.store.mending import advice

Buffer = bytes | memoryview
Promised: TypeAlias = Mapping[int, Collection[int]]
"""Digests that a state may have, by its position in the `layer` coordinate."""

CHECKSUM_BYTES = 4
MISSING = np.uint64(2**64 - 1)
"""Offset and size, in the index, of a chunk that is not stored: it reads as the fill value."""


def extend_checksum(value: int, part: Buffer) -> int:
    """CRC32C of the data so far followed by a part; google_crc32c takes arrays but no memoryview."""
    return int(google_crc32c.extend(value, np.frombuffer(part, dtype=np.uint8)))


def checksum(*parts: Buffer) -> bytes:
    """CRC32C of the parts one after another, as the four little-endian bytes that Zarr's `crc32c` codec appends."""
    value = 0
    for part in parts:
        value = extend_checksum(value, part)
    return value.to_bytes(CHECKSUM_BYTES, "little")


@dataclass(frozen=True)
class ShardLayout:
    """Sizes of a shard's parts."""

    layers: int
    """Length of the `layer` coordinate."""
    chunks: int
    """Inner chunks per layer."""
    chunk_images: int
    """Images per inner chunk."""
    image_bytes: int
    """Bytes of one image at one state."""

    @property
    def payload_bytes(self) -> int:
        """Bytes of the values of one chunk."""
        return self.chunk_images * self.image_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk with its checksum."""
        return self.payload_bytes + CHECKSUM_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index with its checksum."""
        return self.chunks * self.layers * 16 + CHECKSUM_BYTES

    def used_chunks(self, images: int) -> int:
        """Chunks per layer that hold at least one of a block's first `images` images."""
        return -(-images // self.chunk_images)

    def shard_bytes(self, layers: int, images: int) -> int:
        """Size of a shard that stores this many layers of this many images."""
        return layers * self.used_chunks(images) * self.chunk_bytes + self.index_bytes


def encode(layout: ShardLayout, layers: Mapping[int, Sequence[Sequence[Buffer]]]) -> Iterator[Buffer]:
    """The bytes of a shard, front to back, as buffers that need no copy.

    `layers` maps a position in the `layer` coordinate to its chunks; a chunk is given as buffers: the payload alone,
    whose checksum is added here, or the payload with its checksum as it was found in another shard.
    """
    index = np.full((layout.chunks, layout.layers, 2), MISSING, dtype="<u8")
    offset = 0
    for layer in sorted(layers):
        for position, parts in enumerate(layers[layer]):
            yield from parts
            if sum(len(part) for part in parts) == layout.payload_bytes:
                yield checksum(*parts)
            index[position, layer] = offset, layout.chunk_bytes
            offset += layout.chunk_bytes
    encoded = index.tobytes()
    yield encoded
    yield checksum(encoded)


class Shard(ABC):
    """One shard whose index is known; chunks are checked against their checksum when first read."""

    identity: tuple[Any, ...]
    """Tells this content from one that replaced it."""

    def __init__(
        self, path: Place, layout: ShardLayout, size: int, encoded: Buffer, promised: Promised | None = None
    ) -> None:
        """Check an index of a shard of `size` bytes. Raises `DamagedError` naming the file.

        `promised` maps a position in the `layer` coordinate to the digests (`state_digest`) of which it must have one:
        a shard of another block is sound in itself.
        """
        self.path = path
        self.layout = layout
        self.size = size
        """Bytes of the shard."""
        self._promised = dict(promised or {})
        self._encoded_index = encoded
        if size < layout.index_bytes:
            raise DamagedError(
                f"{path} is damaged: expected at least {layout.index_bytes} bytes, found {size}. {advice(path)}"
            )
        body = size - layout.index_bytes
        if checksum(encoded[:-CHECKSUM_BYTES]) != encoded[-CHECKSUM_BYTES:]:
            raise DamagedError(f"{path} is damaged: the checksum of its index does not match. {advice(path)}")
        index = np.frombuffer(encoded[:-CHECKSUM_BYTES], dtype="<u8").reshape(layout.chunks, layout.layers, 2)
        self._present = index[..., 0] != MISSING
        # No sum of offset and size: it could wrap around, and be small again.
        starts = np.sort(index[..., 0][self._present])
        beyond = len(starts) > 0 and (body < layout.chunk_bytes or starts[-1] > body - layout.chunk_bytes)
        if beyond or np.any(index[..., 1][self._present] != layout.chunk_bytes):
            raise DamagedError(
                f"{path} is damaged: its index names chunks of another size, or beyond its end. {advice(path)}"
            )
        if np.any(np.diff(starts) < layout.chunk_bytes):
            raise DamagedError(f"{path} is damaged: chunks of its index overlap. {advice(path)}")
        self._offsets = index[..., 0]
        self.checked: npt.NDArray[np.bool_] = np.zeros((layout.chunks, layout.layers), dtype=bool)
        """Which chunks were found to agree with their checksum."""

    @property
    def held_bytes(self) -> int:
        """Bytes of chunks that were fetched and are kept in memory; nothing of a file, which the system keeps."""
        return 0

    def has(self, layer: int, chunk: int) -> bool:
        """Whether a chunk is stored; `layer` is a position in the `layer` coordinate."""
        return bool(self._present[chunk, layer])

    @abstractmethod
    def bring(self, layers: Sequence[int], chunks: slice) -> None:
        """Have chunks of some layers in memory when this returns: for threads that read ahead of the one that computes.

        Nothing is done for chunks that were read before.
        """

    @abstractmethod
    def _window(self, layer: int) -> tuple[memoryview, int]:
        """Bytes that hold the chunks of a layer, and the place in the shard at which they begin."""

    def _shared_window(self, layers: Sequence[int]) -> tuple[memoryview, int] | None:
        """The same for several layers; None where they are not in one piece."""
        return self._window(layers[0])

    def encoded_chunk(self, layer: int, chunk: int) -> memoryview:
        """A stored chunk with its checksum, unchecked."""
        window, begin = self._window(layer)
        offset = int(self._offsets[chunk, layer]) - begin
        return window[offset : offset + self.layout.chunk_bytes]

    def intact(self, layer: int, chunk: int) -> bool:
        """Whether a stored chunk agrees with its checksum, and its layer with what was promised; then remembered."""
        if not self.checked[chunk, layer]:
            encoded = self.encoded_chunk(layer, chunk)
            sound = checksum(encoded[:-CHECKSUM_BYTES]) == encoded[-CHECKSUM_BYTES:]
            self.checked[chunk, layer] = sound and self._keeps_promise(layer, self.state_digest(layer))
        return bool(self.checked[chunk, layer])

    def _keeps_promise(self, layer: int, digest: int) -> bool:
        promised = self._promised.get(layer)
        return promised is None or digest in promised

    def state_digest(self, layer: int) -> int:
        """CRC32C of the checksums of one layer's chunks, in the order of images: binds them to their block."""
        window, begin = self._window(layer)
        ends = self._offsets[self._present[:, layer], layer].astype(np.int64) + (self.layout.payload_bytes - begin)
        found = np.frombuffer(window, np.uint8)[ends[:, np.newaxis] + np.arange(CHECKSUM_BYTES)]
        return extend_checksum(0, found.data)

    def digest(self) -> int:
        """CRC32C of the checksums in the file (chunks in the order of their bytes, then the index): binds its content.

        The CRC32C of the whole file would not: data followed by its own CRC always leaves the same remainder, so that
        all shards of one size have the same.
        """
        value = 0
        chunks, layers = np.nonzero(self._present)
        order = np.argsort(self._offsets[chunks, layers], kind="stable")
        for chunk, layer in zip(chunks[order].tolist(), layers[order].tolist(), strict=True):
            value = extend_checksum(value, self.encoded_chunk(layer, chunk)[-CHECKSUM_BYTES:])
        return extend_checksum(value, self._encoded_index[-CHECKSUM_BYTES:])

    def layered_values(self, layers: Sequence[int], chunk: int, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
        """The values of one chunk at several layers as one view (layer, value) of the file, unchecked.

        None where the layers do not lie at even distances, or where one is not stored. One copy from such a view takes
        a third of the time of a copy per layer where chunks are small: what Python does per chunk is most of it.
        """
        if not self._present[chunk, list(layers)].all():
            return None
        shared = self._shared_window(layers)
        if shared is None:
            return None
        window, begin = shared
        offsets = self._offsets[chunk, list(layers)].astype(np.int64)
        steps = np.diff(offsets)
        if len(steps) and (steps != steps[0]).any():
            return None
        shape = (len(layers), self.layout.payload_bytes // dtype.itemsize)
        stride = int(steps[0]) if len(steps) else self.layout.chunk_bytes
        return np.ndarray(shape, dtype, window, int(offsets[0]) - begin, (stride, dtype.itemsize))

    def values(self, layer: int, chunk: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """The values of a stored chunk as a read-only view of the file, one-dimensional, unchecked."""
        return np.frombuffer(self.encoded_chunk(layer, chunk)[:-CHECKSUM_BYTES], dtype=dtype)


class HeldShard(Shard):
    """One shard that lies in memory as a whole."""

    def __init__(self, path: Place, layout: ShardLayout, content: Buffer) -> None:
        """Check the index in the content of a shard. Raises `DamagedError` naming `path`."""
        self.bytes = memoryview(content)
        self.identity = (id(content),)
        super().__init__(path, layout, len(self.bytes), self.bytes[-layout.index_bytes :])

    def bring(self, layers: Sequence[int], chunks: slice) -> None:
        """Nothing is to be done."""

    def _window(self, layer: int) -> tuple[memoryview, int]:
        return self.bytes, 0
