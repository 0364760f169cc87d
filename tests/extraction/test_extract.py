"""What an extraction promises beyond its numbers: extending, parts, resuming, unreadable images, refusals."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from cachetool.datasets import open_dataset
from cachetool.errors import ImageError, InvalidEditError, KeyMismatchError, RangeError, UnknownNameError
from cachetool.extraction import Extracted, extract, prepare
from cachetool.extraction.storage_error import measured_images
from cachetool.store import StoreReader, StoreWriter, create, progress
from tests.reference.hooked_forward import hooked_forward, relative_rms
from tests.reference.plain_models import (
    folder_pixels,
    plain_tiny_reg,
    save_weights,
    scene_pixels,
    stored_array,
    stored_sequence,
    write_folder,
)

TYPES = ("cls", "registers", "patches")


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
        yield


def run(root: Path, dataset: str = "shapes", *, name: str | None = None, **options: Any) -> Extracted:
    """Extract with the embedded model; options of `prepare` and of `extract` in one."""
    asked = {"dtype": "float32", "limit": 20, **options}
    running = {key: asked.pop(key) for key in ("batch_size", "part", "on_error", "workers") if key in asked}
    return extract(prepare("tiny-reg", dataset, root=root, name=name, **asked), **{"workers": 0, **running})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All states of 20 scenes, in one go."""
    return run(tmp_path_factory.mktemp("whole")).path


def assert_same_bytes(found: Path, expected: Path) -> None:
    """Every array as zarr-python reads it, and every file of the token arrays."""
    ours, theirs = zarr.open_group(str(found), mode="r"), zarr.open_group(str(expected), mode="r")
    assert sorted(ours.array_keys()) == sorted(theirs.array_keys())
    for name in ours.array_keys():
        first, second = stored_array(found, name), stored_array(expected, name)
        assert first.dtype == second.dtype
        assert first.tolist() == second.tolist() if first.dtype.kind in "OTU" else first.tobytes() == second.tobytes()
    for name in TYPES:
        files = {path.name: path.read_bytes() for path in (found / name).glob("c.*")}
        assert files == {path.name: path.read_bytes() for path in (expected / name).glob("c.*")}


def test_extended_by_layers(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, layers=(3, 7))
    run(tmp_path, layers=(12, 0, 7))
    done = run(tmp_path)
    assert done.blocks_written == 3
    assert_same_bytes(done.path, whole)


def test_extended_by_tokens(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, tokens=("patches",))
    done = run(tmp_path)
    assert_same_bytes(done.path, whole)


def test_extended_by_images(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, limit=5)
    run(tmp_path, limit=12, layers=(4,), tokens=("cls",))
    assert StoreReader(run(tmp_path, limit=12).path).coverage("patches") == tuple(range(13)), "coverage shrank"
    done = run(tmp_path)
    assert done.images == 20
    assert_same_bytes(done.path, whole)
    assert run(tmp_path, limit=5).blocks_written == 0


def test_parts(whole: Path, tmp_path: Path) -> None:
    first, second = run(tmp_path, part=(1, 2)), run(tmp_path, part=(2, 2))
    assert (first.blocks_written, second.blocks_written) == (1, 2)
    assert_same_bytes(second.path, whole)


def test_parts_of_fewer_images_than_the_cache_has_are_parts_of_the_cache(tmp_path: Path) -> None:
    """So that two parts of one number share no block, whatever their limits."""
    run(tmp_path, layers=(3,))
    first, second = (run(tmp_path, limit=8, layers=(7,), part=(part, 2)) for part in (1, 2))
    assert (first.blocks, first.blocks_written, first.images) == (1, 1, 20)
    assert (second.blocks, second.blocks_written) == (0, 0)
    assert run(tmp_path, limit=8, layers=(7,)).blocks_written == 0


def test_progress_knows_the_blocks_of_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 2)
    seen = []
    write_block = StoreWriter.write_block

    def look(writer: StoreWriter, *arguments: Any, **options: Any) -> int:
        written = write_block(writer, *arguments, **options)
        seen.append(progress(StoreReader(writer.path)))
        return written

    monkeypatch.setattr(StoreWriter, "write_block", look)
    for part in (2, 3, 1):
        run(tmp_path, part=(part, 3))
    assert [[one.blocks_done for one in found.parts] for found in seen] == [
        *([0, 1, 0], [0, 2, 0], [0, 3, 0]),
        *([0, 3, 1], [0, 3, 2], [0, 3, 3], [0, 3, 4]),
        *([1, 3, 4], [2, 3, 4], [3, 3, 4]),
    ]
    at_work = [[one.index for one in found.parts if one.job is not None] for found in seen]
    assert at_work == [[2]] * 3 + [[3]] * 4 + [[1]] * 3
    for found in seen:
        (part,) = [one for one in found.parts if one.job is not None]
        assert part.job is not None
        assert part.job.images_per_second is not None
        assert part.seconds_left == pytest.approx((len(part.images) - part.images_done) / part.job.images_per_second)


def test_more_parts_than_blocks(whole: Path, tmp_path: Path) -> None:
    done = [run(tmp_path, part=(part, 5)) for part in (5, 3, 1, 2, 4)]
    assert sum(part.blocks_written for part in done) == 3
    assert_same_bytes(done[0].path, whole)


def test_part_that_finds_the_cache_just_made(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(path: Path, spec: Any) -> None:
        create(path, spec)
        create(path, spec)  # refused: the other part was faster

    monkeypatch.setattr("cachetool.extraction.opening.create", overtaken)
    assert_same_bytes(run(tmp_path).path, whole)


def test_nothing_is_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    monkeypatch.setattr(StoreWriter, "write_block", None)
    second = run(tmp_path)
    assert (first.blocks_written, first.blocks, second.blocks_written, second.bytes_written) == (3, 3, 0, 0)


def test_interrupted_extraction_goes_on(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = StoreWriter.write_block

    def failing(self: StoreWriter, block: int, *arguments: Any, **options: Any) -> int:
        if block == 2:
            raise KeyboardInterrupt
        return write(self, block, *arguments, **options)

    monkeypatch.setattr(StoreWriter, "write_block", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(StoreWriter, "write_block", write)
    done = run(tmp_path)
    assert done.blocks_written == 1
    assert_same_bytes(done.path, whole)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batch_size_changes_rounding_only(whole: Path, tmp_path: Path, batch_size: int) -> None:
    found = stored_sequence(run(tmp_path, batch_size=batch_size).path)
    assert relative_rms(found, stored_sequence(whole)) < 1e-5


def test_worker_processes_change_nothing(whole: Path, tmp_path: Path) -> None:
    assert_same_bytes(run(tmp_path, workers=2).path, whole)


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder of 12 scenes of which the sixth is cut off in the middle."""
    image_ids = write_folder(tmp_path / "scenes")
    broken = tmp_path / "scenes" / image_ids[5]
    broken.write_bytes(broken.read_bytes()[:300])
    return tmp_path / "scenes", image_ids


def test_unreadable_image_stops_unless_told_otherwise(folder: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, image_ids = folder
    with pytest.raises(ImageError, match=rf"{image_ids[5]}.*\n.*--on-error continue"):
        run(tmp_path, f"imagefolder:{path}", limit=None)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_unreadable_image_is_stored_as_nan(folder: tuple[Path, list[str]], tmp_path: Path, batch_size: int) -> None:
    path, image_ids = folder
    done = run(tmp_path, f"imagefolder:{path}", limit=None, on_error="continue", batch_size=batch_size)
    assert list(done.failed) == [image_ids[5]]
    assert str(path) in done.failed[image_ids[5]]
    stored, readable = stored_sequence(done.path), np.arange(12) != 5
    assert stored_array(done.path, "readable").tolist() == readable.tolist()
    assert np.isnan(stored[:, 5]).all()
    rest = [image_id for image_id in image_ids if image_id != image_ids[5]]
    expected = hooked_forward(plain_tiny_reg(), folder_pixels(path, rest))
    assert relative_rms(stored[:, readable], expected) < 1e-5
    assert run(tmp_path, f"imagefolder:{path}", limit=None, on_error="continue").blocks_written == 0


def test_blocks_whose_memory_is_used_again_hold_their_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StoreWriter.write_block

    def write_late(*arguments: Any, **options: Any) -> int:
        time.sleep(0.2)  # longer than a block takes to compute: its memory must not be taken before it is written
        return write(*arguments, **options)

    monkeypatch.setattr(StoreWriter, "write_block", write_late)
    image_ids = write_folder(tmp_path / "images", classes=4, per_class=10)  # five blocks of eight: two buffers in turns
    lost = [3, 18, 33]  # in the first block, in the third, which uses its memory again, and in the fifth
    for index in lost:
        (tmp_path / "images" / image_ids[index]).write_bytes(b"no image")
    done = run(tmp_path, f"imagefolder:{tmp_path / 'images'}", limit=None, on_error="continue")
    assert sorted(done.failed) == sorted(image_ids[index] for index in lost)
    rest = [index for index in range(40) if index not in lost]
    pixels = folder_pixels(tmp_path / "images", [image_ids[index] for index in rest])
    stored = stored_sequence(done.path)
    assert np.isnan(stored[:, lost]).all()
    assert relative_rms(stored[:, rest], hooked_forward(plain_tiny_reg(), pixels)) < 1e-5


def test_another_key_at_the_same_place_is_refused(whole: Path, tmp_path: Path) -> None:
    root = whole.parents[1]
    with pytest.raises(KeyMismatchError, match=r"dtype: float16 here, float32 there(.|\n)*--name"):
        run(root, dtype="float16", limit=8)
    assert run(root, dtype="float16", limit=8, name="tiny-reg-2").path.name == "tiny-reg-2.zarr"


def test_changed_images_are_refused(tmp_path: Path) -> None:
    image_ids = write_folder(tmp_path / "scenes")
    run(tmp_path, f"imagefolder:{tmp_path / 'scenes'}", limit=8)
    first, second = (tmp_path / "scenes" / image_id for image_id in image_ids[2:4])
    first.write_bytes(second.read_bytes())
    with pytest.raises(KeyMismatchError, match=image_ids[2]):
        run(tmp_path, f"imagefolder:{tmp_path / 'scenes'}", limit=12)


def loud_weights(path: Path) -> Path:
    """The embedded model with one channel of the patches far beyond float16 from state 5 on."""
    model = plain_tiny_reg()
    with torch.no_grad():
        model.blocks[4].mlp.fc2.bias[7] = 7e4
    return save_weights(model, path)


def test_overflow_names_state_image_value_and_dtype(tmp_path: Path) -> None:
    weights = loud_weights(tmp_path / "loud.safetensors")
    with pytest.raises(RangeError) as refused:
        run(tmp_path, dtype="float16", weights=weights, limit=8)
    text = str(refused.value)
    assert "state 5 " in text
    assert "val/00000 (7" in text
    assert "float16" in text
    assert "--dtype bfloat16 or float32" in text
    assert run(tmp_path, dtype="bfloat16", weights=weights, limit=8, name="wide").blocks_written == 1
    assert run(tmp_path, dtype="float16", weights=weights, limit=8, layers=(0, 4), name="early").blocks_written == 1


def test_only_stored_tokens_are_checked(tmp_path: Path) -> None:
    model = plain_tiny_reg()
    with torch.no_grad():
        model.pos_embed[0, 3, 0] = 1e5  # of one patch; [CLS] has no position
    weights = save_weights(model, tmp_path / "loud.safetensors")
    done = run(tmp_path, dtype="float16", weights=weights, limit=4, tokens=("cls",), layers=(0,))
    assert np.isfinite(stored_array(done.path, "cls")[:, 0]).all()
    with pytest.raises(RangeError, match="state 0 "):
        run(tmp_path, dtype="float16", weights=weights, limit=4, tokens=("patches",), layers=(0,))


@pytest.mark.parametrize(
    ("images", "layers", "measured"),
    [
        (3, range(13), 1),
        (64, range(13), 1),
        (512, range(13), 1),
        (1024, range(13), 2),
        (2048, range(13), 4),
        (10**6, range(13), 4),
        (2, [12], 1),
        (64, [12], 1),
        (100, [12], 2),
        (3, [12], 1),
    ],
)
def test_storage_error_takes_two_percent_or_one_image(images: int, layers: Sequence[int], measured: int) -> None:
    found = measured_images(images, layers, 12)
    blocks = found * sum([12, *(12 - layer for layer in layers)])
    assert found == measured
    assert found == 1 or blocks <= 0.02 * images * 12


def test_storage_error_is_what_hooks_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.extraction.storage_error.SHARE", 10)
    done = run(tmp_path, dtype="float16", limit=8, layers=(0, 6, 12))
    facts = StoreReader(done.path).spec.facts["storage_error"]
    assert set(facts) == {"0", "6", "12"}
    model, pixels = plain_tiny_reg(), scene_pixels(8, 64)
    exact = hooked_forward(model, pixels)
    with torch.inference_mode():
        for layer in (0, 6, 12):
            sample = [0, 2, 4, 7]  # four images, spread over the batch
            state = torch.from_numpy(exact[layer][sample].astype(np.float16).astype(np.float32))
            found = model.norm(model.blocks[layer:](state)).numpy()
            expected = model.norm(torch.from_numpy(exact[12][sample])).numpy()
            assert facts[str(layer)] == pytest.approx(relative_rms(found, expected), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"layers": (3, 13, 14)}, InvalidEditError, "13, 14"),
        ({"layers": ()}, InvalidEditError, "none"),
        ({"tokens": ("cls", "rest", "other")}, InvalidEditError, "other, rest"),
        ({"dtype": "float8"}, UnknownNameError, "float8"),
        ({"limit": 0}, UnknownNameError, "--limit 0"),
        ({"part": (3, 2)}, UnknownNameError, "--part 3/2"),
        ({"batch_size": 0}, UnknownNameError, "--batch-size 0"),
        ({"on_error": "skip"}, UnknownNameError, "--on-error skip"),
    ],
)
def test_requests_that_do_not_fit(tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(tmp_path, **options)
    assert not list(tmp_path.glob("*/*.zarr"))


@pytest.mark.parametrize(
    ("device", "in_threads", "processors", "expected"),
    [
        ("cpu", True, 8, 0),  # beside the blocks, processes take from their threads
        ("cpu", False, 8, 8),
        ("cpu", False, 1, 0),
        ("cuda", True, 8, 8),
        ("cuda", True, 1, 0),
    ],
)
def test_processes_decode_where_the_blocks_leave_them_room(
    monkeypatch: pytest.MonkeyPatch, device: str, in_threads: bool, processors: int, expected: int
) -> None:
    module = sys.modules["cachetool.extraction.extract"]
    monkeypatch.setattr(module, "processors_for_decoding", lambda: processors)
    dataset = open_dataset("shapes")
    monkeypatch.setattr(type(dataset), "decodes_in_threads", in_threads)
    assert module.default_workers(dataset, torch.device(device)) == expected


def test_scenes_that_python_draws_are_drawn_by_processes(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "one.png")
    assert not open_dataset("shapes").decodes_in_threads
    assert open_dataset(f"imagefolder:{tmp_path}").decodes_in_threads
