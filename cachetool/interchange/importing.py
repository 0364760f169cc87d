"""A store from an HDF5 file: checked, built beside its place by the store's own writer, then renamed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py
import humanize
import numpy as np
import numpy.typing as npt

from cachetool import places
from cachetool.errors import DamagedError, KeyMismatchError, MissingDataError, StoreError
from cachetool.events import Events, Silent
from cachetool.heaps import check_heaps
from cachetool.interchange.checking import Contents, check
from cachetool.objects import AnyPlace, ObjectPath, Place, check_writable, on_disk, taken
from cachetool.store import SmallArray, StoreReader, StoreWriter, create, key_digest, storage_dtype
from cachetool.store.atomic import remove_leftovers, storage_errors, sync_folder, temporary_name
from cachetool.store.object_folders import remove_whole

UNREADABLE = "unreadable when the cache was made"
"""Why an image failed: exports say which ones did, not why."""


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    path: Place
    """Where the store lies."""
    kind: str
    """`cache` or `run`."""
    images: int
    """Images that it covers."""
    nbytes: int
    """Bytes written to shards."""
    seconds: float
    """Wall time."""


def import_file(
    file: str | Path, *, root: AnyPlace | None = None, name: str | None = None, events: Events | None = None
) -> Imported:
    """Make the store that an HDF5 file was exported from. Holds one block in memory at a time.

    Parameters
    ----------
    file
        What `export_file` wrote.
    root
        Directory of all caches; the store's place below it is in the file.
    name
        Another name for the cache; for a run, the name of the cache that it is put beside.

    Raises
    ------
    MissingDataError
        There is no such file.
    StoreError
        It is no such file, or contradicts itself, or leads outside itself; or a store is at its place already, or the
        disk refuses. Nothing is changed then.
    DamagedError
        Its bytes do not match their checksums, or values are missing that it calls finished.
    KeyMismatchError
        It is a run, and the cache at its place is not the one it was made from.
    """
    started = time.perf_counter()
    file, events = on_disk(file, "file"), events or Silent()
    with _opened(file) as handle:
        contents = check(handle, str(file))
        if name is not None:
            places.check_name(name)
            contents = replace(contents, place=replace(contents.place, cache=name))
        path = contents.place.path(places.resolve_root(root))
        check_writable(path)
        if taken(path):
            raise StoreError(
                f"{path} is there already, and an import never overwrites; "
                f"keep both with --name, or remove that one with `cachetool remove {path}`"
            )
        if contents.spec.kind == "run":
            _check_cache(contents, path, events)
        if isinstance(path, ObjectPath):
            written = _fill_in_place(path, contents, file, events)
        else:
            written = _fill_beside(path, contents, file, events)
    return Imported(path, contents.spec.kind, len(contents.spec.images), written, time.perf_counter() - started)


def _fill_beside(path: Path, contents: Contents, file: Path, events: Events) -> int:
    """Build the store beside its place, then rename it; returns bytes written to shards."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
    _check_space(contents, path)
    temporary = temporary_name(path)
    try:
        _create(temporary, contents, file)
        written = _fill(temporary, contents, file, events)
        with storage_errors(path):
            temporary.rename(path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def _fill_in_place(path: ObjectPath, contents: Contents, file: Path, events: Events) -> int:
    """Build the store where it belongs, since objects cannot be renamed; what cannot be finished is removed again."""
    _create(path, contents, file)
    try:
        return _fill(path, contents, file, events)
    except BaseException:
        remove_whole(path)  # alone: runs that lie beside it were there before
        raise


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    if not file.is_file():
        raise MissingDataError(f"there is no file {file}; make one with `cachetool export CACHE FILE.h5`")
    try:
        with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            check_heaps(content)
        handle = h5py.File(file, "r")
    except (OSError, ValueError) as error:  # the latter also for an empty file
        raise StoreError(f"{file} cannot be read as HDF5: {error}") from error
    with handle:
        yield handle


def _check_cache(contents: Contents, path: Place, events: Events) -> None:
    """A run belongs beside the cache it was made from; where none is yet, it is put there all the same."""
    cache = places.cache_of_run(path)
    if not (cache / "zarr.json").is_file():
        events.message(f"the cache of this run is not at {cache}; import or extract it to compare the run with it")
        return
    there = StoreReader(cache).spec
    digests = contents.spec.images.sha256
    if contents.spec.key["cache"] != key_digest(there.key) or there.images.sha256[: len(digests)] != digests:
        raise KeyMismatchError(
            f"{cache} is not the cache that this run was made from: expected the key "
            f"{contents.spec.key['cache'][:12]}... and the same {len(digests)} images first, found "
            f"{key_digest(there.key)[:12]}... with {len(there.images)}; name that cache with --name"
        )


def _check_space(contents: Contents, path: Path) -> None:
    """Refuse before anything is written what the disk has no room for."""
    spec = contents.spec
    finished = contents.complete.sum(axis=(0, 2))
    values = {name: spec.geometry.array(name).values for name in spec.token_types}
    needed = sum(
        int(finished[spec.layout.types.index(name)]) * min(spec.block, len(spec.images)) * count
        for name, count in values.items()
    )
    needed *= storage_dtype(spec.dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        sizes = f"{humanize.naturalsize(needed)} are needed, {humanize.naturalsize(free)} are free"
        raise StoreError(f"{path} does not fit on its disk: {sizes}; free space or choose another --root")


def _create(path: Place, contents: Contents, file: Path) -> None:
    spec = contents.spec
    create(path, replace(spec, facts={**spec.facts, "imported_from": file.name}))


def _fill(path: Place, contents: Contents, file: Path, events: Events) -> int:
    """Write the blocks of the new store; returns bytes written to shards."""
    spec = contents.spec
    writer = StoreWriter(path)
    events.start("import", len(spec.images))
    written = 0
    for block in range(spec.geometry.blocks):
        before = written
        images = spec.geometry.block_range(block)
        failed = {spec.images.image_id[index]: UNREADABLE for index in images if not contents.readable[index]}
        for columns, names in _equally_finished(contents, block).items():
            arrays = {name: _read(contents, name, images, columns, file) for name in names}
            layers = [contents.layers[column] for column in columns]
            written += writer.write_block(block, arrays, layers, failed=failed)
        events.advance(len(images), written - before)
    extras = contents.extras.items()
    writer.write_image_arrays({name: SmallArray(values, dims, attrs) for name, (dims, values, attrs) in extras})
    return written


def _equally_finished(contents: Contents, block: int) -> dict[tuple[int, ...], list[str]]:
    """Token types of a block by the positions of their finished states, since a block is written state by state."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name in contents.tokens:
        finished = contents.complete[block, contents.spec.layout.types.index(name)]
        if finished.any():
            found.setdefault(tuple(np.flatnonzero(finished).tolist()), []).append(name)
    return found


def _read(contents: Contents, name: str, images: range, columns: tuple[int, ...], file: Path) -> npt.NDArray[Any]:
    """States of a block, (layer, image, [token,] channel). Raises `DamagedError`."""
    dataset, spec = contents.tokens[name], contents.spec
    out = np.empty((len(columns), len(images), *dataset.shape[2:]), dtype=storage_dtype(spec.dtype))
    for row, column in enumerate(columns):
        where = f"{file} is damaged at the images {images.start} to {images.stop - 1}, state {contents.layers[column]}"
        try:
            stored = _stored(dataset, images, column)
            dataset.read_direct(out[row], np.s_[images.start : images.stop, column])
        except (OSError, RuntimeError) as error:  # h5py raises either for what HDF5 cannot read
            raise DamagedError(f"{where} of {name}: {error}; export it again") from error
        if not stored:
            raise DamagedError(f"{where} of {name}: it is called finished, but holds no values; export it again")
    return out


def _stored(dataset: Any, images: range, column: int) -> bool:
    """Whether every chunk of these images is in the file: one that is not would read as NaN without a word."""
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() >= dataset.nbytes)
    sizes = dataset.chunks
    first = [images.start // sizes[0] * sizes[0], column // sizes[1] * sizes[1]]
    inner = [range(0, length, size) for length, size in zip(dataset.shape[2:], sizes[2:], strict=True)]
    grids = np.meshgrid(range(first[0], images.stop, sizes[0]), [first[1]], *inner, indexing="ij")
    corners = np.stack([grid.ravel() for grid in grids], axis=1).tolist()
    return all(dataset.id.get_chunk_info_by_coord(tuple(corner)).byte_offset is not None for corner in corners)
