from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.edits.donors import draw_donors
from cachetool.errors import InvalidEditError
from cachetool.randomness import order_values


def table(ids, labels=None, names=None):
    return SimpleNamespace(image_id=ids, sha256=ids, label=labels, class_name=names)


def draw(ids, rule="any", labels=None, readable=None, seed=0, layer=None, names=None):
    readable = np.ones(len(ids), dtype=bool) if readable is None else np.asarray(readable)
    return draw_donors(table(ids, labels, names), readable, rule, seed, layer)


IDS = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=40, unique=True)


@given(IDS, st.integers(0, 2**64), st.data())
@settings(max_examples=60, deadline=None)
def test_donors_are_a_derangement_of_the_readable_images(ids, seed, data):
    readable = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    if readable.sum() < 2:
        readable[:2] = True
    donors = draw(ids, readable=readable, seed=seed)
    eligible = np.flatnonzero(readable)
    assert (donors[~readable] == -1).all()
    np.testing.assert_array_equal(np.sort(donors[eligible]), eligible)
    assert (donors[eligible] != eligible).all()


@given(IDS, st.integers(0, 99), st.sampled_from(["any", "same-class", "other-class"]), st.randoms())
@settings(max_examples=60, deadline=None)
def test_donors_do_not_depend_on_the_order_of_the_images(ids, seed, rule, random):
    ids = ids[: len(ids) // 2 * 2]
    labels = [index % 2 for index in range(len(ids))] if len(ids) >= 4 else [0, 1]
    if rule == "same-class" and len(ids) < 4:
        labels = [0, 0]
    if rule == "any":
        labels = None
    order = list(range(len(ids)))
    random.shuffle(order)
    donors = draw(ids, rule, labels, seed=seed)
    permuted = draw([ids[row] for row in order], rule, labels and [labels[row] for row in order], seed=seed)
    assert {ids[row]: ids[donors[row]] for row in order} == {
        ids[row]: ids[order[permuted[place]]] for place, row in enumerate(order)
    }


@given(st.lists(st.integers(2, 6), min_size=1, max_size=6), st.integers(0, 99), st.randoms())
@settings(max_examples=60, deadline=None)
def test_same_class_donors(sizes, seed, random):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(labels)
    donors = draw([str(index) for index in range(len(labels))], "same-class", labels, seed=seed)
    np.testing.assert_array_equal(np.sort(donors), np.arange(len(labels)))
    assert all(donor != image and labels[donor] == labels[image] for image, donor in enumerate(donors))


@given(st.lists(st.integers(1, 12), min_size=2, max_size=7), st.integers(0, 99), st.randoms())
@settings(max_examples=150, deadline=None)
def test_other_class_donors_exist_exactly_where_no_class_has_more_than_half(sizes, seed, random):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(labels)
    ids = [str(index) for index in range(len(labels))]
    if 2 * max(sizes) > len(labels):
        with pytest.raises(InvalidEditError, match=f"class {np.argmax(sizes)} has {max(sizes)}"):
            draw(ids, "other-class", labels, seed=seed)
        return
    donors = draw(ids, "other-class", labels, seed=seed)
    np.testing.assert_array_equal(np.sort(donors), np.arange(len(labels)))
    assert all(labels[donor] != labels[image] for image, donor in enumerate(donors))


def in_order(ids, seed=0, layer=None):
    """Positions of the images in the order of their random words."""
    return sorted(range(len(ids)), key=order_values(seed, ids, layer, "donor").tolist().__getitem__)


def test_the_donor_of_each_is_the_next_in_random_order():
    ids = [str(index) for index in range(40)]
    for seed, layer in ((0, None), (3, None), (3, 5)):
        order = in_order(ids, seed, layer)
        expected = {image: order[(place + 1) % 40] for place, image in enumerate(order)}
        assert dict(enumerate(draw(ids, seed=seed, layer=layer))) == expected
        apart = draw(ids, "other-class", list(range(40)), seed=seed, layer=layer)
        assert dict(enumerate(apart)) == expected, "where no two are of a class, nothing is repaired"


def test_two_images_donate_to_each_other():
    assert draw(["a", "b"]).tolist() == [1, 0]


def test_the_donor_of_each_is_the_next_of_its_class():
    ids, labels = [str(index) for index in range(40)], [index % 3 for index in range(40)]
    donors = draw(ids, "same-class", labels, seed=2)
    for label in range(3):
        order = [image for image in in_order(ids, 2) if labels[image] == label]
        assert [donors[image] for image in order] == [*order[1:], order[0]]


@pytest.mark.parametrize("runs", [[100, 60, 40], [70, 10, 90, 30]])
def test_a_donor_of_the_own_class_is_swapped_with_the_first_that_helps_both(runs):
    ids = [str(index) for index in range(200)]
    order = in_order(ids)
    of_place = [run % 3 for run, length in enumerate(runs) for _ in range(length)]
    donor = [(place + 1) % 200 for place in range(200)]
    for place in range(200):
        own = of_place[place]
        if of_place[donor[place]] == own:
            following = [(place + step) % 200 for step in range(1, 200)]
            other = next(at for at in following if own not in (of_place[at], of_place[donor[at]]))
            donor[place], donor[other] = donor[other], donor[place]
    labels = [0] * 200
    for place, image in enumerate(order):
        labels[image] = of_place[place]
    found = draw(ids, "other-class", labels)
    assert [found[image] for image in order] == [order[place] for place in donor]


def test_donors_differ_by_seed_and_by_layer_where_asked():
    ids = [str(index) for index in range(50)]
    drawn = [draw(ids, seed=0), draw(ids, seed=1), draw(ids, layer=1), draw(ids, layer=2)]
    assert len({tuple(donors) for donors in drawn}) == 4


def test_one_image_alone_has_no_donor():
    with pytest.raises(InvalidEditError, match="1 of 2 images can be read"):
        draw(["a", "b"], readable=[True, False])


def test_classes_of_one_are_all_named():
    with pytest.raises(InvalidEditError, match=r"class 1 \(cat\), class 7 \(dog\); leave"):
        draw(list("abcd"), "same-class", [3, 1, 7, 3], names=["owl", "cat", "dog", "owl"])


def test_a_class_left_alone_by_an_unreadable_image_is_named():
    with pytest.raises(InvalidEditError, match="have one: class 2;"):
        draw(list("abcd"), "same-class", [1, 1, 2, 2], readable=[True, True, True, False])


@pytest.mark.parametrize("rule", ["same-class", "other-class"])
def test_labels_must_be_known(rule):
    with pytest.raises(InvalidEditError, match="no labels"):
        draw(list("abc"), rule)
    with pytest.raises(InvalidEditError, match="unknown for a, c; leave"):
        draw(list("abc"), rule, [-1, 1, -1])
