"""A batch that does not fit into memory is halved, told and recorded; one image that does not fit is a clear error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cachetool
from cachetool.backbones import Backbone
from cachetool.errors import OutOfMemoryError
from cachetool.store import StoreReader
from tests.reference.quick import quick

IMAGES = 10
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError(f"{CPU} 123456 bytes. Error code 12 (Cannot allocate memory)"),
    lambda: MemoryError("Unable to allocate 2.00 GiB for an array"),
]


class Told:
    """Events that keep the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def start(self, phase: str, total: int) -> None: ...

    def advance(self, images: int, nbytes: int = 0) -> None: ...

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
    with quick():
        yield


def limit_memory(monkeypatch: pytest.MonkeyPatch, images: int, error: Callable[[], Exception]) -> list[int]:
    """Let no more than some images through the blocks at a time; returns the sizes that went through."""
    through: list[int] = []
    run = Backbone.run

    def limited(self: Backbone, state: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if len(state) > images:
            raise error()
        through.append(len(state))
        return run(self, state, *arguments, **options)

    monkeypatch.setattr(Backbone, "run", limited)
    return through


def extract(root: Path, **options: Any) -> Path:
    opened = cachetool.extract("tiny-reg", "shapes", limit=IMAGES, root=root, workers=0, dtype="float32", **options)
    return Path(opened.attrs["cachetool_path"])


def assert_close(found: Path, expected: Path) -> None:
    """Equal up to what another batch size may round."""
    ours, theirs = StoreReader(found), StoreReader(expected)
    for name in theirs.spec.token_types:
        for layer in theirs.spec.layers:
            np.testing.assert_allclose(
                ours.read(name, layer, 0, IMAGES), theirs.read(name, layer, 0, IMAGES), rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("error", ERRORS)
def test_extract_halves_until_it_fits(
    error: Callable[[], Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(tmp_path / "whole")
    told = Told()
    with monkeypatch.context() as patch:
        through = limit_memory(patch, 3, error)
        path = extract(tmp_path / "halved", events=told)
    assert max(through) == 2
    assert [text.split(" (")[0] for text in told.messages] == [
        "memory ran out with 8 images at a time; going on with 4",
        "memory ran out with 4 images at a time; going on with 2",
    ]
    assert StoreReader(path).spec.facts["batch_sizes"] == [8, 4, 2]
    assert "batch_sizes" not in StoreReader(whole).spec.facts
    assert_close(path, whole)


@pytest.mark.parametrize("error", ERRORS)
def test_replay_halves_until_it_fits(
    error: Callable[[], Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = extract(tmp_path / "whole")
    edit = cachetool.Edit("registers", "shuffle", from_layer=9)
    whole = Path(cachetool.replay(cache, edit).attrs["cachetool_path"])
    expected = whole.rename(tmp_path / "expected.zarr")
    told = Told()
    with monkeypatch.context() as patch:
        limit_memory(patch, 3, error)
        path = Path(cachetool.replay(cache, edit, events=told).attrs["cachetool_path"])
    assert path == whole
    assert [text.partition(" (")[0] for text in told.messages][-1].endswith("going on with 2")
    assert StoreReader(path).spec.facts["batch_sizes"] == [8, 4, 2]
    assert_close(path, expected)


def test_a_single_image_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = extract(tmp_path)
    limit_memory(monkeypatch, 0, ERRORS[0])
    with pytest.raises(OutOfMemoryError, match=r"single image at a time \(CUDA out of memory.*--device"):
        extract(tmp_path / "other")
    with pytest.raises(OutOfMemoryError, match="single image at a time"):
        cachetool.replay(cache, cachetool.Edit("registers", "zero", from_layer=9))
    assert not list(tmp_path.rglob("*.lock"))


def test_a_later_block_that_does_not_fit_keeps_the_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = extract(tmp_path / "whole")
    run, calls = Backbone.run, []

    def failing(self: Backbone, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise ERRORS[0]()
        return run(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "run", failing)
        with pytest.raises(OutOfMemoryError):
            extract(tmp_path / "half")
    (path,) = (tmp_path / "half").glob("*/*.zarr")
    np.testing.assert_array_equal(StoreReader(path).read("cls", 12, 0, 8), StoreReader(whole).read("cls", 12, 0, 8))
    assert extract(tmp_path / "half") == path
    assert_close(path, whole)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 3, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        extract(tmp_path)
