"""Targets of what is read beside stores: weights, data sets, results, directions, and what is typed."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from analyses.netcdf import read_netcdf, write_netcdf
from analyses.study.definition import Study
from analyses.study.loading import builtin_studies, load_study
from cachetool.backbones import load
from cachetool.datasets import open_dataset
from cachetool.store.shards import checksum
from tests.backbones.test_checkpoint import checkpoint as make_checkpoint
from tests.datasets.test_webdataset import labelled, write_tar
from tests.hostile import test_edits, test_images, test_listings, test_weights
from tests.hostile.fuzzing.target import Target, changed_json, refused_by_name
from tests.hostile.mutation import Choose


def safetensors(folder: Path) -> Target:
    """A weights file of the kind safetensors."""

    def changed(data: bytes, choose: Choose) -> bytes:
        if len(data) < 8:
            return data
        end = 8 + struct.unpack("<Q", data[:8])[0]
        text = changed_json(data[8:end], choose)
        return struct.pack("<Q", len(text)) + text + data[end:]

    def read(data: bytes) -> bool:
        return test_weights.is_read(folder, "a.safetensors", data)

    return Target((test_weights.SAFE,), read, folder, changed)


def pickled(folder: Path) -> Target:
    """A weights file of torch: an archive with a pickle in it."""
    return Target((test_weights.PICKLED,), lambda data: test_weights.is_read(folder, "a.pth", data), folder)


def checkpoint(folder: Path) -> Target:
    """The configuration of a checkpoint of transformers."""
    make_checkpoint(folder)

    def read(data: bytes) -> bool:
        (folder / "config.json").write_bytes(data)
        return refused_by_name(lambda: load(f"hf:{folder}", image_size=32), folder.name)

    return Target(((folder / "config.json").read_bytes(),), read, folder, changed_json)


def image(folder: Path) -> Target:
    """An image or a mask, with the checksums of PNG made right."""
    modes = [test_images.encoded("PNG", mode) for mode in ("L", "P", "I;16", "RGBA")]
    starts = (*test_images.KINDS.values(), *modes)
    return Target(starts, lambda data: test_images.is_read(_with_png_checksums(data)), folder)


def _with_png_checksums(data: bytes) -> bytes:
    content, place = bytearray(data), 8 if data.startswith(b"\x89PNG\r\n\x1a\n") else len(data)
    while (end := place + 8 + int.from_bytes(data[place : place + 4])) + 4 <= len(data):
        content[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(content)


def pairs(folder: Path) -> Target:
    """The listing of a set of image pairs, a JSON document a line."""
    test_listings.make_images(folder)

    def changed(data: bytes, choose: Choose) -> bytes:
        lines = data.split(b"\n")
        place = choose(range(len(lines)))
        lines[place] = changed_json(lines[place], choose)
        return b"\n".join(lines)

    back = test_listings.PAIR | {"src": "b.png", "trg": "a.png"}
    start = f"{json.dumps(test_listings.PAIR)}\n{json.dumps(back)}".encode()
    return Target((start,), lambda data: test_listings.is_read(folder, data), folder, changed)


def tar(folder: Path) -> Target:
    """A tar of WebDataset, with the checksums of its headers made right."""
    file = write_tar(folder / "a.tar", [("b/c.json", b'{"label": 1}'), *labelled(0, 1)])

    def read(data: bytes) -> bool:
        file.write_bytes(_with_tar_checksums(data))
        return refused_by_name(lambda: _read_images(f"webdataset:{file}"), file.name)

    return Target((file.read_bytes(),), read, folder)


def _with_tar_checksums(data: bytes) -> bytes:
    content = bytearray(data)
    for place in range(0, len(data) - 511, 512):
        if data[place + 257 : place + 262] == b"ustar":
            content[place + 148 : place + 156] = b" " * 8
            content[place + 148 : place + 156] = b"%06o\0 " % sum(content[place : place + 512])
    return bytes(content)


def hdf5(folder: Path) -> Target:
    """An HDF5 file of images without values of variable length, in whose heap HDF5 2.0 may go round for ever."""
    file = folder / "a.h5"
    with h5py.File(file, "w") as contents:
        contents["image_id"], contents["label"] = np.array([b"a", b"b"]), [0, 1]
        pixels = np.stack([test_images.PIXELS] * 2)
        contents.create_dataset("images", data=pixels, chunks=(1, *pixels.shape[1:]), compression="gzip")
    start = file.read_bytes()

    def read(data: bytes) -> bool:
        file.write_bytes(data)
        return refused_by_name(lambda: _read_images(f"hdf5:{file}"), file.name)

    return Target((start,), read, folder)


def _read_images(name: str) -> None:
    dataset = open_dataset(name)
    assert dataset.labels is None or len(dataset.labels) == len(dataset.image_ids)
    for index in range(min(len(dataset.image_ids), 4)):
        dataset.read_bytes(index)


def results(folder: Path) -> Target:
    """A netCDF file of results without its checksum, which is added."""
    file = folder / "a.nc"
    write_netcdf(xr.Dataset({"x": ("y", np.arange(4.0)), "z": ("y", ["a", "b", "c", "d"])}), file)
    start = file.read_bytes()[:-4]

    def read(data: bytes) -> bool:
        file.write_bytes(data + checksum(data))
        try:
            read_netcdf(file)
        except (OSError, ValueError):
            return False
        return True

    return Target((start,), read, folder)


def direction(folder: Path) -> Target:
    """A direction to add, in a file of NumPy."""
    start = test_listings.numpy_file(np.ones(4))
    return Target((start,), lambda data: test_listings.is_direction(folder / "direction.npy", data), folder)


def study(folder: Path) -> Target:
    """A study in TOML."""
    file = folder / "study.toml"

    def load() -> None:
        assert isinstance(load_study(str(file)), Study)

    def read(data: bytes) -> bool:
        file.write_bytes(data)
        return refused_by_name(load, file.name)

    return Target(tuple(path.read_bytes() for path in builtin_studies().values()), read, folder)


def edit(folder: Path) -> Target:
    """What is typed as an edit: a target and a replacement, of which each must survive its own text, a line each."""

    def read(data: bytes) -> bool:
        target, _, replacement = data.decode("utf-8", "surrogateescape").partition("\n")
        return all([test_edits.is_target(target), test_edits.is_replacement(replacement, 3)])

    starts = (
        b"cls\nzero", b"registers:0,2\nmean", b"registers:1-3\ninterpolate:mean:0.5", b"patches:random5\nadd:x.npy:2",
        b"patches:outliers:3\npatch:other", b"patches:outliers\nknockout", b"patches:0-9,12\npatch:a.jpg@b.zarr",
    )  # fmt: skip
    return Target(starts, read, folder)
