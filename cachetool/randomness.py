"""Counter-based random numbers: every draw is a pure function of what it is for, never of when it is made.

Philox (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a key and a counter
into random words. Here the key holds the seed, the purpose and the layer, the counter holds the image and the token:

    key     = 128-bit digest of (purpose, seed, layer)
    counter = (running word, token, two words of the digest of the image id)

so draws depend on neither batch size, order of the images, number of workers nor parts, and two purposes never share
a stream. NumPy's own bit generator makes the words; one instance is moved from counter to counter, since building a
generator for each of 200,000 tokens would cost more than the draws themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, image_id: str, layer: int | None, token: int, purpose: str) -> np.random.Generator:
    """The random stream of one token of one image.

    Parameters
    ----------
    seed
        Any integer.
    image_id
        The image's id in the store, not its position there.
    layer
        The state that is drawn for; None where the draw is shared by all states.
    token
        Index of the token within its type; 0 for draws that concern the whole image.
    purpose
        What is drawn ("noise", "donor", ...): streams of different purposes are independent.
    """
    counter = _counters([image_id], np.array([token]))[0]
    return np.random.Generator(np.random.Philox(key=_key(seed, layer, purpose), counter=counter))


def normals(
    seed: int, image_ids: Sequence[str], layer: int | None, tokens: NDArray[np.int64], channels: int, purpose: str
) -> NDArray[np.float32]:
    """Standard normal numbers, float32 (pair, channel), for pairs of image id and token."""
    drawn = np.empty((len(image_ids), channels), dtype=np.float32)
    for row, stream in enumerate(_streams(seed, image_ids, layer, tokens, purpose)):
        stream.standard_normal(out=drawn[row], dtype=np.float32)
    return drawn


def uniforms(seed: int, image_ids: Sequence[str], layer: int | None, count: int, purpose: str) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 (image, count)."""
    drawn = np.empty((len(image_ids), count), dtype=np.float64)
    tokens = np.zeros(len(image_ids), dtype=np.int64)
    for row, stream in enumerate(_streams(seed, image_ids, layer, tokens, purpose)):
        stream.random(out=drawn[row])
    return drawn


def order_values(seed: int, image_ids: Sequence[str], layer: int | None, purpose: str) -> NDArray[np.uint64]:
    """One random 64-bit word per image, uint64 (image,): sorting by it shuffles images, whatever order they came in."""
    drawn = np.empty(len(image_ids), dtype=np.uint64)
    tokens = np.zeros(len(image_ids), dtype=np.int64)
    for row, stream in enumerate(_streams(seed, image_ids, layer, tokens, purpose)):
        drawn[row] = stream.bit_generator.random_raw()
    return drawn


def random_order(seed: int, image_ids: Sequence[str], layer: int | None, purpose: str) -> NDArray[np.int64]:
    """Positions of the images in random order, int64 (image,); equal words (2^-64) are ordered by image id."""
    values = order_values(seed, image_ids, layer, purpose)
    order = np.argsort(values, kind="stable")
    if (np.diff(values[order]) == 0).any():
        order = np.array(sorted(range(len(image_ids)), key=lambda row: (values[row], image_ids[row])), dtype=np.int64)
    return order.astype(np.int64, copy=False)


def _key(seed: int, layer: int | None, purpose: str) -> NDArray[np.uint64]:
    text = f"{purpose}|{seed}|{'all' if layer is None else layer}"
    return np.frombuffer(blake2b(text.encode(), digest_size=16).digest(), dtype="<u8").astype(np.uint64)


def _counters(image_ids: Sequence[str], tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Counters, uint64 (pair, 4); the first word is left to run."""
    digests = b"".join([blake2b(image_id.encode(), digest_size=16).digest() for image_id in image_ids])
    counters = np.zeros((len(image_ids), 4), dtype=np.uint64)
    counters[:, 1] = tokens
    counters[:, 2:] = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    return counters


def _streams(
    seed: int, image_ids: Sequence[str], layer: int | None, tokens: NDArray[np.int64], purpose: str
) -> Iterator[np.random.Generator]:
    """The same generator again and again, each time moved to the start of the next pair's stream."""
    bits = np.random.Philox(key=_key(seed, layer, purpose), counter=0)
    stream = np.random.Generator(bits)
    start = bits.state  # a fresh state: nothing buffered
    for counter in _counters(image_ids, tokens):
        start["state"]["counter"] = counter
        bits.state = start
        yield stream
