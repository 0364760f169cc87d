"""A cache of twelve images and three runs of it, which all tests of this folder copy, damage and have mended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cachetool
from cachetool import Edit
from cachetool.store import StoreReader, StoreWriter
from cachetool.verifying import Report
from tests.reference.plain_models import write_folder
from tests.reference.quick import quick

EDITS = [Edit("registers", "shuffle", 6, seed=1), Edit("patches:random4", "mean", 9, seed=2), Edit("cls", "none", 6)]


@dataclass(frozen=True)
class Made:
    """A cache of a folder of images in two blocks, with three runs."""

    cache: Path
    runs: tuple[Path, ...]
    images: Path
    ids: tuple[str, ...]


@contextmanager
def small_blocks() -> Iterator[None]:
    """Quick models, and blocks of eight images."""
    with quick(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
        yield


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with small_blocks():
        yield


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verifying")
    write_folder(root / "scenes")
    with small_blocks():
        opened = cachetool.extract("tiny-reg", f"imagefolder:{root / 'scenes'}", root=root, workers=0)
        cachetool.replay(opened, EDITS, batch_size=1)  # as `verify` replays: only then is every product of one shape
    return root


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Made:
    """A copy of the cache and its runs; the images are the originals, copied too where a test changes them."""
    (folder,) = (path for path in original.iterdir() if path.name != "scenes")
    shutil.copytree(folder, tmp_path / folder.name)
    cache = tmp_path / folder.name / "tiny-reg.zarr"
    runs = sorted((tmp_path / folder.name / "tiny-reg.runs").glob("*.zarr"))
    return Made(cache, tuple(runs), original / "scenes", StoreReader(cache).images.image_id)


def run_of(made: Made, text: str) -> Path:
    (path,) = (path for path in made.runs if text in path.name)
    return path


def tree(path: Path) -> dict[str, bytes]:
    """All values, flags and records of a store."""
    files = (file for file in path.rglob("*") if file.is_file() and not {"locks", "guard"} & set(file.parts))
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.name != "zarr.json"}


def flip(path: Path, position: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def damaged(path: Path) -> Path:
    """The store at that path, after a bit of its last block was flipped."""
    flip(path / "patches" / "c.1.0.0.0")
    return path


def alter(path: Path, token_type: str, layer: int, image: int, change: Callable[[Any], Any]) -> None:
    """Change the values of one image at one state, and leave every checksum right."""
    reader, block = StoreReader(path), image // 8
    first, last = block * 8, min(block * 8 + 8, len(reader.images))
    values = reader.read(token_type, layer, first, last).copy()
    values[image - first] = change(values[image - first])
    if token_type == "cls":
        values = values[:, 0]
    StoreWriter(path).write_block(block, {token_type: values[None]}, (layer,))


def where(report: Report) -> set[tuple[str, str]]:
    return {(problem.part, problem.where) for problem in report.problems}
