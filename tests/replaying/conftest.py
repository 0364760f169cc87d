"""One cache of 20 scenes in three blocks, replayed by all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cachetool
from cachetool.places import calibrations_directory
from tests.reference.quick import quick


@pytest.fixture(scope="session", autouse=True)
def quick_session() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images in each storage dtype, blocks of 8."""
    root = tmp_path_factory.mktemp("caches")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
        for dtype in ("float32", "float16", "bfloat16"):
            opened = cachetool.extract("tiny-reg", "shapes", root=root, name=dtype, limit=20, dtype=dtype, workers=0)
            found[dtype] = Path(opened.attrs["cachetool_path"])
    return found


@pytest.fixture
def fresh(caches: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a cache, to be changed or to be replayed from nothing but the calibrations that are at hand."""

    def copy(dtype: str = "float32", name: str = "copy", *, calibrated: bool = True) -> Path:
        cache = Path(shutil.copytree(caches[dtype], tmp_path / f"{name}.zarr"))
        made = calibrations_directory(caches[dtype])
        if calibrated and made.is_dir():
            shutil.copytree(made, calibrations_directory(cache))
        return cache

    return copy
