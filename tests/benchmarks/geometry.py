"""Effective rank of one layer out of core against plain NumPy on the same tokens in memory.

Both sides compute in float64, with the same centring, on as many threads as there are cores: NumPy those of BLAS, the
analysis those of dask. Tokens are float32 in memory there, float16 in the store (warm, opened beforehand) here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import cachetool
from analyses.analyze import analyze
from analyses.geometry.effective_rank import effective_rank
from analyses.geometry.tokens_of import at_layers
from cachetool.store import StoreReader
from tests.benchmarks.ratios import Comparison, in_turns, slower
from tests.benchmarks.storage import IMAGES, make_store

REPEATS, LAYER, REACH = 5, 6, 1.3


def measure(folder: Path) -> Iterator[Comparison]:
    """All comparisons of analyses, in a folder on the disk that is to be measured."""
    path = make_store(folder / "store.zarr", IMAGES)
    store = cachetool.open(path)
    state = at_layers(store, [LAYER])
    tokens = StoreReader(path).read("patches", LAYER, 0, IMAGES).astype(np.float32)
    found: dict[str, float | npt.NDArray[np.float64]] = {}

    def pooled() -> None:
        found["pooled"] = float(effective_rank(state).pooled_effective_rank[0])

    def pooled_in_memory() -> None:
        rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
        rows -= rows.mean(axis=0)
        found["pooled in memory"] = _rank(rows.T @ rows)

    def of_images() -> None:
        found["images"] = effective_rank(state).effective_rank.values[:, 0]

    def of_images_in_memory() -> None:
        ranks = []
        for image in tokens:
            rows = image.astype(np.float64)
            rows -= rows.mean(axis=0)
            ranks.append(_rank(rows @ rows.T))
        found["images in memory"] = np.array(ranks)

    def command() -> None:
        result = analyze("effective-rank", store, layers=[LAYER])
        found["pooled"], found["images"] = (
            float(result.pooled_effective_rank[0]),
            result.effective_rank.values[:, 0],
        )

    def all_in_memory() -> None:
        pooled_in_memory()
        of_images_in_memory()

    counts = {"images": f"{len(tokens):,}", "tokens": f"{tokens[..., 0].size:,}"}
    for what, against, ours, other in (
        ("effective rank of one layer, pooled", "NumPy Gram and eigvalsh in memory", pooled, pooled_in_memory),
        ("effective rank of each image", "NumPy Gram and eigvalsh, image by image", of_images, of_images_in_memory),
        ("`analyze effective-rank`: both", "both of these in NumPy", command, all_in_memory),
    ):
        seconds = in_turns(ours, other, repeats=REPEATS)
        for quantity in ("pooled", "images"):
            if quantity in found:
                np.testing.assert_allclose(found[quantity], found[f"{quantity} in memory"], rtol=1e-6)
        yield slower(what, against, seconds, REACH, counts)


def _rank(gram: npt.NDArray[np.float64]) -> float:
    """Effective rank of the matrix that a Gram matrix comes from."""
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
