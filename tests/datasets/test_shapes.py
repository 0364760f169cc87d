from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cachetool.datasets import open_dataset
from cachetool.datasets.outlines import CLASS_NAMES
from cachetool.datasets.scenes import draw_scene
from cachetool.errors import UnknownNameError


def test_splits_slugs_and_sizes() -> None:
    assert (len(open_dataset("shapes")), open_dataset("shapes").slug) == (1000, "shapes")
    assert open_dataset("shapes#val").slug == "shapes"
    assert (len(open_dataset("shapes#train")), open_dataset("shapes#train").slug) == (2000, "shapes-train")
    assert open_dataset("shapes#calibration").slug == "shapes-calibration"
    with pytest.raises(UnknownNameError, match=r"no split 'test'; there are val, train, calibration \(default val\)"):
        open_dataset("shapes#test")


def test_ids_are_sorted_and_differ_between_splits() -> None:
    val, train = open_dataset("shapes"), open_dataset("shapes#train")
    assert list(train.image_ids) == sorted(train.image_ids)
    assert not set(val.image_ids) & set(train.image_ids)


@pytest.mark.parametrize("split", ["val", "train", "calibration"])
def test_labels_are_those_of_whole_scenes_of_any_size(split: str) -> None:
    labels = open_dataset(f"shapes#{split}").labels
    assert labels is not None
    for index in range(0, len(labels), 97):
        assert [draw_scene(split, index, size=size).label for size in (16, 40)] == [labels[index]] * 2


def test_pixels_labels_and_masks_are_those_of_the_scenes() -> None:
    dataset = open_dataset("shapes#calibration")
    assert dataset.labels is not None
    for index in range(0, 1000, 40):
        scene = draw_scene("calibration", index)
        assert np.array_equal(np.asarray(dataset.decode(index)), scene.image)
        assert dataset.labels[index] == scene.label
    assert np.array_equal(dataset.mask(0), draw_scene("calibration", 0).mask)
    assert dataset.class_names == CLASS_NAMES
    assert dataset.mask_names == ("background", *CLASS_NAMES)
    assert (dataset.kind, dataset.default_crop) == ("classification", "none")


def test_bytes_do_not_depend_on_when_they_are_drawn() -> None:
    first, second = open_dataset("shapes"), open_dataset("shapes")
    assert first.read_bytes(17) == second.read_bytes(17) != first.read_bytes(18)
    assert first.read_bytes(17) != open_dataset("shapes#train").read_bytes(17)


def test_pairs_are_within_a_class_balanced_and_exact() -> None:
    dataset = open_dataset("shapes")
    pairs, labels = dataset.pairs, dataset.labels
    assert labels is not None
    assert len(pairs) > 1900
    assert len({(pair.source, pair.target) for pair in pairs}) == len(pairs)
    assert all(pair.source != pair.target for pair in pairs)
    assert all(labels[pair.source] == labels[pair.target] for pair in pairs)
    assert max(Counter(pair.source for pair in pairs).values()) <= 2
    assert max(Counter(pair.target for pair in pairs).values()) <= 2
    for pair in pairs[::400]:
        source, target = draw_scene("val", pair.source), draw_scene("val", pair.target)
        both = source.visible & target.visible
        assert np.array_equal(pair.source_keypoints, source.keypoints[both])
        assert np.array_equal(pair.target_keypoints, target.keypoints[both])
        assert (pair.category, pair.target_box) == (CLASS_NAMES[target.label], target.box)
        assert pair.source_size == (128, 128)
