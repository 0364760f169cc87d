from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from timm.data import ImageNetInfo

from cachetool.datasets import Dataset, open_dataset
from cachetool.errors import DatasetError, UnknownNameError

WriteImage = Callable[..., Path]
WNIDS: list[str] = ImageNetInfo("imagenet-1k").label_names()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "sets"))
    (tmp_path / "sets" / "imagenet-val").mkdir(parents=True)
    return tmp_path / "sets" / "imagenet-val"


def validation() -> Dataset:
    return open_dataset("imagenet-val")


def write_devkit(data: Path, truth: list[int], ids: dict[int, str]) -> None:
    """The layout of the published kit: a struct array `synsets` (synset, 1), inner nodes after the 1000 classes."""
    data.mkdir(parents=True)
    synsets = np.zeros(
        (len(ids), 1), dtype=[(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")]
    )
    for row, (number, wnid) in enumerate(ids.items()):
        synsets[row, 0] = (float(number), wnid, "some words, with commas", 0.0)
    savemat(data / "meta.mat", {"synsets": synsets})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in truth))


def test_class_directories_keep_the_customary_labels_also_in_a_subset(root: Path, write_image: WriteImage) -> None:
    for number in (999, 0, 207):
        write_image(root / WNIDS[number] / "ILSVRC2012_val_00000001.JPEG")
    dataset = validation()
    assert dataset.image_ids == tuple(f"{WNIDS[n]}/ILSVRC2012_val_00000001.JPEG" for n in (0, 207, 999))
    assert dataset.labels == (0, 207, 999)
    assert dataset.class_names == tuple(sorted(WNIDS))
    assert dataset.slug == "imagenet-val"


@pytest.mark.parametrize(
    "place", ["imagenet-val/ILSVRC2012_devkit_t12", "imagenet-val/devkit", "ILSVRC2012_devkit_t12"]
)
def test_flat_images_are_labelled_through_the_kits_own_ids(root: Path, write_image: WriteImage, place: str) -> None:
    for serial in (1, 2, 3):
        write_image(root / f"ILSVRC2012_val_{serial:08d}.JPEG")
    # The kit's ids are not in the order of the WordNet ids: 1 is the Kit fox.
    ids = {1: "n02119789", 2: WNIDS[0], 3: WNIDS[500], 1001: "n00001740"}
    write_devkit(root.parent / place / "data", [3, 1, 2], ids)
    dataset = validation()
    assert dataset.labels == (500, WNIDS.index("n02119789"), 0)
    assert dataset.image_ids[0] == "ILSVRC2012_val_00000001.JPEG"


def test_flat_images_without_the_kit_say_what_to_do(root: Path, write_image: WriteImage) -> None:
    write_image(root / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DatasetError, match="development kit: put ILSVRC2012_devkit_t12/"):
        validation()


def test_images_beyond_the_ground_truth_are_named(root: Path, write_image: WriteImage) -> None:
    for serial in (1, 2, 3):
        write_image(root / f"ILSVRC2012_val_{serial:08d}.JPEG")
    write_devkit(root / "devkit" / "data", [1], {1: WNIDS[4]})
    with pytest.raises(DatasetError, match=r"(?s)1 lines, too few.*00000002.*00000003"):
        validation()


def test_inner_nodes_in_the_ground_truth_are_named(root: Path, write_image: WriteImage) -> None:
    write_image(root / "ILSVRC2012_val_00000001.JPEG")
    write_devkit(root / "devkit" / "data", [1, 1001, 7], {1: WNIDS[4], 1001: "n00001740"})
    with pytest.raises(DatasetError, match=r"(?s)does not map.*\n  7\n  1001"):
        validation()


def test_a_damaged_kit_is_named(root: Path, write_image: WriteImage) -> None:
    write_image(root / "ILSVRC2012_val_00000001.JPEG")
    write_devkit(root / "devkit" / "data", [1], {1: WNIDS[4]})
    (root / "devkit" / "data" / "meta.mat").write_bytes(b"no matlab")
    with pytest.raises(DatasetError, match=r"meta\.mat cannot be read as a MATLAB file"):
        validation()
    savemat(root / "devkit" / "data" / "meta.mat", {"other": 1.0})
    with pytest.raises(DatasetError, match=r"lacks the variable synsets; it holds other"):
        validation()


def test_directories_that_are_no_classes_are_named(root: Path, write_image: WriteImage) -> None:
    for name in (WNIDS[0], "n99999999", "goldfish"):
        write_image(root / name / "x.JPEG")
    with pytest.raises(DatasetError, match=r"(?s)use imagefolder:.*goldfish\n.*n99999999"):
        validation()


def test_an_empty_folder_and_a_split_are_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="holds no images"):
        validation()
    with pytest.raises(UnknownNameError, match="has no splits"):
        open_dataset("imagenet-val#train")
