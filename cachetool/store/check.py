"""Check a store on disk: bytes against their checksums, flags against records, documents against each other."""

from __future__ import annotations

import json

import numpy as np

from cachetool.errors import CachetoolError, DamagedError
from cachetool.objects import AnyPlace, Replaced, place
from cachetool.store.format import Geometry
from cachetool.store.metadata import ROOT, Root
from cachetool.store.object_shard import open_shard
from cachetool.store.opened import OpenedStore, required_entries
from cachetool.store.records import FileFacts, Record, misfits
from cachetool.store.tables import Table, decode_chunk, read_table
from cachetool.tokens import TOKEN_TYPES


def check_block(store: OpenedStore | AnyPlace, block: int) -> list[str]:
    """Read one block as a whole and list its problems, one line each; empty for a sound or an unfinished block.

    Flags are left to `check_flags`. To open a store takes requests for each of its arrays: one that is open may be
    given. Raises `StoreError` where there is no such store or block.
    """
    store = _opened(store)
    store.geometry.block_range(block)
    try:
        record = store.record(block)
    except DamagedError as error:
        return [str(error)]
    if record is None:
        return []
    problems = misfits(store.path, record)
    for token_type, layers in record.layers.items():
        name = store.shard_name(token_type, record.block)
        if not any(problem.startswith(f"{name}:") for problem in problems):
            problems += _shard_problems(store, record, name, token_type, layers)
    return problems


def check_flags(store: OpenedStore | AnyPlace, block: int) -> list[str]:
    """List where `complete` and `readable` say more or less than the record of a block: plain readers are misled.

    Empty where the record itself cannot be read. Raises `StoreError` where there is no such store or block.
    """
    store = _opened(store)
    geometry: Geometry = store.geometry
    images = geometry.block_range(block)
    try:
        record = store.record(block)
    except DamagedError:
        return []
    problems = []
    try:
        claimed = _chunk(store, "complete", f"c.{block}.0.0")
    except DamagedError as error:
        problems.append(str(error))
    else:
        done = store.flags(record)
        claimed = np.zeros_like(done) if claimed is None else claimed[0]
        for word, which in (
            ("finished, but has no record of it", claimed & ~done),
            ("unfinished, but has a record", done & ~claimed),
        ):
            problems += [
                f"complete: block {block}, {geometry.layout.types[kind]}, state {geometry.layers[layer]} is flagged"
                f" {word}"
                for kind, layer in np.argwhere(which).tolist()
            ]
    try:
        readable = _chunk(store, "readable", f"c.{block}")
        sound = readable is None or bool(readable[: len(images)].all())
        # All ids of the store are read to have those of a block: not for one of which all images could be read.
        named = record is not None and not (sound and not record.failed)
        ids = store.images.image_id[images.start : images.stop] if named else ()
    except DamagedError as error:
        return [*problems, str(error)]
    if record is not None:
        flagged = [
            name for name, flag in zip(ids, [] if readable is None else readable.tolist(), strict=False) if not flag
        ]
        problems += [
            f"readable: {name} is flagged {word}"
            for word, names in (
                ("unreadable, but the record of its block says otherwise", set(flagged) - set(record.failed)),
                ("readable, but the record of its block says otherwise", set(record.failed) - set(flagged)),
            )
            for name in sorted(names)
        ]
    return problems


def _opened(store: OpenedStore | AnyPlace) -> OpenedStore:
    return store if isinstance(store, OpenedStore) else OpenedStore(place(store))


def check_tables(path: AnyPlace) -> dict[str, list[str]]:
    """List problems of the documents and small arrays of a store by the name of the array; empty where all are sound.

    Blocks are left to `check_block`, flags to `check_flags`. Raises `StoreError` where there is no such store.
    """
    root = Root(place(path))
    problems: dict[str, list[str]] = {}
    for name, document in root.arrays.items():
        found = []
        try:
            if json.loads((root.path / name / ROOT).read_bytes()) != document:
                found.append(f"{name}/{ROOT}: differs from the copy in the root document, which is the valid one")
        except (OSError, ValueError) as error:
            found.append(f"{name}/{ROOT}: {error}")
        # A calibration is written by zarr-python, under other chunk keys, and has a digest of all its numbers.
        if name not in (*TOKEN_TYPES, "complete", "readable") and root.about["kind"] != "calibration":
            try:
                read_table(root.path / name, document, required_entries(name, document))
            except CachetoolError as error:
                found.append(str(error))
        if found:
            problems[name] = found
    return problems


def _chunk(store: OpenedStore, name: str, key: str) -> Table | None:
    """One chunk of a small array; None where it is not on disk. Raises `DamagedError`."""
    path = store.path / name / key
    try:
        return decode_chunk(path.read_bytes(), store.root.arrays[name], path)
    except FileNotFoundError:
        return None


def _shard_problems(
    store: OpenedStore, record: Record, name: str, token_type: str, layers: tuple[int, ...]
) -> list[str]:
    geometry = store.geometry
    layout = geometry.shard_layout(token_type)
    problems = []
    try:
        shard = open_shard(store.path / name, layout)
        for layer, index in zip(layers, geometry.layer_indices(layers), strict=True):
            shard.bring([index], slice(None))
            for chunk in range(layout.used_chunks(record.last - record.first)):
                if not shard.has(index, chunk) or not shard.intact(index, chunk):
                    first = record.first + chunk * layout.chunk_images
                    last = min(first + layout.chunk_images, record.last) - 1
                    problems.append(f"{name}: images {first} to {last}, state {layer} do not match their checksum")
        found = FileFacts(bytes=shard.size, crc32c=shard.digest())
    except DamagedError as error:
        return [*problems, str(error)]
    except Replaced as error:
        return [f"{name}: {error}"]
    promised = [files[name] for files in (record.files, record.replacing) if name in files]
    if not problems and found not in promised:
        problems.append(f"{name}: its bytes are consistent, but they are not those that its done record vouches for")
    return problems
