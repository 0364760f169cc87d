from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from PIL import Image

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError, ImageError, MissingDataError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachetool.datasets import Dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)
MASKS = (np.arange(3 * 80).reshape(3, 8, 10) % 4).astype(np.uint8)
VLEN = h5py.vlen_dtype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(**arrays: Any) -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir()))) / "set.h5"  # an open file cannot be written again
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                if isinstance(value, list) and isinstance(value[0], bytes) and name in ("images", "masks"):
                    array = file.create_dataset(name, len(value), dtype=VLEN)
                    for row, data in enumerate(value):
                        array[row] = np.frombuffer(data, dtype=np.uint8)
                else:
                    file[name] = value
        return path

    return write_file


def open_file(file: Path) -> Dataset:
    return open_dataset(f"hdf5:{file}")


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_pixels_with_labels(write: Callable[..., Path]) -> None:
    dataset = open_file(write(images=PIXELS, label=np.array([2, 0, 1]), class_names=["ant", "bee", "cat"]))
    assert dataset.image_ids == ("00000000", "00000001", "00000002")
    assert (dataset.labels, dataset.class_names) == ((2, 0, 1), ("ant", "bee", "cat"))
    assert (dataset.kind, dataset.has_masks) == ("classification", False)
    assert dataset.slug.startswith("set.h5-")
    for index in range(3):
        assert np.array_equal(np.asarray(dataset.decode(index)), PIXELS[index])
        assert dataset.size(index) == (10, 8)


def test_images_and_annotations_follow_the_sorted_ids(write: Callable[..., Path]) -> None:
    file = write(images=PIXELS, label=np.array([5, 6, 7]), masks=MASKS, image_id=["z/1.png", "a/2.png", "m.png"])
    dataset = open_file(file)
    assert dataset.image_ids == ("a/2.png", "m.png", "z/1.png")
    assert dataset.labels == (6, 7, 5)
    assert dataset.class_names == tuple(f"class {number}" for number in range(8))
    assert (dataset.kind, dataset.default_crop) == ("classification", "none")  # a crop would cut the masks
    for index, row in enumerate((1, 2, 0)):
        assert np.array_equal(np.asarray(dataset.decode(index)), PIXELS[row])
        assert np.array_equal(dataset.mask(index), MASKS[row])


def test_encoded_images_and_masks(write: Callable[..., Path]) -> None:
    jpegs = [encoded(pixels, "JPEG") for pixels in PIXELS]
    pngs = [encoded(mask, "PNG") for mask in MASKS]
    dataset = open_file(write(images=jpegs, masks=pngs, class_names=["a", "b", "c", "d"]))
    assert (dataset.kind, dataset.labels, dataset.mask_names) == ("segmentation", None, ("a", "b", "c", "d"))
    assert [dataset.read_bytes(index) for index in range(3)] == jpegs
    assert np.array_equal(np.asarray(dataset.decode(1)), np.asarray(Image.open(io.BytesIO(jpegs[1]))))
    assert np.array_equal(dataset.mask(2), MASKS[2])


def test_masks_are_checked(write: Callable[..., Path]) -> None:
    dataset = open_file(write(images=PIXELS, masks=MASKS, class_names=["a", "b", "c"]))
    with pytest.raises(DatasetError, match="holds values 3; there are 3 classes"):
        dataset.mask(0)
    with pytest.raises(DatasetError, match=r"10 x 7 pixels, but its image .* 10 x 8"):
        open_file(write(images=PIXELS, masks=MASKS[:, :7])).mask(0)


def test_it_survives_pickling(write: Callable[..., Path]) -> None:
    dataset = open_file(write(images=PIXELS))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.read_bytes(2) == dataset.read_bytes(2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": PIXELS}, "no data set `images`, only 'pixels'"),
        ({"images": PIXELS.astype(np.float32)}, "`images` must be uint8 .*found float32"),
        ({"images": PIXELS[:, :, :, 0]}, r"`images` must be uint8 .*found uint8 \(3, 8, 10\)"),
        ({"images": PIXELS.transpose(0, 3, 1, 2)}, r"found uint8 \(3, 3, 8, 10\)"),
        ({"images": PIXELS[:0]}, "`images` is empty"),
        ({"images": PIXELS, "label": np.array([0, 1])}, "`label` has 2 entries for 3 images"),
        ({"images": PIXELS, "label": np.array([0.0, 1.0, 2.0])}, "`label` must be integers"),
        ({"images": PIXELS, "label": np.array([0, -1, 2])}, "label -1 of image '00000001'"),
        ({"images": PIXELS, "label": [0, 1, 2], "class_names": ["a", "b"]}, r"label 2 of image .*not in 0 \.\. 1"),
        ({"images": PIXELS, "class_names": [1, 2]}, "`class_names` must be strings"),
        ({"images": PIXELS, "class_names": ["a", "a"]}, "holds a name twice"),
        ({"images": PIXELS, "image_id": ["a", "b", "a"]}, "image_id 'a' is given 2 times"),
        ({"images": PIXELS, "image_id": ["a", "../b", "/c"]}, r"(?s)'\.\./b' is not a plain .*'/c' is not a plain"),
        ({"images": PIXELS, "masks": MASKS.astype(np.int32)}, "`masks` must be uint8"),
        ({"images": PIXELS, "masks/a": MASKS}, "`masks` is a group"),
    ],
)
def test_other_layouts_are_refused(write: Callable[..., Path], arrays: dict[str, Any], message: str) -> None:
    file = write(**arrays)
    with pytest.raises(DatasetError, match=message):
        open_file(file)


def test_what_is_not_hdf5_or_not_there_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(DatasetError, match="cannot be read as HDF5"):
        open_file(tmp_path / "text.h5")
    with pytest.raises(MissingDataError, match="there is no file"):
        open_file(tmp_path / "nowhere.h5")
    with pytest.raises(UnknownNameError, match="has no splits"):
        open_dataset(f"hdf5:{write(images=PIXELS)}#val")


def test_an_undecodable_image_is_named(write: Callable[..., Path]) -> None:
    dataset = open_file(write(images=[b"nothing"], image_id=["x.jpg"]))
    with pytest.raises(ImageError, match=r"image x\.jpg"):
        dataset.decode(0)
