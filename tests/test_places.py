"""Where things lie: names of design section 3, and how a cache is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachetool import places
from cachetool.errors import MissingDataError, UnknownNameError


def make(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "zarr.json").write_text('{"attributes": {"cachetool": {}}}')
    return path


def test_root_comes_from_argument_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHETOOL_ROOT", "elsewhere")
    assert places.resolve_root("here") == Path("here")
    assert places.resolve_root(None) == Path("elsewhere")
    monkeypatch.delenv("CACHETOOL_ROOT")
    assert places.resolve_root(None) == Path("activations")
    monkeypatch.setenv("CACHETOOL_ROOT", "")
    assert places.resolve_root(None) == Path("activations")
    monkeypatch.setenv("CACHETOOL_ROOT", "~/caches")
    assert places.resolve_root(None) == Path.home() / "caches"
    for typed in ("", "s3:/bucket/x", "https:/host/x"):
        with pytest.raises(UnknownNameError, match=f"--root '{typed}': expected s3://BUCKET/PREFIX or a directory"):
            places.resolve_root(typed)


def test_a_root_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "caches").touch()
    with pytest.raises(UnknownNameError, match="expected a directory, found a file"):
        places.resolve_root(str(tmp_path / "caches"))


def test_names_on_disk() -> None:
    cache = places.cache_path(Path("r"), "shapes", "timm:vit_base_patch14_dinov2.lvd142m")
    assert cache == Path("r/shapes/timm-vit_base_patch14_dinov2.lvd142m.zarr")
    assert places.runs_directory(cache) == Path("r/shapes/timm-vit_base_patch14_dinov2.lvd142m.runs")
    assert places.calibrations_directory(cache).name == "timm-vit_base_patch14_dinov2.lvd142m.calibrations"
    assert places.cache_path(Path("r"), "shapes", "dinov3-s+").name == "dinov3-s+.zarr"
    assert places.cache_path(Path("r"), "shapes", "tiny-reg", "second").name == "second.zarr"


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "dot.", "two words"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="--name"):
        places.cache_path(Path("r"), "shapes", "tiny-reg", name)


def test_the_only_cache_is_found_and_several_are_listed(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cachetool extract"):
        places.find_cache(None, tmp_path)
    first = make(tmp_path / "shapes" / "a.zarr")
    make(tmp_path / "shapes" / "a.runs" / "run.zarr")
    (tmp_path / "shapes" / "half.zarr").mkdir()
    assert places.find_cache(None, tmp_path) == first
    second = make(tmp_path / "photos" / "b.zarr")
    with pytest.raises(UnknownNameError) as refused:
        places.find_cache(None, tmp_path)
    assert all(str(path) in str(refused.value) for path in (first, second))
    for name in ("shapes/a", "shapes/a.zarr", first, str(first)):
        assert places.find_cache(name, tmp_path) == first
    with pytest.raises(MissingDataError, match=r"b\.zarr"):
        places.find_cache("shapes/c", tmp_path)
    assert [path.name for path in places.list_runs(first)] == ["run.zarr"]
    assert places.list_runs(second) == []
