"""Targets of the store's readers: a file of a sound store is harmed, and everything is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from cachetool.cli.commands.info import describe
from cachetool.interchange import export_file, import_file
from cachetool.query import open_store
from cachetool.store import StoreReader, progress
from cachetool.store.shards import ShardLayout, checksum
from tests.hostile import test_calibrations, test_shards
from tests.hostile.conftest import forged, harmed, read_everything, refused_or_same
from tests.hostile.fuzzing.target import Target, changed_json, refused_by_name
from tests.hostile.mutation import Choose
from tests.hostile.test_records import record as record_path
from tests.interchange.conftest import complete_key
from tests.store.conftest import make_example

SMALL = make_example(images=3, block=2, layers=(0, 1))
"""As few files as show all that there is: it is read as a whole for every input."""


def root(folder: Path) -> Target:
    """The root document of a cache, read in every way; without its checksum, which nothing but itself vouches for."""
    store = SMALL.make(folder / "root.zarr")

    def read(data: bytes) -> bool:
        with harmed(store / "zarr.json", data):
            return refused_by_name(lambda: (read_everything(store), progress(StoreReader(store))), store.name)

    return Target((json.dumps(forged(store)).encode(),), read, store, changed_json)


def opened(folder: Path) -> Target:
    """The root document of a run as `cachetool.open` and `info` see it: its key and facts are believed by type."""
    store = SMALL.make(folder / "opened.zarr")
    document = forged(store)
    document["attributes"]["cachetool"] |= {
        "kind": "run",
        "key": {"cache": "c", "edit": {"target": "cls", "replacement": "zero", "from_layer": 1}, "images": "d"},
        "facts": {"depth": 3, "oracle": False, "finished": True, "read": {"cls": {"1": 5}}},
    }

    def read_all() -> None:
        data = open_store(store)
        for name in set(data.variables) & {"cls", "registers", "patches"}:
            data[name].values  # noqa: B018
        json.dumps(describe(StoreReader(store)))

    def read(data: bytes) -> bool:
        with harmed(store / "zarr.json", data):
            return refused_by_name(read_all, store.name)

    return Target((json.dumps(document).encode(),), read, store, changed_json)


def record(folder: Path) -> Target:
    """The done record of a block: whatever it says, no other values may be read."""
    store = SMALL.make(folder / "record.zarr")
    expected = read_everything(store)
    del expected["complete"]

    def read(data: bytes) -> bool:
        with harmed(record_path(store), data):
            return not refused_or_same(lambda: read_everything(store), expected, store.name)

    return Target((record_path(store).read_bytes(),), read, store, changed_json)


def lock(folder: Path) -> Target:
    """The file of a lock, as progress is told by it."""
    store = SMALL.make(folder / "lock.zarr")
    owner = {"name": "extract-part-1-of-2", "host": "h", "process": 7, "since": "2026-01-02T03:04:05", "images": 4}
    file = store / ".cachetool" / "locks" / "extract.lock"
    file.parent.mkdir(exist_ok=True)
    file.touch()

    def read(data: bytes) -> bool:
        with harmed(file, data):
            return refused_by_name(lambda: json.dumps(progress(StoreReader(store)).to_json()), file.name)

    return Target((json.dumps(owner).encode(),), read, store, changed_json)


def shard(folder: Path) -> Target:
    """A shard without the checksum of its index, which is added, and those of the chunks that it names made right.

    Its second chunk is filled up, its third not stored.
    """
    store = make_example(channels=1, block=24).make(folder / "shard.zarr")
    file = store / "patches" / "c.0.0.0.0"
    layout = StoreReader(store).spec.geometry.shard_layout("patches")
    expected = test_shards.read_block(store, "patches", verify=True)

    def read(data: bytes) -> bool:
        content = _with_checksums(data, layout)
        refused = [test_shards.refused_or_told(file, content, expected, verify) for verify in (True, False)]
        return not all(refused)

    def changed(data: bytes, choose: Choose) -> bytes:
        """Another number at one place of the index: of no chunk, at its edges, or of another chunk."""
        size = layout.index_bytes - 4
        if len(data) < size:
            return data
        index = np.frombuffer(data[-size:], "<u8").copy()
        near = (0, 1, layout.chunk_bytes, len(data) - size, len(data), 2**63, 2**64 - 1, *index.tolist())
        index[choose(range(len(index)))] = (choose(near) + choose((0, 0, 0, -1, 1))) % 2**64
        return data[:-size] + index.tobytes()

    return Target((file.read_bytes()[:-4],), read, store, changed)


def _with_checksums(data: bytes, layout: ShardLayout) -> bytes:
    size = layout.index_bytes - 4
    body, index = bytearray(data[:-size]), data[-size:]
    for offset, length in np.frombuffer(index[: len(index) // 16 * 16], "<u8").reshape(-1, 2).tolist():
        if length == layout.chunk_bytes and offset + length <= len(body):
            end = offset + length - 4
            body[end : end + 4] = checksum(bytes(body[offset:end]))
    return bytes(body) + index + checksum(index)


def table(folder: Path) -> Target:
    """A chunk of a small array without its checksum, which is added; the first byte says which array.

    The root document gives no digests of tables: what the chunk holds is believed, of this array alone.
    """
    store = SMALL.make(folder / "table.zarr")
    (store / "zarr.json").write_text(json.dumps(forged(store)))
    files = sorted(file for file in store.glob("*/c*") if file.parent.name not in ("cls", "registers", "patches"))
    first = {file.parent: index for index, file in reversed(list(enumerate(files)))}
    expected = read_everything(store)

    def read(data: bytes) -> bool:
        file = files[data[0] % len(files) if data else 0]
        others = {name: values for name, values in expected.items() if name != file.parent.name}
        with harmed(file, data[1:] + checksum(data[1:])):
            return not refused_or_same(lambda: read_everything(store), others, store.name)

    starts = tuple(bytes([index]) + files[index].read_bytes()[:-4] for index in first.values())
    return Target(starts, read, store)


def calibration(folder: Path) -> Target:
    """The root document of a calibration."""
    path = test_calibrations.make_calibration(folder / "sound.zarr")

    start = json.dumps(forged(path)).encode()
    return Target((start,), lambda data: test_calibrations.is_read(path, data), path, changed_json)


def export(folder: Path) -> Target:
    """An exported cache that is imported and read: what is imported is sound, what is refused leaves nothing."""
    (folder / "photos").mkdir()
    file, root = folder / "a.h5", folder / "root"
    export_file(complete_key(SMALL).make(folder / "photos" / "model.zarr"), file)

    def read(data: bytes) -> bool:
        file.write_bytes(data)
        try:
            return refused_by_name(lambda: import_file(file, root=root), file.name) and bool(_read_stores(root))
        finally:
            shutil.rmtree(root, ignore_errors=True)

    return Target((file.read_bytes(),), read, folder)


def _read_stores(root: Path) -> list[object]:
    return [read_everything(document.parent) for document in root.rglob("*.zarr/zarr.json")]
