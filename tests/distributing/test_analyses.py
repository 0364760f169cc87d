"""Analyses on a cluster find what they find in one process, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import cachetool
from analyses.analysis import Analysis, analyses
from analyses.analyze import analyze
from cachetool import Edit
from cachetool.distributing import Cluster
from cachetool.errors import ClusterError, MissingDataError
from cachetool.events import Silent
from cachetool.store import StoreReader

EDITS = (Edit("registers", "none", 11), Edit("registers", "zero", 11))


class Heard(Silent):
    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []
        self.done = 0
        self.messages: list[str] = []

    def start(self, phase: str, total: int) -> None:
        self.phases.append((phase, total))

    def advance(self, images: int, nbytes: int = 0) -> None:
        self.done += images

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 scenes in two blocks, with runs that kept all states."""
    root = tmp_path_factory.mktemp("analyses")
    opened = cachetool.extract("tiny-reg", "shapes", root=root, limit=6, layers=[11, 12], workers=0)
    cachetool.replay(opened, list(EDITS), keep="all")
    return Path(opened.attrs["cachetool_path"])


QUICK = ("attention-divergence", "effective-rank")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in analyses()]
)
def test_every_analysis(cache: Path, client: Any, name: str) -> None:
    options: dict[str, Any] = {"options": {"strength": 1.0}, "train": cache} if "probes" in name else {}
    expected = analyze(name, cache, **options)
    heard = Heard()
    found = analyze(name, cache, cluster=client, events=heard, **options)
    xr.testing.assert_identical(found, expected)
    assert heard.done == sum(total for _phase, total in heard.phases) > 0
    assert {phase for phase, _total in heard.phases} == {name}


def largest(store: xr.Dataset) -> xr.Dataset:
    """Largest channel of [CLS]."""
    return xr.Dataset({"largest": store.cls.max("channel")})


def test_runs_some_of_the_images_and_a_relative_path(cache: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cache.parent)
    opened: list[str] = []
    opening = StoreReader.__reduce__

    def reduce(reader: StoreReader) -> Any:
        function, (path,) = opening(reader)
        opened.append(str(path))
        return function, (path,)

    options: dict[str, Any] = {"runs": True, "limit": 5, "layers": [11, 12]}
    expected = analyze(Analysis("largest", largest), cache.name, **options)
    monkeypatch.setattr(StoreReader, "__reduce__", reduce)
    xr.testing.assert_identical(analyze(Analysis("largest", largest), cache.name, cluster=client, **options), expected)
    assert len(set(opened)) == len(EDITS)
    assert all(Path(path).is_absolute() for path in opened)


def test_the_cluster_is_asked_once_for_all_runs(cache: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    opening = Cluster.open
    monkeypatch.setattr(Cluster, "open", lambda self, job: asked.append(job) or opening(self, job))
    heard = Heard()
    analyze(Analysis("largest", largest), cache, runs=True, cluster=client, events=heard)
    assert len(heard.phases) == len(EDITS)
    (job,) = asked
    assert job.cache == cache
    assert job.device == "cpu"
    assert {"cachetool", "dask", "xarray"} <= set(job.packages)


def lacking(store: xr.Dataset) -> xr.Dataset:
    """Refuses runs, in a task, that begin with zeros."""
    return store[["registers"]].map(lambda one: xr.apply_ufunc(_not_zero, one, dask="parallelized"))


def _not_zero(values: Any) -> Any:
    if values.size > 1 and not values.any():
        raise MissingDataError("all are zero")
    return values


def test_a_run_that_is_refused_in_a_task_is_left_out(cache: Path, client: Any) -> None:
    heard = Heard()
    found = analyze(Analysis("lacking", lacking), cache, runs=True, layers=[11], cluster=client, events=heard)
    assert found.replacement.values.tolist() == ["none"]
    assert "left out: registers zero from 11: all are zero" in heard.messages


def test_a_device_that_workers_lack(cache: Path, client: Any) -> None:
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot take part:\n.*--device abacus"):
        analyze("attention-flow", cache, device="abacus", cluster=client)
    analyze(Analysis("largest", largest), cache, device="abacus", cluster=client)  # which runs no block
