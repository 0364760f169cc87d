"""Images and masks from anybody: decoded or refused by name, never waited for, never larger than is safe."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cachetool.datasets import open_dataset
from cachetool.datasets.annotated import mask_values
from cachetool.datasets.decoding import decode_image, image_size
from cachetool.errors import DatasetError, ImageError
from tests.hostile.conftest import LONG, QUICK
from tests.hostile.test_weights import damaged

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind)
    return buffer.getvalue()


KINDS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF", "JPEG2000")}
IMAGES = st.sampled_from(sorted(KINDS)).flatmap(lambda kind: damaged(KINDS[kind]))


def is_read(data: bytes) -> bool:
    """Whether this is decoded as an image, or refused by name; as a mask it may be refused all the same."""
    refused = []
    for read in (decode_image, image_size, mask_values):
        with warnings.catch_warnings(action="ignore"):  # of metadata; pixels come all the same
            try:
                read(data, "folder/file")
            except (ImageError, DatasetError) as error:
                assert "folder/file" in str(error)
                refused.append(read)
    return decode_image not in refused


@QUICK
@given(data=IMAGES)
def test_damaged_images_are_refused_by_name(data: bytes) -> None:
    is_read(data)


@pytest.mark.slow
@LONG
@given(data=IMAGES)
def test_hundreds_of_damaged_images_are_refused_by_name(data: bytes) -> None:
    is_read(data)


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_huge_dimensions_with_little_data_are_refused(width: int, height: int) -> None:
    for read in (decode_image, image_size, mask_values):
        with pytest.raises(ImageError, match="folder/file"):
            read(huge_png(width, height), "folder/file")


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "device.png").symlink_to("/dev/zero")
    dataset = open_dataset(f"imagefolder:{tmp_path}")
    assert dataset.image_ids == ("cat/device.png", "cat/pipe.png")
    for index in range(2):
        with pytest.raises(ImageError, match=r"cat/.*\.png: expected a file, found a pipe or device"):
            dataset.read_bytes(index)


def test_folders_deep_in_each_other_are_refused(tmp_path: Path) -> None:
    before = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")
        with pytest.raises(DatasetError, match="more than 100 folders lie in each other"):
            open_dataset(f"imagefolder:{tmp_path}")
    finally:
        os.chdir(before)


def segmentation(folder: Path, mask: Image.Image | None) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.txt").write_text("ground\nsky\n")
    Image.fromarray(PIXELS).save(folder / "images" / "a.png")
    if mask is None:
        os.mkfifo(folder / "masks" / "a.png")
    else:
        mask.save(folder / "masks" / "a.png")
    return folder


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.fromarray(np.full((9, 7), 2, dtype=np.uint8)), "holds values 2; there are 2 classes"),
        (Image.fromarray(np.zeros((7, 9), dtype=np.uint8)), "9 x 7 pixels, but its image"),
        (Image.fromarray(PIXELS), "mode RGB"),
        (Image.fromarray(np.zeros((9, 7), dtype=np.uint16)), "mode I;16"),
        (Image.fromarray(PIXELS).convert("RGBA"), "mode RGBA"),
        (None, "found a pipe or device"),
    ],
    ids=["label", "size", "colours", "16 bits", "alpha", "pipe"],
)
def test_masks_that_do_not_fit_are_named(tmp_path: Path, mask: Image.Image | None, message: str) -> None:
    dataset = open_dataset(f"segmentation:{segmentation(tmp_path / 's', mask)}")
    with pytest.raises((DatasetError, ImageError), match=message) as error:
        dataset.mask(0)
    assert "masks/a.png" in str(error.value)
