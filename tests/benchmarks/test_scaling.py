"""Extraction and replay take no more memory for more images, beyond the blocks that are in hand at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.memory_of_analyses import MEGABYTE
from tests.benchmarks.scaling import TINY, Measured, Series, table

BLOCK = 48
"""Images a block: less than a fifth of the usual size, so that a fifth of the images tells as much."""

ALLOWANCE = 9 * MEGABYTE
"""Peaks of one number of images differ by up to 5 MB from run to run; 288 more images would take 15 MB if the states of
two replays were kept, and 99 MB if those of the extraction were."""


def test_a_straight_line_is_found_again() -> None:
    series = Series("replay", "edits", (1, 2, 4), ({}, {}, {}))
    measured = Measured(series, tuple({"seconds": 3 + 2 * value, "blocks": 5 * value} for value in series.values))
    assert measured.fit("seconds") == pytest.approx((3, 2, 1))
    assert measured.exponent("blocks") == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from Linux's /proc")
@pytest.mark.parametrize("operation", ["extract", "replay"])
def test_memory_does_not_grow_with_images(operation: str, tmp_path: Path) -> None:
    images = (192, 480)  # from four blocks on; a block is computed while one is written
    points = tuple({"model": TINY, "edits": 2, "images": count, "block": BLOCK} for count in images)
    measured = Series(operation, "images", images, points).measured(tmp_path)
    print("\n" + table([measured]))
    fewer, more = measured.column("peak_bytes")
    assert more < fewer + ALLOWANCE
