"""Which workers may take part: those of the same versions, the same root and the same kind of device."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import cachetool
from cachetool.distributing.inspecting import agreed, check_python, check_sight, probe, witnesses
from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import Description
from cachetool.environment import RECORDED_PACKAGES
from cachetool.errors import ClusterError, WeightsError
from cachetool.store import create, lock
from tests.store.conftest import make_example

NAMES = {"a": "tcp://a (worker one)", "b": "tcp://b (worker two)", "c": "tcp://c (worker three)"}
CPU = {"device": "cpu", "kernel": "cpu AVX2", "machine": "x86_64", "torch": "2.9", "threads": 2, "python": "3.11.1"}


def answer(**changes: Any) -> dict[str, Any]:
    return {"versions": {name: version(name) for name in RECORDED_PACKAGES}, "problems": [], **changes}


def test_every_worker_that_differs_is_named() -> None:
    other = {**answer()["versions"], "torch": "1.0", "timm": None}
    found = {
        "a": answer(versions=other),
        "b": answer(),
        "c": answer(problems=["/data/x cannot be read (No such file or directory)"]),
    }
    with pytest.raises(ClusterError) as refused:
        check_sight(found, NAMES)
    text = str(refused.value)
    assert "2 of 3 workers cannot take part" in text
    assert (
        f"tcp://a (worker one): timm is missing (here {version('timm')}); torch 1.0 (here {version('torch')})" in text
    )
    assert "tcp://c (worker three): /data/x cannot be read" in text
    assert "worker two" not in text
    check_sight({"b": answer()}, NAMES)


def test_another_python() -> None:
    major, minor, *_ = platform.python_version_tuple()
    check_python({"a": f"{major}.{minor}.99", "b": platform.python_version()}, NAMES)
    found = {"a": f"{major}.{int(minor) + 1}.0", "b": f"{major}.{minor}.0", "c": OSError("no route")}
    with pytest.raises(ClusterError) as refused:
        check_python(found, NAMES)
    text = str(refused.value)
    assert f"worker one): Python {major}.{int(minor) + 1}.0 (here {platform.python_version()})" in text
    assert "worker three): OSError: no route" in text
    assert "worker two" not in text


def test_a_worker_that_failed_to_answer_is_named() -> None:
    with pytest.raises(ClusterError, match=r"worker two\): ImportError: broken"):
        check_sight({"a": answer(), "b": ImportError("broken")}, NAMES)


@contextmanager
def later() -> Iterator[None]:
    """A lock says since when it is held, in milliseconds."""
    time.sleep(0.005)
    yield


def test_the_lock_is_what_no_other_root_has(tmp_path: Path) -> None:
    """A folder of the same name on a disk of the worker's own has no lock of this process."""
    here, there = tmp_path / "here.zarr", tmp_path / "there.zarr"
    for path in (here, there):
        create(path, make_example().spec)
    look = probe()
    with lock(here, "extract", shared=True) as owner, later(), lock(there, "extract", shared=True):
        ((file, digest),) = witnesses(Job(cache=here, locks=((here, owner),))).items()
        assert look(["cachetool"], {file: digest}, [str(here)]) == {
            "versions": {"cachetool": version("cachetool")},
            "problems": [],
        }
        other = file.replace("here.zarr", "there.zarr")
        assert look([], {other: digest}, [])["problems"] == [f"{other} is another file there than here"]
        gone = file.replace("here.zarr", "gone.zarr")
        nowhere = str(tmp_path / "gone.zarr")
        assert look([], {gone: digest}, [nowhere])["problems"] == [
            f"{gone} cannot be read (No such file or directory)",
            f"{nowhere} cannot be written",
        ]


def test_packages_that_are_missing_there() -> None:
    assert probe()(["no-such-package"], {}, [])["versions"] == {"no-such-package": None}


def test_one_kind_of_device() -> None:
    same = {name: Description({**CPU, "threads": threads}, 8) for name, threads in (("a", 1), ("b", 2))}
    assert agreed(same, NAMES).batch_size == 8
    gpu = {**CPU, "device": "NVIDIA T4", "kernel": "cuda 12"}
    with pytest.raises(ClusterError) as refused:
        agreed({**same, "c": Description(gpu, 32)}, NAMES)
    text = str(refused.value)
    assert "cpu (cpu AVX2, x86_64), batches of 8: tcp://a (worker one), tcp://b (worker two)" in text
    assert "NVIDIA T4 (cuda 12, x86_64), batches of 32: tcp://c (worker three)" in text


def test_every_worker_that_cannot_open_is_named() -> None:
    found = {"a": WeightsError("no file x.pth"), "b": Description(CPU, 8), "c": RuntimeError("CUDA error")}
    with pytest.raises(ClusterError) as refused:
        agreed(found, NAMES)
    assert "2 of 3 workers" in str(refused.value)
    assert "worker one): no file x.pth\n" in str(refused.value)
    assert "worker three): RuntimeError: CUDA error" in str(refused.value)


def test_a_worker_that_does_not_see_the_root(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "elsewhere" / "extract.lock"
    monkeypatch.setattr("cachetool.distributing.cluster.witnesses", lambda job: {str(missing): "0"})
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot take part:\n.*extract.lock cannot be read"):
        cachetool.extract("tiny-reg", "shapes", limit=4, root=tmp_path, workers=0, cluster=client)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_device_that_workers_lack(client: Any, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot take part:\n.*--device abacus"):
        cachetool.extract("tiny-reg", "shapes", limit=4, root=tmp_path, workers=0, device="abacus", cluster=client)
