"""The memory of every announced analysis stays within the bound of its documentation, whatever the number of images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyses.analysis import analyses
from tests.benchmarks.memory_of_analyses import ALLOWANCE, CASES, make_stores, measure, table


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """Stores of 1 GB, which pytest's own folders would keep for three sessions."""
    with tempfile.TemporaryDirectory() as folder:
        make_stores(Path(folder))
        yield Path(folder)


def test_every_announced_analysis_has_a_bound() -> None:
    assert set(analyses()) == set(CASES)


SAMPLE = (
    "attention-divergence", "cka-between-runs", "nearest-patches", "patch-similarity", "register-probes", "token-norms",
)  # fmt: skip
"""One of those that hold attention, pooled moments, candidates, two stores, heads and a block; others hold the same."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from Linux's /proc")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=getattr(pytest.mark, "slow" if name in SAMPLE else "exhaustive")) for name in CASES],
)
def test_peak_is_within_the_bound(name: str, root: Path) -> None:
    peak = measure(name, root)
    print("\n" + table([peak]))
    assert peak.whole < peak.bound + ALLOWANCE
    if not CASES[name].grows:
        # Else neither this test nor the next line could fail.
        assert peak.data > 4 * peak.bound
        assert peak.whole < peak.quarter + ALLOWANCE
