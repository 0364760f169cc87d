"""Exact nearest neighbours among the images of one arm by cosine, with ties in an order that knows no labels."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

RESOLUTION = 2.0**-30
"""Step to which cosines are rounded. Sums of float64 products differ by less with the place of an image in a matrix, so
that equal features tie whatever that place is; the fraction of a step has room for the order of 4 million images."""
BLOCK_BYTES = 2**27
"""Memory for the similarities of one block of queries."""


def nearest_neighbours(
    features: npt.NDArray[np.float32], image_ids: Sequence[str], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Find the other images that are most similar to each image.

    Ties are broken by a random order of the images, which starts at a random place for each query; both follow from
    digests of the image ids. Images are stored class by class in many data sets, so that an order by position would
    credit features that are all alike, such as a [CLS] token that an edit made constant.

    Parameters
    ----------
    features
        (image, feature); a vector of zeros has cosine 0 with every other.
    image_ids
        Id of each image.
    count
        Neighbours of each image; at most the number of images less one.

    Returns
    -------
    Neighbours, int64 (image, rank), positions in `features`, and their cosines, float64 (image, rank), most similar
    first.
    """
    import torch  # loads for seconds, which naming a task should not cost

    images = len(features)
    digests = np.array([_digest(image_id) for image_id in image_ids], dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((np.arange(images), digests[:, 0]))
    start = (digests[:, 1] % np.uint64(max(images, 1))).astype(np.int64)
    exact = features.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    unit = exact / np.where(lengths > 0, lengths, 1)
    database = unit[order]
    column = np.empty(images, dtype=np.int64)
    column[order] = np.arange(images)

    # Cosines in whole steps plus a fraction of a step that grows with the rotated random order: no two are equal.
    fractions = np.tile(np.arange(images) / max(images, 1), 2)
    rotated = np.lib.stride_tricks.sliding_window_view(fractions, images) if images else fractions[None]
    neighbours = np.empty((images, count), dtype=np.int64)
    cosines = np.empty((images, count))
    block = max(1, BLOCK_BYTES // (8 * max(images, 1)))
    for first in range(0, images, block):
        rows = np.arange(first, min(first + block, images))
        ranked = np.rint(unit[rows] @ database.T / RESOLUTION) + rotated[start[rows]]
        ranked[np.arange(len(rows)), column[rows]] = -np.inf
        values, columns = torch.topk(torch.from_numpy(ranked), count)
        neighbours[rows] = order[columns.numpy()]
        cosines[rows] = np.floor(values.numpy()) * RESOLUTION
    return neighbours, cosines


def vote(labels: npt.NDArray[np.int64], cosines: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.int64]:
    """Class with the largest sum of exp(cosine / temperature) over neighbours, (image,); the nearest of equals wins.

    Wu, Xiong, Yu and Lin, "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018,
    section 3.4.

    Parameters
    ----------
    labels
        Class of each neighbour, (image, rank).
    cosines
        Cosine of each neighbour, (image, rank), most similar first.
    temperature
        In units of cosine.
    """
    weights = np.exp((cosines - cosines[:, :1]) / temperature)
    votes = np.zeros_like(weights)
    for rank in range(labels.shape[1]):
        votes += weights[:, rank, None] * (labels == labels[:, rank, None])
    return np.asarray(labels[np.arange(len(labels)), votes.argmax(axis=1)], dtype=np.int64)


def _digest(image_id: str) -> tuple[int, int]:
    digest = blake2b(image_id.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
