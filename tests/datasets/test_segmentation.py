from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cachetool.datasets import IGNORE, Dataset, open_dataset
from cachetool.errors import DatasetError, ImageError, UnknownNameError

WriteImage = Callable[..., Path]
WriteMask = Callable[..., Path]
CLASSES = "sky\nsea\nsand\n"


@pytest.fixture
def build(tmp_path: Path, write_image: WriteImage, write_mask: WriteMask) -> Callable[..., Path]:
    def build_set(*stems: str, classes: str = CLASSES) -> Path:
        for stem in stems:
            write_image(tmp_path / "images" / f"{stem}.jpg", 12, 9)
            write_mask(tmp_path / "masks" / f"{stem}.png", np.random.default_rng(len(stem)).integers(0, 3, (9, 12)))
        (tmp_path / "classes.txt").write_text(classes)
        return tmp_path

    return build_set


def segmentation(root: Path, split: str = "") -> Dataset:
    return open_dataset(f"segmentation:{root}{split}")


def test_images_masks_and_classes(build: Callable[..., Path], write_mask: WriteMask) -> None:
    root = build("val/b", "val/a")
    values = np.arange(108).reshape(9, 12) % 3
    values[0, :4] = IGNORE
    write_mask(root / "masks" / "val" / "b.png", values)
    dataset = segmentation(root, "#val")
    assert dataset.image_ids == ("images/val/a.jpg", "images/val/b.jpg")
    assert np.array_equal(dataset.mask(1), values)
    assert dataset.mask(1).dtype == np.uint8
    assert dataset.mask_names == ("sky", "sea", "sand")
    assert (dataset.labels, dataset.class_names) == (None, None)
    assert (dataset.kind, dataset.default_crop) == ("segmentation", "none")
    assert dataset.slug.startswith(f"{root.name.replace('_', '_')}-val-")


def test_palette_masks_give_indices_not_colours(build: Callable[..., Path], write_mask: WriteMask) -> None:
    root = build("val/a")
    values = np.arange(108).reshape(9, 12) % 3
    write_mask(root / "masks" / "val" / "a.png", values, palette=True)
    assert np.array_equal(segmentation(root).mask(0), values)


def test_splits(build: Callable[..., Path]) -> None:
    root = build("val/a", "train/b", "train/c")
    assert len(segmentation(root)) == 1  # val where nothing is said
    assert len(segmentation(root, "#train")) == 2
    assert segmentation(root).slug == segmentation(root, "#val").slug != segmentation(root, "#train").slug
    with pytest.raises(UnknownNameError, match=r"no split 'test' in .*; it has train, val"):
        segmentation(root, "#test")


def test_one_split_needs_no_name_and_several_without_val_do(build: Callable[..., Path]) -> None:
    assert segmentation(build("odd/a")).image_ids == ("images/odd/a.jpg",)
    root = build("even/a")
    with pytest.raises(UnknownNameError, match="it has even, odd: add #SPLIT"):
        segmentation(root)


def test_no_splits_at_all(build: Callable[..., Path]) -> None:
    dataset = segmentation(build("a", "b"))
    assert dataset.image_ids == ("images/a.jpg", "images/b.jpg")
    assert dataset.mask(0).shape == (9, 12)


def test_every_file_without_its_counterpart_is_named(build: Callable[..., Path]) -> None:
    root = build("val/a", "val/b", "val/c", "val/d")
    for name in ("masks/val/a.png", "masks/val/b.png", "images/val/c.jpg"):
        (root / name).unlink()
    with pytest.raises(DatasetError, match=r"(?s)val/a\.jpg: no mask.*val/b\.jpg: no mask.*masks/val/c\.png: no image"):
        segmentation(root)


def test_two_images_of_one_mask_are_named(build: Callable[..., Path], write_image: WriteImage) -> None:
    root = build("val/a")
    write_image(root / "images" / "val" / "a.png", 12, 9)
    with pytest.raises(DatasetError, match=r"masks/val/a\.png: belongs to several images"):
        segmentation(root)


def test_missing_parts_are_named(build: Callable[..., Path]) -> None:
    root = build("val/a")
    (root / "classes.txt").unlink()
    (root / "masks").rename(root / "annotations")
    with pytest.raises(DatasetError, match=r"lacks masks and classes\.txt"):
        segmentation(root)


@pytest.mark.parametrize(("classes", "message"), [("", "names 0 classes"), ("a\nb\na\n", "more than once")])
def test_unusable_class_lists_are_refused(build: Callable[..., Path], classes: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        segmentation(build("val/a", classes=classes))


def test_unfitting_masks_are_refused_by_name(build: Callable[..., Path], write_mask: WriteMask) -> None:
    root = build("val/a")
    dataset, mask = segmentation(root), root / "masks" / "val" / "a.png"
    write_mask(mask, np.array([[0, 3, 7] * 4] * 9))
    with pytest.raises(DatasetError, match=r"a\.png holds values 3, 7; there are 3 classes \(0 to 2\)"):
        dataset.mask(0)
    write_mask(mask, np.zeros((12, 9)))
    with pytest.raises(DatasetError, match=r"9 x 12 pixels, but its image .*a\.jpg 12 x 9"):
        dataset.mask(0)
    Image.new("RGB", (12, 9)).save(mask)
    with pytest.raises(DatasetError, match="mode RGB; expected 8-bit class indices"):
        dataset.mask(0)
    mask.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"mask .*a\.png is no image in a known format"):
        dataset.mask(0)


def test_real_photographs(shared: Path) -> None:
    root = shared / "data" / "msrc21"
    train, val = segmentation(root, "#train"), segmentation(root)
    assert (len(train), len(val)) == (354, 235)
    assert len(val.mask_names or ()) == 21
    assert not set(train.image_ids) & set(val.image_ids)
    for index in range(0, 235, 40):
        mask, image = val.mask(index), val.decode(index)
        assert mask.shape == image.size[::-1]
        assert val.size(index) == image.size
        expected = np.asarray(Image.open(root / "masks" / "val" / f"{Path(val.image_ids[index]).stem}.png"))
        assert np.array_equal(mask, expected)
