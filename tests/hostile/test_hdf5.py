"""HDF5 files from anybody: no value from another file, and no memory for what the file cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError

PIXELS = np.zeros((2, 4, 5, 3), dtype=np.uint8)


def external_link(file: h5py.File, other: Path) -> None:
    file["images"] = h5py.ExternalLink(str(other), "images")


def soft_link(file: h5py.File, other: Path) -> None:
    file["away"] = h5py.ExternalLink(str(other), "/")
    file["images"] = h5py.SoftLink("/away/images")


def dangling_link(file: h5py.File, other: Path) -> None:
    file["images"] = PIXELS
    file["label"] = h5py.SoftLink("/nowhere")


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(shape=PIXELS.shape, dtype=np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "images", shape=PIXELS.shape)
    file.create_virtual_dataset("images", layout)


def external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("images", PIXELS.shape, np.uint8, external=[(str(other), 0, PIXELS.nbytes)])


def huge(file: h5py.File, other: Path) -> None:
    file.create_dataset("images", (10**9, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3))


def huge_images(file: h5py.File, other: Path) -> None:
    file.create_dataset("images", (1, 10**6, 10**6, 3), np.uint8, chunks=(1, 8, 8, 3))


def huge_names(file: h5py.File, other: Path) -> None:
    file["images"] = PIXELS
    file.create_dataset("class_names", (10**10,), h5py.string_dtype(), chunks=(1,))


def huge_chunk(file: h5py.File, other: Path) -> None:
    file.create_dataset("images", (1100, 1000, 1000, 3), np.uint8, chunks=(1100, 1000, 1000, 1), compression="gzip")


def references(file: h5py.File, other: Path) -> None:
    file["images"] = PIXELS
    file.create_dataset("image_id", (2,), h5py.ref_dtype)


def lists_as_names(file: h5py.File, other: Path) -> None:
    file["images"] = PIXELS
    array = file.create_dataset("image_id", (2,), h5py.vlen_dtype(np.int32))
    array[0], array[1] = [1], [2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "`images` is a link"),
        (soft_link, "`images` is a link"),
        (dangling_link, "`label` is a link"),
        (virtual, "`images` lies in other files"),
        (external_storage, "`images` lies in other files"),
        (huge, "more than the file can hold"),
        (huge_images, "more than the file can hold"),
        (huge_names, "more than the file can hold"),
        (huge_chunk, "has chunks of .*, more than"),
        (references, "`image_id` must be strings"),
        (lists_as_names, "`image_id` must be strings"),
    ],
)
def test_what_a_file_must_not_do_is_refused(
    tmp_path: Path, make: Callable[[h5py.File, Path], None], message: str
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["images"] = PIXELS
    with h5py.File(tmp_path / "set.h5", "w") as file:
        make(file, tmp_path / "other.h5")
    with pytest.raises(DatasetError, match=message) as error:
        open_dataset(f"hdf5:{tmp_path / 'set.h5'}")
    assert "set.h5" in str(error.value)
