"""What a plan measures, by a clock that says what the test has it say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cachetool.backbones import load
from cachetool.datasets.loading import BatchDecoder
from cachetool.extraction import prepare
from cachetool.plan import measuring


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how long what is timed is said to take; it is done all the same."""

    def set_to(*seconds: float) -> None:
        said: Iterator[float] = iter(seconds)

        def timed(work: Callable[[], object]) -> float:
            work()
            return next(said)

        monkeypatch.setattr(measuring, "timed", timed)

    return set_to


def test_operations_are_counted_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert measuring.count_operations(lambda: torch.ones(2, 3) @ torch.ones(3, 5)) == 2 * 2 * 3 * 5
    assert capsys.readouterr().out == ""


def test_what_the_last_block_projects_are_its_queries_keys_and_values() -> None:
    backbone = load("tiny-reg")
    state = torch.randn(2, backbone.layout.tokens, backbone.channels, generator=torch.Generator().manual_seed(0))
    last = backbone.model.blocks[-1]
    with torch.inference_mode():
        expected = last.attn.qkv(last.norm1(state))
    torch.testing.assert_close(measuring.project(backbone, state).reshape(expected.shape), expected)


@pytest.mark.parametrize(("processes", "each"), [(0, 16 / 8), (2, 16 / 8 / 2)])
def test_eight_images_are_decoded_after_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Callable[..., None], processes: int, each: float
) -> None:
    decoded: list[int] = []
    decode = BatchDecoder.decode

    def counted(decoder: Any, indices: Any, *arguments: Any) -> Any:
        batch = decode(decoder, indices, *arguments)
        assert not batch.failures
        assert not batch.changed
        decoded.append(len(batch.images))
        return batch

    monkeypatch.setattr(BatchDecoder, "decode", counted)
    clock(16)
    assert measuring.decode_seconds(prepare("tiny-reg", "shapes", root=tmp_path, limit=12), processes) == each
    assert decoded == [1, 8]


def test_pieces_are_written_to_the_disk_of_a_path_for_a_quarter_of_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Callable[..., None]
) -> None:
    files: list[tuple[Any, Any]] = []
    make = tempfile.TemporaryFile

    def remembered(**options: Any) -> Any:
        file = make(**options)
        files.append((options.get("dir"), file))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", remembered)
    monkeypatch.setattr(measuring, "PIECE_BYTES", 1000)
    clock(0.1, 0.1, 0.1)
    assert measuring.write_speed(tmp_path / "yet" / "to be made") == pytest.approx(3 * 1000 / 0.3)
    clock(5, 7)
    assert measuring.write_speed(tmp_path / "cache") == pytest.approx(2 * 1000 / 12)
    assert [folder for folder, _ in files] == [tmp_path, tmp_path]
    assert not list(tmp_path.iterdir())


def test_an_object_is_put_into_an_object_store_and_removed(
    object_root: Any, monkeypatch: pytest.MonkeyPatch, clock: Callable[..., None]
) -> None:
    put: list[tuple[str, int]] = []
    ours = type(object_root)
    really = ours.put

    def remembered(path: Any, content: bytes) -> Any:
        found = really(path, content)
        put.append((path.name, path.found().size))
        return found

    monkeypatch.setattr(ours, "put", remembered)
    clock(4)
    assert measuring.write_speed(object_root / "cache") == 2**23 / 4
    [(name, size)] = put
    assert name.startswith("cache.trial-")
    assert size == 2**23
    assert not object_root.exists()
