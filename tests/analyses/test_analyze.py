"""Analyses of a cache, of its runs, and of runs against intact arms: what each function receives and what comes out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import cachetool
from analyses.analysis import Analysis
from analyses.analyze import analyze
from analyses.tasks.states import read_state
from cachetool import Edit
from cachetool.errors import InvalidEditError, MissingDataError
from cachetool.removing import remove_store
from tests.analyses.conftest import EDITS, EVALUATED, TRAINING, Small


def mean_norm(store: xr.Dataset, *, scale: float = 1.0) -> xr.Dataset:
    """Mean norm of registers."""
    return xr.Dataset({"norm": scale * (store.registers**2).sum("channel").mean("register") ** 0.5})


def moved(run: xr.Dataset, intact: xr.Dataset) -> xr.Dataset:
    """How far [CLS] is moved."""
    return xr.Dataset({"distance": ((run.cls - intact.cls) ** 2).sum("channel") ** 0.5})


def of_two(store: xr.Dataset, train: xr.Dataset) -> xr.Dataset:
    """Sizes of two stores."""
    return xr.Dataset({"images": store.sizes["image"] + 1000 * train.sizes["image"] + 0 * store.cls.sum()})


class Heard:
    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.done = 0
        self.messages: list[str] = []

    def start(self, phase: str, total: int) -> None:
        self.started.append((phase, total))

    def advance(self, images: int, nbytes: int = 0) -> None:
        self.done += images

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_cache_is_analysed_lazily_and_loaded(small: Small) -> None:
    heard = Heard()
    found = analyze(
        Analysis("mean-norm", mean_norm), small.cache, limit=7, layers=[3, 12], options={"scale": 2.0}, events=heard
    )
    assert found.norm.dims == ("image", "layer")
    expected = cachetool.open(small.cache).registers.sel(layer=[3, 12]).values[:7]
    np.testing.assert_allclose(found.norm.values, 2 * np.linalg.norm(expected, axis=-1).mean(-1), rtol=1e-5)
    assert found.attrs["analysis"] == "mean-norm"
    assert json.loads(found.attrs["options"]) == {"scale": 2.0}
    assert found.attrs["cache"] == str(small.cache)
    assert heard.started == [("mean-norm", heard.done)]
    assert heard.done > 0


def test_runs_are_analysed_instead_of_the_cache(small: Small) -> None:
    heard = Heard()
    found = analyze(Analysis("mean-norm", mean_norm), small.cache, runs=small.runs, events=heard)
    assert len(heard.started) == len(EDITS), "runs that are computed together hold the blocks of all of them"
    assert found.sizes == {"run": len(EDITS), "image": EVALUATED, "layer": 1}
    assert found.replacement.values.tolist() == [edit.replacement for edit in EDITS]
    assert found.seed.values.tolist() == [edit.seed for edit in EDITS]
    zero_until_11 = [run for run in small.opened() if run.attrs["key"]["edit"]["until_layer"] == 11]
    np.testing.assert_allclose(found.norm.isel(run=5).values, mean_norm(zero_until_11[0]).norm.values, rtol=1e-6)


def test_runs_are_compared_with_the_unedited_replay_from_the_same_state(small: Small) -> None:
    found = analyze(Analysis("moved", moved), small.cache, runs=small.runs)
    assert sorted(found.edit.values.tolist()) == sorted(
        ["registers mean", "registers shuffle", "registers shuffle", "[CLS] zero", "[CLS] zero, to 11"]
    )
    runs = dict(zip(EDITS, small.opened(), strict=True))
    intact = read_state(runs[EDITS[0]], "cls", 12).values
    mean = read_state(runs[EDITS[1]], "cls", 12).values
    one = found.isel(run=found.replacement.values.tolist().index("mean"))
    np.testing.assert_allclose(one.distance.values[:, 0], np.linalg.norm(mean - intact, axis=-1), rtol=1e-5)


def test_the_cache_stands_in_where_the_unedited_replay_kept_too_little(small: Small) -> None:
    run = cachetool.replay(cachetool.open(small.cache), Edit("registers", "zero", 6), keep=[7, 12])
    path = run.attrs["cachetool_path"]
    try:
        found = analyze(Analysis("moved", moved), small.cache, runs=[path], layers=[7])
        expected = run.cls.sel(layer=7).values - cachetool.open(small.cache).cls.sel(layer=7).values
        np.testing.assert_allclose(found.distance.values[0, :, 0], np.linalg.norm(expected, axis=-1), rtol=1e-5)
        heard = Heard()
        some = analyze(Analysis("moved", moved), small.cache, runs=[*small.runs, path], layers=[7], events=heard)
        assert some.sizes["run"] == 1
        assert len(heard.messages) == len(EDITS) - 1
        assert any("registers mean from 6: " in message for message in heard.messages)
        assert all("holds the states 12, not 7" in message for message in heard.messages)
    finally:
        remove_store(cachetool.query.store_path(run))


def test_a_training_cache_is_handed_over(small: Small) -> None:
    found = analyze(Analysis("of-two", of_two), small.cache, train=small.train)
    assert int(found.images) == EVALUATED + 1000 * TRAINING
    with pytest.raises(MissingDataError, match=r"of-two fits heads: name the cache of .* `--train CACHE`"):
        analyze(Analysis("of-two", of_two), small.cache)


def test_what_cannot_be_analysed_is_refused(small: Small) -> None:
    with pytest.raises(InvalidEditError, match="not 13, 14"):
        analyze(Analysis("mean-norm", mean_norm), small.cache, layers=[3, 13, 14])
    with pytest.raises(MissingDataError, match=r"needs runs, and .* has none; make them with `cachetool replay"):
        analyze(Analysis("moved", moved), small.root / "shapes-calibration" / "tiny-reg.zarr")
    with pytest.raises(MissingDataError, match=r"can be made on no run:\n.*holds the states 12, not 7"):
        analyze(Analysis("moved", moved), small.cache, runs=small.runs, layers=[7])
    with pytest.raises(MissingDataError, match=r"expected finished runs of .*tiny-reg.zarr, found .*tiny-reg.zarr$"):
        analyze(Analysis("mean-norm", mean_norm), small.cache, runs=[small.cache])
