"""Attention from stored activations: any block run again on its stored input, with its attention exposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from dask.base import tokenize

from cachetool import places
from cachetool.backbones import Backbone
from cachetool.edits import Edit
from cachetool.edits.apply import hide_keys
from cachetool.environment import resolve_device
from cachetool.errors import IncompleteError, InvalidEditError
from cachetool.objects import AnyPlace, Place
from cachetool.provenance import RUN, check_provenance
from cachetool.query import open_store, store_path
from cachetool.replaying import open_backbone
from cachetool.store import StoreReader, StoreSpec

CHUNK_BYTES = 8 * 2**20
"""Aim for the size of one chunk: dask holds a few per thread, and larger batches are no faster on a CPU."""


def attention(
    store: AnyPlace | xr.Dataset,
    layers: int | Sequence[int] | None = None,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
) -> xr.DataArray:
    """Attention probabilities of blocks, each computed from the stored state at its input when it is asked for.

    Parameters
    ----------
    store
        A cache, or a run that kept the states asked for (`--keep`), as a path or opened. In a run, tokens are those
        after the edit, and tokens that were removed or knocked out are no keys in the blocks of the edit. Of an opened
        store, only the images and states that it was restricted to.
    layers
        The block or blocks; block k reads state k. By default all whose state is stored.
    weights
        Weights file, where it has moved since the extraction.
    device
        Where blocks run: `cpu`, `cuda`, ... By default the CPU.

    Returns
    -------
    float32 (image, layer, head, query, key), lazy, one dask chunk for a few images at one block; it sums to 1 over
    `key`. `query_type` and `key_type` name the token types (`cls`, `registers`, `patches`). NaN for images that could
    not be read, and for queries that were removed.

    Raises
    ------
    InvalidEditError
        A block lies beyond the model's last.
    IncompleteError
        The store lacks the state of a block, wholly or for one token type; names all of them.
    UnsupportedModelError
        The model's blocks have no single softmax attention each.
    MissingDataError, WeightsError
        The weights are not at hand, or are not those of the cache.
    """
    path = store_path(store)
    reader = StoreReader(path)
    spec = reader.spec
    check_provenance(path, spec.key, spec.facts, *(RUN if spec.kind == "run" else ()))
    depth = _cache_of(reader)[1].layers[-1]
    if layers is None and isinstance(store, xr.Dataset):
        layers = [layer for layer in np.atleast_1d(store.layer.values).tolist() if layer in _whole(reader, depth)]
    chosen = _choose(reader, layers, depth)
    blocks = BlockAttention(reader, min(chosen), weights, device)
    # A model without attention maps must be refused now, not in the middle of a computation.
    blocks.try_out(chosen[0])
    images = _positions(spec, store) if isinstance(store, xr.Dataset) else np.arange(len(spec.images))
    shape = (len(images), len(chosen), blocks.heads, spec.layout.tokens, spec.layout.tokens)
    types = np.array([name for name in spec.layout.types for _ in range(spec.layout.count(name))], dtype=object)
    return xr.DataArray(
        _lazy(blocks, chosen, images, shape, spec.block, f"{path}-{tokenize(spec.key, depth, device)}"),
        dims=("image", "layer", "head", "query", "key"),
        coords={
            "image_id": ("image", np.array(spec.images.image_id, dtype=object)[images]),
            "layer": list(chosen),
            "query_type": ("query", types),
            "key_type": ("key", types),
        },
        name="attention",
    )


class BlockAttention:
    """Attention of the blocks of a store, a few images at a time: a task of dask.

    Where it is unpickled, store and model are opened anew.
    """

    def __init__(self, reader: StoreReader, first_block: int, weights: str | Path | None, device: str | None) -> None:
        """Open the model. It goes to the device, from `first_block` on, when it is first run: elsewhere, it may be.

        Raises as `cachetool.attention` does.
        """
        self._reader, self._first_block, self._device = reader, first_block, device
        self._weights = None if weights is None else Path(weights).absolute()
        cache_path, cache = _cache_of(reader)
        self._backbone = open_backbone(cache_path, cache, weights)
        self._hidden = _hidden_keys(reader.path, reader, cache.layers[-1])
        self._placed: torch.device | None = None
        self._guard = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """What opens store and model where this is unpickled: weights do not travel."""
        return BlockAttention, (self._reader, self._first_block, self._weights, self._device)

    @property
    def heads(self) -> int:
        """Heads of a block."""
        return self._backbone.heads

    def try_out(self, layer: int) -> None:
        """Raise `UnsupportedModelError` where the model has no attention maps."""
        spec = self._reader.spec
        state = np.zeros((1, spec.layout.tokens, spec.channels), np.float32)
        _probabilities(self._backbone, layer, state, None, self._backbone.device)

    def __call__(self, layer: int, first: int, last: int) -> npt.NDArray[np.float32]:
        """Attention (image, 1, head, query, key) of images from `first` to before `last` in one block."""
        with self._guard:
            if self._placed is None:
                self._placed = resolve_device(self._device or "cpu")
                self._backbone.place(self._placed, self._first_block, embedding=False)
        selected = self._hidden(layer)
        return _probabilities(
            self._backbone,
            layer,
            self._reader.read_state(layer, first, last),
            None if selected is None else selected[first:last],
            self._placed,
        )[:, None]


def _cache_of(reader: StoreReader) -> tuple[Place, StoreSpec]:
    """The cache of a store, which may be itself, and what it says about itself."""
    if reader.spec.kind == "cache":
        return reader.path, reader.spec
    path = places.cache_of_run(reader.path)
    return path, StoreReader(path).spec


def _positions(spec: StoreSpec, store: xr.Dataset) -> npt.NDArray[np.int64]:
    """Positions in the store of the images that an opened one was restricted to, in its order."""
    position = {image_id: index for index, image_id in enumerate(spec.images.image_id)}
    return np.array([position[image_id] for image_id in np.atleast_1d(store.image_id.values).tolist()], dtype=np.int64)


def _whole(reader: StoreReader, depth: int) -> list[int]:
    """The states that are the input of a block and hold all token types."""
    stored = reader.spec.token_types
    held = [set(reader.coverage(name)) if name in stored else set() for name in reader.spec.layout.types]
    return sorted(set.intersection(*held) - {depth})


def _choose(reader: StoreReader, layers: int | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The blocks asked for, whose states must be whole."""
    whole = _whole(reader, depth)
    if layers is None:
        wanted: tuple[int, ...] = tuple(whole)
    else:
        wanted = (layers,) if isinstance(layers, int) else tuple(layers)
    beyond = [layer for layer in wanted if not 0 <= layer < depth]
    if beyond:
        raise InvalidEditError(f"blocks run from 0 to {depth - 1}, found {', '.join(map(str, beyond))}")
    missing = [layer for layer in wanted if layer not in whole]
    if missing or not wanted:
        lacking = f"lacks {', '.join(map(str, missing))} and " if missing else ""
        how = "replay it with `--keep`" if reader.spec.kind == "run" else "extract them with `--layers` and all tokens"
        raise IncompleteError(
            f"attention of block k needs all tokens of state k: {reader.path} {lacking}holds "
            f"{', '.join(map(str, whole)) or 'none'} as the input of a block; {how}"
        )
    return wanted


def _hidden_keys(path: Place, reader: StoreReader, depth: int) -> Callable[[int], npt.NDArray[np.bool_] | None]:
    """Which tokens no other may attend to in a block, bool (image, token); None where all may be."""
    if reader.spec.kind == "cache":
        return lambda layer: None
    masked = Edit(**reader.spec.key["edit"]).masked_blocks(depth)
    if not masked:
        return lambda layer: None
    edited: npt.NDArray[np.bool_] = open_store(path).edited.values.astype(np.bool_)
    return lambda layer: edited if layer in masked else None


def _probabilities(
    backbone: Backbone,
    layer: int,
    state: npt.NDArray[np.float32],
    selected: npt.NDArray[np.bool_] | None,
    device: torch.device,
) -> npt.NDArray[np.float32]:
    """Attention (image, head, query, key) of one block on its input (image, token, channel)."""
    mask = None if selected is None else hide_keys(torch.from_numpy(selected).to(device))
    with torch.inference_mode():
        found = backbone.attention(torch.from_numpy(state).to(device), layer, attention_mask=mask)
    values: npt.NDArray[np.float32] = found.cpu().numpy()
    return values


def _lazy(
    blocks: BlockAttention,
    layers: Sequence[int],
    images: npt.NDArray[np.int64],
    shape: tuple[int, ...],
    block: int,
    name: str,
) -> da.Array:
    """One dask chunk per block and few neighbouring images, which never reach over two blocks of the store."""
    rest = shape[2:]
    size = max(1, min(block, CHUNK_BYTES // (4 * int(np.prod(rest)))))
    # Only the images asked for: to cut them out of larger chunks would run blocks for nothing and hold the rest.
    breaks = np.flatnonzero((np.diff(images) != 1) | (images[1:] % block == 0)) + 1
    edges = [
        (int(run[0]) + first, int(run[0]) + min(first + size, len(run)))
        for run in np.split(images, breaks)
        for first in range(0, len(run), size)
    ]
    name = f"attention-{tokenize(name, list(layers), images, shape, size)}"
    graph: dict[Any, Any] = {
        (name, row, column, 0, 0, 0): (blocks, layer, first, last)
        for row, (first, last) in enumerate(edges)
        for column, layer in enumerate(layers)
    }
    chunks = (tuple(last - first for first, last in edges), (1,) * len(layers), *((length,) for length in rest))
    return da.Array(graph, name, chunks, dtype=np.float32)  # type: ignore[no-untyped-call]
