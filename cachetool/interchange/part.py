"""Which states, token types and images of a store are exported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cachetool.errors import IncompleteError, UnknownNameError
from cachetool.store import StoreReader
from cachetool.tokens import TOKEN_TYPES


@dataclass(frozen=True)
class Part:
    """What of a store is written."""

    images: int
    layers: tuple[int, ...]
    token_types: tuple[str, ...]
    complete: npt.NDArray[np.bool_]
    """What is finished of the part, (block, token_type, layer): all token types of the model, the part's states."""


def choose_part(
    reader: StoreReader, layers: Iterable[int] | None, token_types: Iterable[str] | None, limit: int | None
) -> Part:
    """The part that was asked for. Raises `IncompleteError` and `UnknownNameError`."""
    spec = reader.spec
    if limit is not None and limit < 1:
        raise UnknownNameError(f"--limit {limit}: expected at least 1 image")
    images = len(spec.images) if limit is None else min(limit, len(spec.images))
    complete = reader.complete[: -(-images // spec.block)]
    types = spec.layout.types
    wanted_types = set(spec.token_types if token_types is None else token_types)
    chosen = [name in wanted_types for name in types]
    complete &= np.array(chosen)[:, np.newaxis]
    held = {layer for index, layer in enumerate(spec.layers) if complete[:, :, index].any()}
    wanted = held if layers is None else set(layers)
    missing = [f"state {layer}" for layer in sorted(wanted - held)] + [
        f"{name} (the store holds {', '.join(spec.token_types)})" for name in sorted(wanted_types - {*spec.token_types})
    ]
    if missing or not wanted:
        raise IncompleteError(
            f"{reader.path} holds nothing of what is to be exported: {'; '.join(missing) or 'no block is finished'};"
            " run `cachetool extract` to complete it, or choose other --layers and --tokens"
        )
    kept = tuple(layer for layer in spec.layers if layer in wanted)
    indices = [spec.layers.index(layer) for layer in kept]
    found = tuple(name for name in TOKEN_TYPES if name in wanted_types)
    return Part(images, kept, found, complete[:, :, indices])
