"""What is kept of the tokens of a calibration, and which as reference: sums and draws that are independent of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cachetool.edits.statistics import TokenStatistics, choose_reference, find_classes
from cachetool.randomness import generator, order_values
from cachetool.tokens import TokenLayout

SPEC = SimpleNamespace(
    layout=TokenLayout(cls=1, registers=2, rows=2, columns=3),
    channels=4,
    images=SimpleNamespace(
        image_id=tuple(f"{index:03d}.png" for index in range(20)),
        label=tuple((7, -1, 0, 3)[index % 4] for index in range(20)),
        class_name=tuple(("seven", "", "zero", "three")[index % 4] for index in range(20)),
    ),
)
CHOSEN = np.array([1, 2, 3, 5, 8, 13, 17, 19])


def in_order(seed):
    """The chosen images in the order of their random words."""
    words = order_values(seed, [SPEC.images.image_id[image] for image in CHOSEN], None, "reference")
    return [int(CHOSEN[place]) for place in sorted(range(len(CHOSEN)), key=words.tolist().__getitem__)]


@pytest.mark.parametrize(("count", "rows"), [(5, 5), (8, 8), (100, 8)])
@pytest.mark.parametrize("token_type", ["cls", "registers"])
def test_one_token_per_image_in_random_order(token_type, count, rows):
    for seed in (0, 3):
        found = choose_reference(SPEC, token_type, CHOSEN, count, seed)
        assert found.image.tolist() == in_order(seed)[:rows]
        assert found.token.tolist() == [-1] * rows
        assert found.fit.tolist() == [row % 2 == 0 for row in range(rows)]


@pytest.mark.parametrize(("count", "per_image"), [(5, 1), (8, 1), (13, 2), (16, 2), (500, 6)])
def test_random_patches_of_each_image_until_there_are_enough(count, per_image):
    found = choose_reference(SPEC, "patches", CHOSEN, count, 3)
    images = in_order(3)[:count]
    expected = []
    for turn in range(per_image):
        for place, image in enumerate(images):
            draws = generator(3, SPEC.images.image_id[image], None, 0, "reference-patches").random(6)
            patch = sorted(range(6), key=lambda patch: draws[patch])[turn]
            expected.append((image, patch, place % 2 == 0))
    assert list(zip(found.image.tolist(), found.token.tolist(), found.fit.tolist(), strict=True)) == expected[:count]


@pytest.mark.parametrize("count", [0, -1])
def test_none_where_none_is_wanted(count):
    assert choose_reference(SPEC, "cls", CHOSEN, count, 0) is None


@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize("token_type", ["cls", "registers", "patches"])
def test_statistics_of_parts_are_those_of_all_tokens(token_type, covariance):
    random = np.random.default_rng(5)
    count = SPEC.layout.count(token_type)
    tokens = random.normal(3, 2, (20, 2, count, 4)).astype(np.float32)
    classes = find_classes(SPEC, CHOSEN)
    rows = choose_reference(SPEC, token_type, CHOSEN, 13, 0)
    statistics = TokenStatistics(SPEC, token_type, 2, covariance, classes, rows)
    for part in np.split(CHOSEN, [1, 5]):
        for layer in (0, 1):
            statistics.add(layer, statistics.summarize(tokens[part, layer], part))
    found = statistics.arrays(SPEC)

    exact = tokens[CHOSEN].astype(np.float64)
    if token_type == "patches":
        slots = exact.swapaxes(0, 1).reshape(2, 1, -1, 4)
        per_image = exact.mean(axis=2, keepdims=True)
        kept = tokens[rows.image, :, rows.token].swapaxes(0, 1)[:, None]
    else:
        slots = exact.transpose(1, 2, 0, 3)
        per_image = exact
        kept = tokens[rows.image].transpose(1, 2, 0, 3)
    labels = np.array([SPEC.images.label[image] for image in CHOSEN])
    means = np.stack([per_image[labels == label].mean(axis=0) for label in (0, 3, 7)], axis=1)

    def as_stored(per_slot):
        return per_slot if token_type == "registers" else np.squeeze(per_slot, 1)

    expected = {
        "count": np.array(slots.shape[2]),
        "mean": as_stored(slots.mean(axis=2)),
        "variance": as_stored(slots.var(axis=2)),
        "class_mean": (means if token_type == "registers" else means[:, :, 0]).astype(np.float32),
        "reference": as_stored(kept),
        "reference_image": np.array([SPEC.images.image_id[image] for image in rows.image], dtype=object),
        "reference_token": rows.token,
        "reference_fit": rows.fit,
    }
    if covariance:
        centred = slots - slots.mean(axis=2, keepdims=True)
        expected["covariance"] = as_stored(np.einsum("lsrc,lsrd->lscd", centred, centred) / slots.shape[2])
    assert set(found) == {f"{token_type}_{name}" for name in expected}
    for name, values in expected.items():
        assert found[f"{token_type}_{name}"].dtype == values.dtype
        if values.dtype == np.float64:
            np.testing.assert_allclose(found[f"{token_type}_{name}"], values, rtol=1e-10, atol=1e-12)
        elif name == "class_mean":
            np.testing.assert_allclose(found[f"{token_type}_{name}"], values, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found[f"{token_type}_{name}"], values)


@pytest.mark.parametrize("token_type", ["cls", "registers", "patches"])
def test_a_summary_has_the_shapes_that_it_promises_and_sums_in_float64(token_type):
    count, slots = SPEC.layout.count(token_type), 2 if token_type == "registers" else 1
    tokens = np.random.default_rng(6).normal(1, 1, (8, count, 4)).astype(np.float32)
    classes = find_classes(SPEC, CHOSEN)
    found = TokenStatistics(SPEC, token_type, 1, False, classes, None).summarize(tokens, CHOSEN)
    assert found.classes.tolist() == [0, 1, 2]
    per_image = tokens.astype(np.float64)
    per_image = per_image.mean(axis=1, keepdims=True) if token_type == "patches" else per_image
    labels = np.array([SPEC.images.label[image] for image in CHOSEN])
    sums = [per_image[labels == label].sum(axis=0) for label in (0, 3, 7)]
    np.testing.assert_allclose(found.class_sums, np.stack(sums), rtol=1e-12)
    assert (found.rows.shape, found.reference.shape) == ((0,), (slots, 0, 4))
    assert (found.rows.dtype, found.reference.dtype) == (np.int64, np.float32)
    unknown = np.array([1, 5])
    for labelled in (None, classes):
        found = TokenStatistics(SPEC, token_type, 1, False, labelled, None).summarize(tokens[:2], unknown)
        assert (found.classes.shape, found.class_sums.shape) == ((0,), (0, slots, 4))
        assert (found.classes.dtype, found.class_sums.dtype) == (np.int64, np.float64)
    statistics = TokenStatistics(SPEC, token_type, 1, False, None, None)
    statistics.add(0, found)
    assert set(statistics.arrays(SPEC)) == {f"{token_type}_{name}" for name in ("count", "mean", "variance")}


def test_classes_are_those_of_the_images_that_were_chosen():
    found = find_classes(SPEC, CHOSEN)
    assert found.classes.tolist() == [0, 3, 7]
    assert found.counts.tolist() == [1, 2, 1]
    assert found.by_image.tolist() == list(SPEC.images.label)
    assert found.by_image.dtype == np.int64
    arrays = found.arrays(SPEC, CHOSEN)
    assert list(arrays) == ["label", "class", "class_count", "class_name"]
    assert arrays["label"].tolist() == [-1, 0, 3, -1, 7, -1, -1, 3]
    assert arrays["class"] is found.classes
    assert arrays["class_count"] is found.counts
    assert arrays["class_name"].tolist() == ["zero", "three", "seven"]
    bare = SimpleNamespace(images=SimpleNamespace(label=SPEC.images.label, class_name=None))
    assert list(find_classes(bare, CHOSEN).arrays(bare, CHOSEN)) == ["label", "class", "class_count"]


def test_there_are_no_classes_where_no_label_is_known():
    assert find_classes(SPEC, np.array([1, 5, 9])) is None
    assert find_classes(SimpleNamespace(images=SimpleNamespace(label=None)), CHOSEN) is None
