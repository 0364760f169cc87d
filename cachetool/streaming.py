"""Stored tokens as a shuffled stream of batches, as sparse autoencoders are trained on.

What is read at a time is a *piece*: one state of one token type of one block of images, one contiguous range of a file.
The pieces are put in random order and cut into *buffers* of bounded size; the tokens of a buffer are shuffled and cut
into batches of nearly equal size. So a batch mixes the tokens of all pieces of its buffer, of which there are
`buffer_bytes` over the bytes of a piece, each of a block of images; tokens of one piece are never further apart than a
buffer. Order of pieces and tokens are Philox draws from seed, epoch and buffer, and a buffer belongs to one worker of
one rank: batches are the same for any number of both, only their order differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch.utils.data import IterableDataset, get_worker_info

from cachetool.errors import IncompleteError, UnknownNameError
from cachetool.objects import AnyPlace
from cachetool.query import store_path
from cachetool.randomness import generator
from cachetool.store import StoreReader, empty_for_reading, storage_dtype

BUFFER_BYTES = 2**28
PURPOSE = "activations"

Batch = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """What is read at a time."""

    token_type: str
    layer: int
    start: int
    """First image."""
    stop: int
    """One past the last image."""


class Activations(IterableDataset[Batch]):
    """Every token of chosen states and types once an epoch, in random order, as batches of float32 tensors.

    Give it to `torch.utils.data.DataLoader(..., batch_size=None)`, since it makes the batches itself, or iterate over
    it. The order is another one after `set_epoch`.
    """

    def __init__(
        self,
        cache: AnyPlace | xr.Dataset,
        *,
        layers: Iterable[int] | None = None,
        tokens: Iterable[str] | None = None,
        seed: int = 0,
        batch_size: int = 4096,
        buffer_bytes: int = BUFFER_BYTES,
        indices: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Choose what is streamed.

        Parameters
        ----------
        cache
            A cache or run, as a path or opened.
        layers, tokens
            States and token types; by default all that are stored for all images.
        seed
            Seed of all draws.
        batch_size
            Tokens a batch, at most; the batches of one buffer differ by one token.
        buffer_bytes
            Size of the buffer, of which each worker has one: the larger, the better tokens are mixed. It holds at
            least one piece.
        indices
            Yield `(tokens, indices)`: indices int64 (sample, 3) of image, state, and position in the model's sequence,
            which is [CLS], registers, patches.
        rank, world_size
            Which of how many processes this is: each streams buffers of its own, all of them every token once. Their
            numbers of batches may differ.

        Raises
        ------
        UnknownNameError
            A number is out of its range.
        IncompleteError
            A state or token type is not stored for all images; names each.
        """
        super().__init__()
        if batch_size < 1 or not 0 <= rank < world_size:
            raise UnknownNameError(
                f"batch_size {batch_size}, rank {rank}, world_size {world_size}: expected a batch_size from 1 on and a "
                "rank from 0 to world_size - 1"
            )
        self._reader = StoreReader(store_path(cache))
        spec = self._reader.spec
        coverage = {name: self._reader.coverage(name) for name in spec.token_types}
        self.token_types = tuple(dict.fromkeys(spec.token_types if tokens is None else tokens))
        held = set.intersection(set(spec.layers), *(set(coverage.get(name, ())) for name in self.token_types))
        self.layers = tuple(sorted(held if layers is None else set(layers)))
        missing = [
            f"state {layer} of {name}"
            for name in self.token_types
            for layer in self.layers
            if layer not in coverage.get(name, ())
        ]
        if missing or not self.layers:
            raise IncompleteError(
                f"{self._reader.path} does not hold for all images: {', '.join(missing) or 'any state of these'}; "
                "run `cachetool extract` to complete it, or choose others"
            )
        self._seed, self._batch_size, self._with_indices = seed, batch_size, indices
        self._rows = max(buffer_bytes // (spec.channels * storage_dtype(spec.dtype).itemsize), 1)
        self._rank, self._world_size = rank, world_size
        # Shared, so that workers that persist over epochs see it change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; also for the workers of a data loader."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        """Batches of this rank in this epoch."""
        own = self._buffers()[self._rank :: self._world_size]
        return sum(-(-sum(map(self._kept, pieces)) // self._batch_size) for pieces in own)

    def __iter__(self) -> Iterator[Batch]:
        """Batches of this rank, of this worker's share where a data loader has several."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        buffers = self._buffers()
        epoch = int(self._epoch)
        own = range(self._rank + number * self._world_size, len(buffers), self._world_size * workers)
        # One buffer for all: memory that is asked for anew comes page by page.
        rows = max((self._starts(buffers[index])[-1] for index in own), default=0)
        memory = empty_for_reading((rows, self._reader.spec.channels), storage_dtype(self._reader.spec.dtype))
        for index in own:
            yield from self._batches(memory, buffers[index], epoch, index)

    @cached_property
    def _pieces(self) -> list[Piece]:
        spec = self._reader.spec
        blocks = [spec.geometry.block_range(block) for block in range(spec.geometry.blocks)]
        return [
            Piece(name, layer, images.start, images.stop)
            for name in self.token_types
            for layer in self.layers
            for images in blocks
        ]

    def _tokens(self, piece: Piece) -> int:
        return self._reader.spec.layout.count(piece.token_type)

    def _kept(self, piece: Piece) -> int:
        """Tokens of the images that could be read."""
        return int(self._reader.readable[piece.start : piece.stop].sum()) * self._tokens(piece)

    def _buffers(self) -> list[list[Piece]]:
        """All pieces in the epoch's order, cut where a buffer is full."""
        order = self._draw(int(self._epoch), "pieces").permutation(len(self._pieces))
        buffers: list[list[Piece]] = []
        free = 0
        for piece in map(self._pieces.__getitem__, order.tolist()):
            rows = (piece.stop - piece.start) * self._tokens(piece)
            if rows > free:
                buffers.append([])
                free = max(self._rows, rows)
            buffers[-1].append(piece)
            free -= rows
        return buffers

    def _draw(self, epoch: int, what: str) -> np.random.Generator:
        return generator(self._seed, f"epoch {epoch}, {what}", None, 0, PURPOSE)

    def _starts(self, pieces: Sequence[Piece]) -> npt.NDArray[np.int64]:
        """First row of each piece in its buffer, and the end."""
        return np.cumsum([0, *((piece.stop - piece.start) * self._tokens(piece) for piece in pieces)], dtype=np.int64)

    def _batches(self, buffer: npt.NDArray[Any], pieces: Sequence[Piece], epoch: int, index: int) -> Iterator[Batch]:
        """Read one buffer and shuffle it."""
        spec, readable = self._reader.spec, self._reader.readable
        starts = self._starts(pieces)
        kept = []
        for piece, start, stop in zip(pieces, starts[:-1], starts[1:], strict=True):
            shape = (piece.stop - piece.start, self._tokens(piece), spec.channels)
            self._reader.read(
                piece.token_type, piece.layer, piece.start, piece.stop, out=buffer[start:stop].reshape(shape)
            )
            kept.append(start + np.flatnonzero(np.repeat(readable[piece.start : piece.stop], shape[1])))
        rows = np.concatenate(kept)
        rows = rows[self._draw(epoch, f"buffer {index}").permutation(len(rows))]
        source = torch.from_numpy(buffer)
        source = source.view(torch.bfloat16) if spec.dtype == "bfloat16" else source
        for batch in np.array_split(rows, -(-len(rows) // self._batch_size)) if len(rows) else ():
            values = source.index_select(0, torch.from_numpy(batch)).float()  # four times as fast as `source[...]`
            yield (values, torch.from_numpy(self._indices(pieces, starts, batch))) if self._with_indices else values

    def _indices(
        self, pieces: Sequence[Piece], starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Image, state and position in the sequence of rows of a buffer, int64 (row, 3)."""
        layout = self._reader.spec.layout
        which = np.searchsorted(starts, rows, side="right") - 1
        counts = np.array([self._tokens(piece) for piece in pieces])[which]
        image, token = np.divmod(rows - starts[which], counts)
        first = np.array([piece.start for piece in pieces])[which]
        layer = np.array([piece.layer for piece in pieces])[which]
        offset = np.array([layout.slice(piece.token_type).start for piece in pieces])[which]
        return np.stack([first + image, layer, offset + token], axis=1)
