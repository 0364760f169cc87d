"""Analyses out of core against the same computation on data in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import cachetool
from analyses.analyze import analyze
from cachetool.store import StoreReader
from tests.benchmarks.ratios import Comparison, in_turns, slower
from tests.benchmarks.storage import IMAGES, make_store

REPEATS, LAYER = 3, 6


def measure(folder: Path) -> Iterator[Comparison]:
    """All comparisons of analyses, in a folder on the disk that is to be measured."""
    path = make_store(folder / "store.zarr", IMAGES)
    store = cachetool.open(path)
    tokens = StoreReader(path).read("patches", LAYER, 0, IMAGES).astype(np.float32).reshape(-1, store.sizes["channel"])
    found: dict[str, float] = {}

    def ours() -> None:
        # Of every image too, which the other does not give.
        found["ours"] = float(analyze("effective-rank", store, layers=[LAYER]).pooled_effective_rank[0])

    def in_memory() -> None:
        rows = tokens.astype(np.float64)
        rows -= rows.mean(axis=0)
        singular = np.sqrt(np.clip(np.linalg.eigh(rows.T @ rows)[0], 0, None))
        shares = singular / singular.sum()
        found["other"] = float(np.exp(-(shares * np.log(shares)).sum()))

    seconds = in_turns(ours, in_memory, repeats=REPEATS)
    np.testing.assert_allclose(found["ours"], found["other"], rtol=1e-6)
    yield slower(
        "effective rank of one layer", "NumPy Gram and eigh in memory", seconds, 1.3, {"tokens": f"{len(tokens):,}"}
    )
