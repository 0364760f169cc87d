"""Commands on caches that others publish: they read what lies on the disk, and refuse to write before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

import cachetool as package
from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from tests.objects.web import WebServer
from tests.reference.quick import quick

pytestmark = pytest.mark.slow

CACHE = "shapes/tiny-reg"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a cache in two blocks, two runs and a calibration."""
    root = tmp_path_factory.mktemp("published") / "activations"
    with quick(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
        cache = package.extract("tiny-reg", "shapes", limit=6, root=root, workers=0)
        package.replay(cache, [package.Edit("registers", replacement, 9) for replacement in ("none", "zero")])
        package.calibrate(cache, layers=[9, 10, 11, 12])
    return root


@pytest.fixture(scope="module")
def web(disk: Path) -> Iterator[WebServer]:
    pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    server = WebServer(disk)
    yield server
    server.close()


@pytest.fixture(scope="module")
def roots(disk: Path, web: WebServer) -> dict[str, str]:
    fsspec.filesystem("memory").put(str(disk), "/published/", recursive=True)
    archive = shutil.make_archive(str(disk.parent / "published"), "zip", disk)
    return {"http": web.url, "memory": "memory://published/activations", "zip": f"zip://::{archive}"}


def below(root: str, name: str) -> str:
    """The URL of what lies below a root."""
    return str(ObjectPath(root) / name)


def written(folder: Path) -> dict[Path, int]:
    """When everything was written below a folder, but for what matplotlib keeps."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "no-config" not in path.parts}


KINDS = ("http", "memory", "zip")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_published_is_opened_as_on_the_disk(disk: Path, roots: dict[str, str], kind: str) -> None:
    url = below(roots[kind], f"{CACHE}.zarr")
    named = [below(roots[kind], f"{CACHE}.runs/{run.name}") for run in sorted((disk / f"{CACHE}.runs").glob("*.zarr"))]
    here, there = package.open(disk / f"{CACHE}.zarr"), package.open(url)
    assert there.attrs["cachetool_path"] == url
    xr.testing.assert_equal(there.load(), here.load())
    expected = package.open_runs(here).drop_vars("run_path").load()
    xr.testing.assert_equal(package.open_runs(url, named).drop_vars("run_path").load(), expected)
    if kind == "http":
        with pytest.raises(StoreError, match="gives no list"):
            package.open_runs(url)
    else:
        xr.testing.assert_equal(package.open_runs(url).drop_vars("run_path").load(), expected)
    assert package.open_annotations(there).image_ids == package.open_annotations(here).image_ids
    for store in (url, *named):
        assert package.verify(store, recompute=0).sound, store
    assert package.verify(below(roots[kind], f"{CACHE}.calibrations/calibration.zarr")).sound


@pytest.mark.parametrize("kind", KINDS)
def test_commands_that_read(cachetool: Any, disk: Path, roots: dict[str, str], tmp_path: Path, kind: str) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments in (("info", CACHE), ("verify", CACHE, "--recompute", "1"), ("diff", CACHE, CACHE, "--values")):
        there = cachetool(*arguments, "--root", roots[kind], "--json")
        here = cachetool(*arguments, "--root", disk, "--json")
        assert there.code == here.code == 0, there.err
        found, expected = json.loads(there.out), json.loads(here.out)
        for untold in ("path", "bytes", "progress", "a", "b"):
            found.pop(untold, None)
            expected.pop(untold, None)
        assert found == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    measured = []
    for root in (roots[kind], disk):
        outcome = cachetool("analyze", "token-norms", CACHE, "--root", root, "--output", "norms.nc", "--json")
        assert outcome.code == 0, outcome.err
        measured.append(json.loads(outcome.out)["rows"])
        assert cachetool("export", CACHE, "cache.h5", "--root", root, "--layers", "12").code == 0
        measured[-1].append(Path("cache.h5").stat().st_size)
        Path("cache.h5").unlink()
    assert measured[0] == measured[1]


def test_a_root_is_listed_where_names_can_be_asked_for(cachetool: Any, roots: dict[str, str]) -> None:
    for kind in ("memory", "zip"):
        outcome = cachetool("info", "--root", roots[kind], "--json")
        assert outcome.code == 0, outcome.err
        assert [(one["images"], one["runs"]) for one in json.loads(outcome.out)["caches"]] == [(6, 2)]
    outcome = cachetool("info", "--root", roots["http"])
    assert outcome.code == 2
    assert "a web server gives no list of what lies there; name each cache and run by its own http://" in outcome.err


def test_a_published_calibration_is_used(disk: Path, roots: dict[str, str], web: WebServer, tmp_path: Path) -> None:
    shutil.copytree(disk / "shapes", tmp_path / "shapes")
    edit = package.Edit("registers", "mean", 9)
    cache = tmp_path / f"{CACHE}.zarr"
    found = []
    for root in (roots["http"], roots["memory"], tmp_path):
        calibration = f"{root}/{CACHE}.calibrations/calibration.zarr"
        with quick():
            run = package.replay(cache, edit, calibration=calibration)
        found.append(run.cls.sel(layer=12).values)
        shutil.rmtree(run.attrs["cachetool_path"])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])


@pytest.mark.parametrize("kind", KINDS)
def test_commands_that_write_are_refused_before_any_work(
    cachetool: Any, disk: Path, roots: dict[str, str], web: WebServer, tmp_path: Path, kind: str
) -> None:
    shutil.copytree(disk / "shapes", tmp_path / "mine" / "shapes")
    assert cachetool("export", CACHE, "cache.h5", "--root", "mine", "--layers", "12").code == 0
    here = written(tmp_path)
    there = dict(fsspec.filesystem("memory").find("/published", detail=True))
    url = below(roots[kind], f"{CACHE}.zarr")
    commands = [
        ("extract", "tiny-reg", "shapes", "--limit", "6"),
        ("replay", CACHE, "--ablation", "zero", "--from-layer", "6"),
        ("replay", CACHE, "--ablation", "zero", "--from-layer", "6", "--dry-run"),
        ("calibrate", CACHE, "--name", "mine"),
        ("evaluate", CACHE, "--task", "retrieval"),
        ("study", "--model", "tiny-reg", "--data", "shapes", "--train", "shapes#train", "--limit", "6"),
        ("import", "cache.h5", "--name", "again"),
        ("verify", CACHE, "--repair"),
        ("analyze", "token-norms", CACHE),
        ("remove", url, "--yes"),
    ]
    for arguments in commands:
        rooted = arguments if arguments[0] == "remove" else (*arguments, "--root", roots[kind])
        with web.counted() as requests:
            outcome = cachetool(*rooted)
        assert outcome.code == 2, (arguments, outcome.err)
        assert outcome.out == ""
        assert "can only be read" in outcome.err, (arguments, outcome.err)
        assert "Copy the cache with all that lies beside it to a local disk, or to an s3://" in outcome.err
        assert "Traceback" not in outcome.err
        assert {one.method for one in requests} <= {"GET", "HEAD"}
    assert written(tmp_path) == here
    assert dict(fsspec.filesystem("memory").find("/published", detail=True)) == there
