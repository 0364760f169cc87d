from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEMS = {"train": ["2007_000032", "2007_000039"], "val": ["2008_000001", "2007_000033"]}


@pytest.fixture(params=["", "VOC2012", "VOCdevkit/VOC2012"])
def voc(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_image: Callable[..., Path],
    write_mask: Callable[..., Path],
) -> Path:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path))
    root = tmp_path / "voc2012" / request.param
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, stems in STEMS.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for number, stem in enumerate(stems):
            write_image(root / "JPEGImages" / f"{stem}.jpg", 10, 8)
            values = np.full((8, 10), 255)
            values[2:6, 3:9] = 15 + number
            write_mask(root / "SegmentationClass" / f"{stem}.png", values, palette=True)
    write_image(root / "JPEGImages" / "2011_000000.jpg")  # a photograph without segmentation
    return root


def test_segmented_images_of_a_split(voc: Path) -> None:
    dataset = open_dataset("voc2012")
    assert dataset.image_ids == ("JPEGImages/2007_000033.jpg", "JPEGImages/2008_000001.jpg")
    assert dataset.slug == "voc2012"
    assert dataset.mask_names is not None
    assert (len(dataset.mask_names), dataset.mask_names[15]) == (21, "person")
    assert set(np.unique(dataset.mask(1))) == {15, 255}
    assert dataset.default_crop == "none"
    assert open_dataset("voc2012#val").slug == "voc2012"
    assert open_dataset("voc2012#train").slug == "voc2012-train"
    assert open_dataset("voc2012#train").image_ids[0] == "JPEGImages/2007_000032.jpg"


def test_every_missing_file_is_named(voc: Path) -> None:
    (voc / "JPEGImages" / "2007_000033.jpg").unlink()
    (voc / "SegmentationClass" / "2008_000001.png").unlink()
    with pytest.raises(DatasetError, match=r"(?s)2007_000033\.jpg.*2008_000001\.png"):
        open_dataset("voc2012")


def test_missing_lists_are_named(voc: Path) -> None:
    with pytest.raises(DatasetError, match=r"lacks ImageSets/Segmentation/trainval\.txt"):
        open_dataset("voc2012#trainval")
