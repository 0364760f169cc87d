"""Attention from stored activations: any block run again on its stored input, with its attention exposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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
    cache_path = path if spec.kind == "cache" else places.cache_of_run(path)
    cache = spec if spec.kind == "cache" else StoreReader(cache_path).spec
    check_provenance(path, spec.key, spec.facts, *(RUN if spec.kind == "run" else ()))
    depth = cache.layers[-1]
    if layers is None and isinstance(store, xr.Dataset):
        layers = [layer for layer in np.atleast_1d(store.layer.values).tolist() if layer in _whole(reader, depth)]
    chosen = _choose(reader, layers, depth)
    backbone = open_backbone(cache_path, cache, weights)
    hidden = _hidden_keys(path, reader, depth)
    backbone.place(device or "cpu", min(chosen), embedding=False)
    # A model without attention maps must be refused now, not in the middle of a computation.
    _probabilities(backbone, chosen[0], np.zeros((1, spec.layout.tokens, spec.channels), np.float32), None, device)

    def read(layer: int, first: int, last: int) -> npt.NDArray[np.float32]:
        state = reader.read_state(layer, first, last)
        selected = hidden(layer)
        return _probabilities(backbone, layer, state, None if selected is None else selected[first:last], device)

    images = _positions(spec, store) if isinstance(store, xr.Dataset) else np.arange(len(spec.images))
    shape = (len(images), len(chosen), backbone.heads, spec.layout.tokens, spec.layout.tokens)
    types = np.array([name for name in spec.layout.types for _ in range(spec.layout.count(name))], dtype=object)
    return xr.DataArray(
        _lazy(read, chosen, images, shape, spec.block, f"{path}-{tokenize(spec.key, depth, device)}"),
        dims=("image", "layer", "head", "query", "key"),
        coords={
            "image_id": ("image", np.array(spec.images.image_id, dtype=object)[images]),
            "layer": list(chosen),
            "query_type": ("query", types),
            "key_type": ("key", types),
        },
        name="attention",
    )


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
    device: str | None,
) -> npt.NDArray[np.float32]:
    """Attention (image, head, query, key) of one block on its input (image, token, channel)."""
    mask = None if selected is None else hide_keys(torch.from_numpy(selected).to(device or "cpu"))
    with torch.inference_mode():
        found = backbone.attention(torch.from_numpy(state).to(device or "cpu"), layer, attention_mask=mask)
    values: npt.NDArray[np.float32] = found.cpu().numpy()
    return values


def _lazy(
    read: Callable[[int, int, int], npt.NDArray[np.float32]],
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
        (name, row, column, 0, 0, 0): (_with_layer, read, layer, first, last)
        for row, (first, last) in enumerate(edges)
        for column, layer in enumerate(layers)
    }
    chunks = (tuple(last - first for first, last in edges), (1,) * len(layers), *((length,) for length in rest))
    return da.Array(graph, name, chunks, dtype=np.float32)  # type: ignore[no-untyped-call]


def _with_layer(
    read: Callable[[int, int, int], npt.NDArray[np.float32]], layer: int, first: int, last: int
) -> npt.NDArray[np.float32]:
    return read(layer, first, last)[:, None]
