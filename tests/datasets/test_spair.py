from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("000001-2008_000007-2009_000150:aeroplane", "000002-2009_000150-2008_000007:aeroplane", "000003-a-b:cat")


def annotation(name: str, **changes: Any) -> dict[str, Any]:
    stems, category = name.split(":")
    _, source, target = stems.split("-")
    return {
        "filename": name,
        "src_imname": f"{source}.jpg",
        "trg_imname": f"{target}.jpg",
        "src_imsize": [40, 30, 3],
        "trg_imsize": [40, 30, 3],
        "src_bndbox": [1, 2, 30, 25],
        "trg_bndbox": [3, 4, 39, 29],
        "category": category,
        "src_kps": [[5, 6], [7, 8], [9, 10]],
        "trg_kps": [[11, 12], [13, 14], [15, 16]],
        "kps_ids": ["0", "3", "4"],
        "mirror": 0,
        **changes,
    }


@pytest.fixture(params=["", "SPair-71k"])
def spair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path]
) -> Path:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path))
    root = tmp_path / "spair-71k" / request.param
    for category, stems in (("aeroplane", ["2008_000007", "2009_000150", "unpaired"]), ("cat", ["a", "b"])):
        for stem in stems:
            write_image(root / "JPEGImages" / category / f"{stem}.jpg", 40, 30)
    (root / "Layout" / "large").mkdir(parents=True)
    for split, names in (("test", NAMES), ("trn", NAMES[:1])):
        (root / "Layout" / "large" / f"{split}.txt").write_text("\n".join(names) + "\n")
        (root / "PairAnnotation" / split).mkdir(parents=True)
        for name in names:
            (root / "PairAnnotation" / split / f"{name}.json").write_text(json.dumps(annotation(name)))
    return root


def test_images_and_pairs_of_a_split(spair: Path) -> None:
    dataset = open_dataset("spair-71k")
    assert dataset.image_ids == tuple(
        f"JPEGImages/{image}.jpg" for image in ("aeroplane/2008_000007", "aeroplane/2009_000150", "cat/a", "cat/b")
    )
    assert (dataset.labels, dataset.class_names) == ((0, 0, 1, 1), ("aeroplane", "cat"))
    assert (dataset.kind, dataset.slug, dataset.default_crop) == ("pairs", "spair-71k", "none")
    assert [(pair.source, pair.target) for pair in dataset.pairs] == [(0, 1), (1, 0), (2, 3)]
    pair = dataset.pairs[1]
    assert np.array_equal(pair.source_keypoints, [[5, 6], [7, 8], [9, 10]])
    assert np.array_equal(pair.target_keypoints, [[11, 12], [13, 14], [15, 16]])
    assert (pair.source_box, pair.target_box) == ((1, 2, 30, 25), (3, 4, 39, 29))
    assert (pair.source_size, pair.category) == ((40, 30), "aeroplane")
    train = open_dataset("spair-71k#trn")
    assert (train.slug, len(train), len(train.pairs)) == ("spair-71k-trn", 2, 1)


def test_every_faulty_annotation_is_named(spair: Path) -> None:
    folder = spair / "PairAnnotation" / "test"
    (folder / f"{NAMES[0]}.json").unlink()
    (folder / f"{NAMES[1]}.json").write_text(json.dumps(annotation(NAMES[1], trg_kps=[[1, 2]])))
    (folder / f"{NAMES[2]}.json").write_text(json.dumps(annotation(NAMES[2], src_imname="../../etc.jpg")))
    with pytest.raises(DatasetError) as caught:
        _ = open_dataset("spair-71k").pairs
    text = str(caught.value)
    assert f"{NAMES[0]}.json: cannot be read" in text
    assert f"{NAMES[1]}.json: 3 src_kps, but 1 trg_kps" in text
    assert f"{NAMES[2]}.json: JPEGImages/cat/../../etc.jpg is not in the layout" in text


def test_missing_images_and_layouts_are_named(spair: Path) -> None:
    for stem in ("a", "b"):
        (spair / "JPEGImages" / "cat" / f"{stem}.jpg").unlink()
    with pytest.raises(DatasetError, match=r"(?s)cat/a\.jpg.*cat/b\.jpg"):
        open_dataset("spair-71k")
    with pytest.raises(DatasetError, match=r"lacks Layout/large/val\.txt"):
        open_dataset("spair-71k#val")
    (spair / "Layout" / "large" / "trn.txt").write_text("000001-a:cat\n../../x-a-b:cat\n")
    with pytest.raises(DatasetError, match=r"(?s)000001-a:cat.*\.\./\.\./x-a-b:cat"):
        open_dataset("spair-71k#trn")
