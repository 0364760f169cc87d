"""Which image donates its tokens to which: derangements of a data set, drawn from the seed and the image ids alone.

Images are ordered by a random word of their own; the donor of each is the next one, and the last one's is the first:
one random cycle through all images (or through each class). A donor depends neither on the order of the store nor on
batches.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.grammar import listed
from cachetool.edits.sources import Images
from cachetool.errors import InvalidEditError
from cachetool.randomness import random_order

Rule = Literal["any", "same-class", "other-class"]
"""Who may donate: any other image, another image of the same class, or an image of another class."""

NO_DONOR = -1
"""Marks images that receive nothing: those that could not be read."""


def draw_donors(
    images: Images, readable: NDArray[np.bool_], rule: Rule, seed: int, layer: int | None
) -> NDArray[np.int64]:
    """Index of each image's donor, int64 (image,).

    A derangement of the readable images: nobody donates to itself, everybody donates once. Images that could not be
    read neither donate nor receive (-1). `layer` is None where donors are the same at every state.

    Raises
    ------
    InvalidEditError
        A single image; no labels, unknown labels or a class of one image where classes matter; a class
        with more than half of the images where donors must be of another class.
    """
    eligible = np.flatnonzero(readable)
    if len(eligible) < 2:
        raise InvalidEditError(
            f"a donor must be another image, but {len(eligible)} of {len(readable)} images can be read; "
            "use two readable images or more"
        )
    order = eligible[random_order(seed, [images.image_id[index] for index in eligible.tolist()], layer, "donor")]
    donors = np.full(len(readable), NO_DONOR, dtype=np.int64)
    match rule:
        case "any":
            donors[order] = np.roll(order, -1)
        case "same-class":
            donors[order] = _within_classes(order, _known_labels(images, order, rule), images)
        case "other-class":
            donors[order] = _across_classes(order, _known_labels(images, order, rule), images)
    return donors


def _within_classes(order: NDArray[np.int64], labels: NDArray[np.int64], images: Images) -> NDArray[np.int64]:
    """Donors of the images in `order` (image,), each the next of its class; `labels` (image,) in the same order."""
    classes, counts = np.unique(labels, return_counts=True)
    if (counts == 1).any():
        alone = classes[counts == 1]
        names = [_class_text(label, labels, order, images) for label in alone]
        raise InvalidEditError(
            f"a donor of the same class needs two readable images of each class, but these have one: {listed(names)}; "
            "leave them out, or add images"
        )
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(counts)
    following = np.arange(1, len(order) + 1)
    following[ends - 1] = ends - counts
    donors = np.empty_like(order)
    donors[by_class] = order[by_class[following]]
    return donors


def _across_classes(order: NDArray[np.int64], labels: NDArray[np.int64], images: Images) -> NDArray[np.int64]:
    """Donors of another class for the images in `order` (image,): the cyclic order, repaired by swaps.

    An image i whose donor is of its own class c swaps donors with the first following image j that is not of class c
    and has a donor not of class c. Both are right afterwards. With n_c images of class c, at most 2 n_c - 1 images are
    of class c or have such a donor (i is both), so while no class exceeds half of the images there is always such a j,
    and one pass is enough.
    """
    count = len(order)
    classes, counts = np.unique(labels, return_counts=True)
    if (2 * counts > count).any():
        large = classes[counts.argmax()]
        raise InvalidEditError(
            f"donors of another class exist only if no class has more than half of the {count} readable images, but "
            f"{_class_text(large, labels, order, images)} has {counts.max()}; leave images of it out, or add others"
        )
    donor = np.roll(np.arange(count), -1)
    for position in np.flatnonzero(labels == labels[donor]):
        own = labels[position]
        if labels[donor[position]] != own:
            continue  # put right by an earlier swap
        start, size = 1, 64
        while True:
            candidates = (position + np.arange(start, start + size)) % count
            valid = (labels[candidates] != own) & (labels[donor[candidates]] != own)
            if valid.any():
                break
            start, size = start + size, 2 * size
        other = candidates[valid.argmax()]
        donor[[position, other]] = donor[[other, position]]
    return order[donor]


def _known_labels(images: Images, order: NDArray[np.int64], rule: Rule) -> NDArray[np.int64]:
    """Labels of the images in `order`; all of them must be known."""
    if images.label is None:
        raise InvalidEditError(f"{rule} donors need the class of each image, but the data set has no labels")
    labels = np.asarray(images.label, dtype=np.int64)[order]
    unknown = [images.image_id[index] for index in np.sort(order[labels < 0]).tolist()]
    if unknown:
        raise InvalidEditError(
            f"{rule} donors need the class of each image, but it is unknown for {listed(unknown)}; leave them out"
        )
    return labels


def _class_text(label: int, labels: NDArray[np.int64], order: NDArray[np.int64], images: Images) -> str:
    """A class in words: its index, and its name where known."""
    if images.class_name is None:
        return f"class {label}"
    return f"class {label} ({images.class_name[order[np.flatnonzero(labels == label)[0]]]})"
