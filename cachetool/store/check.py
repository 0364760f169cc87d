"""Check a store on disk: every byte of a block against its checksums, its flags and documents against each other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from cachetool.errors import CachetoolError, DamagedError
from cachetool.store.format import Geometry
from cachetool.store.metadata import ROOT
from cachetool.store.opened import OpenedStore
from cachetool.store.records import FileFacts, Record, misfits
from cachetool.store.shards import Shard


def check_block(path: str | os.PathLike[str], block: int) -> list[str]:
    """Read one block as a whole and list its problems, one line each; empty for a sound or an unfinished block.

    Raises `StoreError` where there is no such store or block.
    """
    store = OpenedStore(Path(path))
    store.geometry.block_range(block)
    try:
        record = store.record(block)
    except DamagedError as error:
        return [str(error)]
    problems = _flag_problems(store, block, record)
    if record is None:
        return problems
    problems += misfits(store.path, record)
    for token_type, layers in record.layers.items():
        name = store.shard_name(token_type, block)
        if not any(problem.startswith(f"{name}:") for problem in problems):
            problems += _shard_problems(store, record, name, token_type, layers)
    return problems


def check_store(path: str | os.PathLike[str]) -> list[str]:
    """List problems of the documents and small arrays of a store, one line each; blocks are left to `check_block`.

    Raises `StoreError` where there is no such store.
    """
    store = OpenedStore(Path(path))
    problems = []
    for name, document in store.root.arrays.items():
        file = store.path / name / ROOT
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            problems.append(f"{name}/{ROOT}: {error}")
            continue
        if found != document:
            problems.append(f"{name}/{ROOT}: differs from the copy in the root document, which is the valid one")
        if name not in store.geometry.token_types:
            try:
                store.array(name)
            except CachetoolError as error:
                problems.append(str(error))
    return problems


def _flag_problems(store: OpenedStore, block: int, record: Record | None) -> list[str]:
    """Where `complete` says more or less than the record: plain readers would be misled."""
    geometry: Geometry = store.geometry
    claimed, done = store.array("complete")[block], store.flags(record)
    problems = []
    for word, which in (
        ("finished, but has no record of it", claimed & ~done),
        ("unfinished, but has a record", done & ~claimed),
    ):
        problems += [
            f"complete: block {block}, {geometry.layout.types[kind]}, state {geometry.layers[layer]} is flagged {word}"
            for kind, layer in np.argwhere(which).tolist()
        ]
    return problems


def _shard_problems(
    store: OpenedStore, record: Record, name: str, token_type: str, layers: tuple[int, ...]
) -> list[str]:
    geometry = store.geometry
    layout = geometry.shard_layout(token_type)
    try:
        shard = Shard(store.path / name, layout)
    except DamagedError as error:
        return [str(error)]
    problems = []
    for layer, index in zip(layers, geometry.layer_indices(layers), strict=True):
        for chunk in range(layout.used_chunks(record.last - record.first)):
            if not shard.has(index, chunk) or not shard.intact(index, chunk):
                first = record.first + chunk * layout.chunk_images
                last = min(first + layout.chunk_images, record.last) - 1
                problems.append(f"{name}: images {first} to {last}, state {layer} do not match their checksum")
    promised = [files[name] for files in (record.files, record.replacing) if name in files]
    found = FileFacts(bytes=len(shard.bytes), crc32c=shard.digest())
    if not problems and found not in promised:
        problems.append(f"{name}: its bytes are consistent, but they are not those that its done record vouches for")
    return problems
