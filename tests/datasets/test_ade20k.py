from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(params=["", "ADEChallengeData2016"])
def ade(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_image: Callable[..., Path],
    write_mask: Callable[..., Path],
) -> Path:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path))
    root = tmp_path / "ade20k" / request.param
    for folder, stem in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        write_image(root / "images" / folder / f"{stem}.jpg", 3, 2)
        write_mask(root / "annotations" / folder / f"{stem}.png", np.array([[0, 1, 2], [150, 149, 0]]))
    return root


def test_other_is_ignored_and_classes_count_from_zero(ade: Path) -> None:
    dataset = open_dataset("ade20k")
    assert dataset.image_ids == ("images/validation/ADE_val_00000001.jpg",)
    assert dataset.mask(0).tolist() == [[255, 0, 1], [149, 148, 255]]
    assert len(dataset.mask_names or ()) == 150
    train = open_dataset("ade20k#train")
    assert (train.image_ids, train.slug) == (("images/training/ADE_train_00000001.jpg",), "ade20k-train")


def test_class_names_come_from_the_published_table(ade: Path) -> None:
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{n}\t0.1\t5\t6\t1\tname {n}, synonym" for n in range(1, 151))]
    (ade / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    names = open_dataset("ade20k").mask_names
    assert names is not None
    assert (names[0], names[149]) == ("name 1", "name 150")
    (ade / "objectInfo150.txt").write_text("\n".join(rows[:100]))
    with pytest.raises(DatasetError, match="names 99 classes, expected 150"):
        open_dataset("ade20k")


@pytest.mark.parametrize("value", [151, 255])
def test_values_beyond_the_classes_are_refused(ade: Path, write_mask: Callable[..., Path], value: int) -> None:
    write_mask(ade / "annotations" / "validation" / "ADE_val_00000001.png", np.full((2, 3), value))
    with pytest.raises(DatasetError, match=rf"ADE_val_00000001\.png holds values {value}; expected 0"):
        open_dataset("ade20k").mask(0)


def test_images_without_a_mask_and_missing_folders_are_named(ade: Path, write_image: Callable[..., Path]) -> None:
    write_image(ade / "images" / "validation" / "ADE_val_00000007.jpg")
    with pytest.raises(DatasetError, match=r"without a mask:\n.*ADE_val_00000007\.png"):
        open_dataset("ade20k")
    (ade / "annotations" / "training").rename(ade / "elsewhere")
    with pytest.raises(DatasetError, match="lacks annotations/training"):
        open_dataset("ade20k#train")
