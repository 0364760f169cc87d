"""Small arrays, documents and flags are derived again from what is sound."""

from __future__ import annotations

import pytest
import xarray as xr

import cachetool
from tests.verifying.conftest import Made, flip, run_of, tree, where


@pytest.mark.parametrize("name", ["edited", "donor", "off_distribution_norm_percentile"])
def test_lost_arrays_of_a_run_come_back_by_a_replay(made: Made, name: str) -> None:
    run = run_of(made, "shuffle")
    before = tree(run)
    (file,) = (run / name).glob("c*")
    file.unlink()
    assert where(cachetool.verify(run, recompute=0)) == {("table", name)}
    assert cachetool.verify(run, repair=True, recompute=0).sound
    assert tree(run) == before


SMALL = ("layer", "token_type", "row", "col", "image_id", "label", "class_name", "norm_weight", "norm_bias")
"""Small arrays, of which the quick tests derive every other one of a cache, and the rest of a run."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=[] if (row + column) % 2 == 0 else pytest.mark.slow)
        for row, kind in enumerate(("cache", "run"))
        for column, name in enumerate(SMALL)
    ],
)
def test_small_arrays_are_derived(made: Made, name: str, kind: str) -> None:
    path = made.cache if kind == "cache" else made.runs[0]
    before = tree(path)
    (path / name / "c.0").unlink()
    (path / name / "zarr.json").write_text("{}")
    found = cachetool.verify(path, recompute=0)
    assert where(found) == {("table", name), ("document", name)}
    report = cachetool.verify(path, repair=True, recompute=0)
    assert report.sound, report.repairs
    assert tree(path) == before
    with xr.open_zarr(path) as plain:
        assert plain[name].size


def test_what_follows_from_nothing_is_refused_with_what_to_do(made: Made) -> None:
    flip(made.cache / "content_sha256" / "c.0", 20)
    report = cachetool.verify(made.cache, repair=True)
    assert not report.sound
    assert f"remove {made.cache} and extract again" in report.repairs[0].text
    run = made.runs[0]
    (run / "content_sha256" / "c.0").unlink()
    assert not cachetool.verify(run, repair=True).sound, "its cache has lost them too"


def test_flags_are_written_again_from_the_records(made: Made) -> None:
    before = tree(made.cache)
    (made.cache / "complete" / "c.0.0.0").unlink()
    flip(made.cache / "complete" / "c.1.0.0", 2)
    assert where(cachetool.verify(made.cache, recompute=0)) == {("flags", "block 0"), ("flags", "block 1")}
    report = cachetool.verify(made.cache, repair=True, recompute=0)
    assert report.sound
    assert tree(made.cache) == before
