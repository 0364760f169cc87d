from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from cachetool.datasets import hash_images, open_dataset
from cachetool.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from cachetool.datasets import Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for number in range(75):
        (tmp_path / f"{number:03d}.jpg").write_bytes(b"content %d" % number)
    return open_dataset(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("workers", [1, 4])
def test_digests_follow_the_images(dataset: Dataset, workers: int) -> None:
    expected = tuple(hashlib.sha256(b"content %d" % number).hexdigest() for number in range(75))
    assert hash_images(dataset, workers=workers) == expected
    assert hash_images(dataset, 40, workers=workers) == expected[:40]
    assert hash_images(dataset, 0) == ()
    assert hash_images(dataset, 1000) == expected


def test_progress_adds_up(dataset: Dataset) -> None:
    steps: list[int] = []
    hash_images(dataset, progress=steps.append)
    assert sum(steps) == 75
    assert len(steps) > 1


def test_every_unreadable_image_is_named(dataset: Dataset, tmp_path: Path) -> None:
    for name in ("003.jpg", "070.jpg"):
        (tmp_path / name).unlink()
    with pytest.raises(ImageError, match=r"(?s)2 of 75 images .*003\.jpg: No such file.*070\.jpg"):
        hash_images(dataset)


def test_drawn_scenes_hash_the_same_each_time() -> None:
    dataset = open_dataset("shapes")
    assert hash_images(dataset, 5, workers=1) == hash_images(dataset, 5, workers=3)
    assert len(set(hash_images(dataset, 5))) == 5
