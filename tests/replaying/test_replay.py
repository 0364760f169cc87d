"""What a replay promises beyond its numbers: kept states, shared reads, batches, resuming and reuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info

import cachetool
from cachetool import Edit, places, removing
from cachetool.backbones import load
from cachetool.edits.calibration import Reference
from cachetool.edits.meter import Distances, FittedReference, Meter
from cachetool.errors import InvalidEditError
from cachetool.replaying import Run, replay_edits
from cachetool.replaying.replay import repeated
from cachetool.store import StoreReader, StoreWriter
from tests.reference.expected_values import Intact, changes_of, chosen_tokens
from tests.reference.hooked_forward import hooked_forward, relative_rms
from tests.reference.plain_models import (
    TINY_TOKENS,
    plain_tiny_reg,
    scene_pixels,
    stored_array,
    stored_sequence,
    write_folder,
)

MIXED = (
    Edit("registers", "shuffle", 6, seed=1),
    Edit("patches:random4", "noise", 6, seed=2),
    Edit("registers:1", "mean", 6, until_layer=8),
    Edit("cls", "knockout", 6, sustained=False),
    Edit("patches:random4", "remove", 6, seed=3),
    Edit("patches:outliers:1.2", "norm-matched", 6, seed=4, fresh_per_layer=True),
)


@pytest.fixture(scope="module")
def mixed(caches: dict[str, Path]) -> list[Run]:
    """Runs of `MIXED` that nothing disturbed."""
    return replay_edits(caches["float32"], MIXED)


def test_kept_states_are_those_after_the_edit(caches: dict[str, Path]) -> None:
    model, pixels = plain_tiny_reg(), scene_pixels(20, 64)
    ids = [f"val/{image:05d}" for image in range(20)]
    intact = Intact(hooked_forward(model, pixels), TINY_TOKENS, ids)
    edit = Edit("patches:random4", "mean", 5, until_layer=7, seed=8)
    (run,) = replay_edits(caches["float32"], [edit], keep=range(5, 13))
    assert stored_array(run.path, "layer").tolist() == list(range(5, 13))
    found, expected = stored_sequence(run.path), hooked_forward(model, pixels, changes_of(intact, edit.to_json()))[5:]
    chosen = chosen_tokens(intact, edit.target, 5, 8)
    assert np.array_equal(stored_array(run.path, "edited"), chosen)
    for row, layer in enumerate(range(5, 13)):
        assert relative_rms(found[row], expected[row]) < 1e-5
        mean = intact.states[layer][:, 5:].mean(axis=(0, 1), dtype=np.float64)
        assert np.allclose(found[row][chosen], mean, atol=1e-5) == (layer <= 7)
    assert np.array_equal(found[0][~chosen], intact.states[5][~chosen]), "state k changed beside the edit"


def test_only_the_token_types_asked_for_are_stored(caches: dict[str, Path]) -> None:
    edit = Edit("registers", "zero", 9)
    (whole,) = replay_edits(caches["float32"], [edit])
    (part,) = replay_edits(caches["float32"], [edit], keep_tokens=["patches", "cls"])
    assert part.path != whole.path
    assert not (part.path / "registers").exists()
    for name in ("cls", "patches"):
        assert np.array_equal(stored_array(part.path, name), stored_array(whole.path, name))
    (again,) = replay_edits(caches["float32"], [edit], keep_tokens=["cls", "patches"])
    assert again.path == part.path
    assert again.reused


def test_several_edits_on_one_read_equal_each_alone(fresh: Callable[..., Path]) -> None:
    together = replay_edits(fresh(name="together"), MIXED, keep=(6, 9, 12))
    alone_cache = fresh(name="alone")
    for edit, run in zip(MIXED, together, strict=True):
        (alone,) = replay_edits(alone_cache, [edit], keep=(6, 9, 12))
        assert alone.path.name == run.path.name
        assert np.array_equal(stored_sequence(run.path), stored_sequence(alone.path), equal_nan=True), edit.slug


def test_order_and_repetition_of_edits_are_kept(caches: dict[str, Path]) -> None:
    edits = [Edit("cls", "zero", 9), Edit("cls", "none", 3), Edit("cls", "zero", 9), Edit("registers", "zero", 3)]
    runs = replay_edits(caches["float32"], edits)
    assert [run.edit for run in runs] == edits
    assert runs[0].path == runs[2].path
    assert len({run.path for run in runs}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_result_does_not_depend_on_batch_size(fresh: Callable[..., Path], mixed: list[Run], batch_size: int) -> None:
    small = replay_edits(fresh(), MIXED, batch_size=batch_size)
    for edit, one, other in zip(MIXED, mixed, small, strict=True):
        assert relative_rms(stored_sequence(other.path), stored_sequence(one.path)) < 1e-5
        assert np.array_equal(stored_array(one.path, "edited"), stored_array(other.path, "edited"))
        if "shuffle" in edit.replacement:
            assert np.array_equal(stored_array(one.path, "donor"), stored_array(other.path, "donor"))


def test_edits_that_share_a_calibration_fit_its_reference_tokens_once(
    fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []

    class Counted(FittedReference):
        def __init__(self, reference: Reference) -> None:
            fitted.append(len(reference.fit))
            super().__init__(reference)

    monkeypatch.setattr("cachetool.edits.meter.FittedReference", Counted)
    replay_edits(fresh(), [Edit("registers", name, 6) for name in ("zero", "mean", "shuffle")])
    assert len(fitted) == 4  # one a register, whatever the number of edits


def test_the_meter_leaves_the_processors_to_the_blocks(
    fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, set[int]]] = []
    measure, run = Meter.measure, torch.get_num_threads()

    def looking(self: Meter, *arguments: Any) -> Distances:
        pools = threadpool_info()
        seen.append({kind: {p["num_threads"] for p in pools if p["user_api"] == kind} for kind in ("blas", "openmp")})
        return measure(self, *arguments)

    monkeypatch.setattr(Meter, "measure", looking)
    replay_edits(fresh(), [Edit("registers", "zero", 6)])
    assert seen
    assert all(numbers <= {1} for threads in seen for numbers in threads.values())
    assert torch.get_num_threads() == run


def test_fresh_donors_are_drawn_for_each_state(caches: dict[str, Path]) -> None:
    (run,) = replay_edits(caches["float32"], [Edit("registers", "shuffle", 9, seed=1, fresh_per_layer=True)])
    donors = stored_array(run.path, "donor")
    assert donors.shape == (20, 4)
    assert len({tuple(column) for column in donors.T}) == 4


def test_interrupted_replay_goes_on(
    fresh: Callable[..., Path], mixed: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, write = fresh(), StoreWriter.write_block
    written: list[tuple[str, int]] = []

    def failing(self: StoreWriter, block: int, *arguments: Any, **options: Any) -> int:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append((self.path.name, block))
        return write(self, block, *arguments, **options)

    monkeypatch.setattr(StoreWriter, "write_block", failing)
    with pytest.raises(KeyboardInterrupt):
        replay_edits(cache, MIXED)
    monkeypatch.setattr(StoreWriter, "write_block", write)
    before = set(written)

    def counting(self: StoreWriter, block: int, *arguments: Any, **options: Any) -> int:
        written.append((self.path.name, block))
        return write(self, block, *arguments, **options)

    monkeypatch.setattr(StoreWriter, "write_block", counting)
    runs = replay_edits(cache, MIXED)
    assert not any(run.reused for run in runs)
    assert len(before) == 7
    assert len(written) == len(set(written)) == 18, "a finished block was computed again"
    for run, other in zip(runs, mixed, strict=True):
        assert np.array_equal(stored_sequence(run.path), stored_sequence(other.path), equal_nan=True)
        assert np.array_equal(stored_array(run.path, "edited"), stored_array(other.path, "edited"))


def test_finished_run_is_used_again(fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fresh()
    (first,) = replay_edits(cache, [MIXED[0]])
    monkeypatch.setattr(StoreWriter, "write_block", None)
    (second,) = replay_edits(cache, [MIXED[0]])
    assert not first.reused
    assert second.reused
    assert (second.path, second.certificate, second.seconds) == (first.path, first.certificate, 0.0)


def test_damaged_block_of_a_finished_run_is_replayed_again(fresh: Callable[..., Path]) -> None:
    cache = fresh()
    (first,) = replay_edits(cache, [MIXED[0]])
    expected = stored_sequence(first.path)
    StoreWriter(first.path).discard(1)
    (second,) = replay_edits(cache, [MIXED[0]])
    assert not second.reused
    assert StoreWriter(second.path).pending((12,), ("cls", "registers", "patches")) == []
    assert np.array_equal(stored_sequence(second.path), expected)


def test_other_kept_states_are_another_run(caches: dict[str, Path]) -> None:
    (last,), (both,) = (replay_edits(caches["float32"], [MIXED[2]], keep=keep) for keep in (None, (6, 12)))
    assert last.path != both.path
    assert np.array_equal(stored_sequence(last.path)[0], stored_sequence(both.path)[1])


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 0.0), ("float16", 3e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("from_layer", [0, 7, 12])
def test_certificate(caches: dict[str, Path], dtype: str, largest: float, from_layer: int) -> None:
    (run,) = replay_edits(caches[dtype], [Edit("cls", "none", from_layer)])
    certificate = run.certificate
    found, stored = stored_float(run.path, dtype)[0], stored_float(caches[dtype], dtype)[12]
    # The run is rounded once more than the replay that was certified.
    rounding = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert abs(relative_rms(found, stored) - certificate["relative_error"]) <= max(rounding, 0.3 * largest)
    assert certificate["relative_error"] <= largest
    assert certificate["bit_equal"] == (dtype == "float32" or from_layer == 12)
    assert (certificate["dtype"], certificate["from_layer"], certificate["images"]) == (dtype, from_layer, 16)
    assert StoreReader(run.path).spec.facts["certificate"] == certificate


def stored_float(path: Path, dtype: str) -> np.ndarray:
    stored = stored_sequence(path)
    if dtype != "bfloat16":
        return stored.astype(np.float32)
    return torch.from_numpy(stored).view(torch.bfloat16).float().numpy()


def test_only_later_blocks_are_run(
    fresh: Callable[..., Path], mixed: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*arguments: Any, **options: Any) -> Any:
        backbone = load("tiny-reg")
        early = [*backbone.model.blocks[:6].parameters(), *backbone.model.patch_embed.parameters()]
        for parameter in [*early, backbone.model.pos_embed, backbone.model.cls_token, backbone.model.reg_token]:
            parameter.fill_(torch.nan)
        return backbone

    monkeypatch.setattr("cachetool.replaying.replay.open_backbone", poisoned)
    for run, other in zip(replay_edits(fresh(), MIXED), mixed, strict=True):
        assert np.array_equal(stored_sequence(run.path), stored_sequence(other.path), equal_nan=True)


def test_unreadable_images_stay_absent_and_never_donate(tmp_path: Path) -> None:
    image_ids = write_folder(tmp_path / "scenes")
    broken = tmp_path / "scenes" / image_ids[5]
    broken.write_bytes(broken.read_bytes()[:200])
    options: dict[str, Any] = {"root": tmp_path, "dtype": "float32", "workers": 0}
    dataset = f"imagefolder:{tmp_path / 'scenes'}"
    opened = cachetool.extract("tiny-reg", dataset, on_error="continue", **options)
    cache = opened.attrs["cachetool_path"]
    assert opened.readable.values.tolist() == [image != 5 for image in range(12)]
    edits = [
        Edit("registers", "shuffle", 4, seed=2),
        Edit("registers", "same-class-shuffle", 4, seed=2),
        Edit("patches:random4", "mean", 4),
        Edit("patches:outliers:1.2", "norm-matched", 4),
        Edit("registers", "remove", 4),
        Edit("cls", "none", 4),
    ]
    runs = replay_edits(cache, edits, keep=(4, 12))
    stored = stored_sequence(cache)
    assert np.isnan(stored[:, 5]).all()
    readable = np.arange(12) != 5
    for edit, run in zip(edits, runs, strict=True):
        found = stored_sequence(run.path)
        assert np.isnan(found[:, 5]).all()
        assert StoreReader(run.path).readable.tolist() == readable.tolist()
        assert edit.replacement == "remove" or np.isfinite(found[:, readable]).all()
        assert not stored_array(run.path, "edited")[5].any()
        if "shuffle" in edit.replacement:
            donors = stored_array(run.path, "donor")
            assert donors[5] == -1
            assert sorted(donors[readable]) == np.flatnonzero(readable).tolist()
            assert np.array_equal(found[0][readable][:, 1:5], stored[4][donors[readable]][:, 1:5])
    mean = stored[4][readable][:, 5:].mean(axis=(0, 1), dtype=np.float64)
    chosen = stored_array(runs[2].path, "edited")
    assert np.allclose(stored_sequence(runs[2].path)[0][chosen], mean, atol=1e-6)
    with pytest.raises(InvalidEditError, match=image_ids[5]):
        replay_edits(cache, [Edit("registers", f"patch:{image_ids[5]}", 4)])


def test_overlap_is_recorded_and_can_be_refused(fresh: Callable[..., Path], tmp_path: Path) -> None:
    cache = fresh()
    edits = [Edit("cls", "none", 3), Edit("registers", "mean", 6)]
    with pytest.raises(InvalidEditError, match=r"20 of 20 evaluated images"):
        replay_edits(cache, edits, no_overlap=True)
    itself = cachetool.calibrate(cache, name="itself").attrs["cachetool_path"]
    with pytest.raises(InvalidEditError, match=r"20 of 20 evaluated images.*val/00000"):
        replay_edits(cache, edits, calibration=itself, no_overlap=True)
    assert not places.list_runs(cache), "an edit was replayed before another was refused"
    options: dict[str, Any] = {"root": tmp_path, "dtype": "float32", "workers": 0}
    other = cachetool.extract("tiny-reg", "shapes#calibration", limit=12, **options).attrs["cachetool_path"]
    calibration = cachetool.calibrate(other, name="elsewhere").attrs["cachetool_path"]
    _, run = replay_edits(cache, edits, calibration=calibration, no_overlap=True, keep=(6, 12))
    facts = StoreReader(run.path).spec.facts["calibration"]
    assert (facts["overlap"], facts["images"], facts["path"]) == (0, 12, calibration)
    mean = stored_sequence(other)[6][:, 1:5].mean(axis=0, dtype=np.float64)
    assert np.allclose(stored_sequence(run.path)[0][:, 1:5], mean, atol=1e-6)
    (own,) = replay_edits(cache, edits[1:], keep=(6, 12))
    assert own.path != run.path
    assert StoreReader(own.path).spec.facts["calibration"]["overlap"] == 20


def test_own_calibration_is_computed_once(fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fresh(calibrated=False)
    replay_edits(cache, [Edit("registers", "mean", 6)])
    monkeypatch.setattr("cachetool.replaying.calibrations.calibrate", None)
    edits = [
        Edit("registers", "noise", 9),
        Edit("registers:0", "zero", 2),
        Edit("registers", "interpolate:mean:0.5", 1),
    ]
    replay_edits(cache, edits)
    assert len(list(places.calibrations_directory(cache).glob("*.zarr"))) == 1


def test_repetitions_have_seeds_of_their_own_where_there_is_chance() -> None:
    edits = [Edit("registers", "zero", 1, seed=4), Edit("registers", "shuffle", 1, seed=4)]
    assert repeated(edits, 3) == [edits[0], *(Edit("registers", "shuffle", 1, seed=seed) for seed in (4, 5, 6))]
    with pytest.raises(InvalidEditError, match="at least 1"):
        repeated(edits, 0)


def test_second_cache_that_was_made_anew_gives_a_new_run(tmp_path: Path) -> None:
    """The key of a folder's cache does not tell its images apart; the donor's content must."""
    options: dict[str, Any] = {"root": tmp_path, "dtype": "float32", "workers": 0}
    write_folder(tmp_path / "scenes")
    write_folder(tmp_path / "other", inverted=True)
    cache = cachetool.extract("tiny-reg", f"imagefolder:{tmp_path / 'scenes'}", **options).attrs["cachetool_path"]
    other = cachetool.extract("tiny-reg", f"imagefolder:{tmp_path / 'other'}", **options).attrs["cachetool_path"]
    edit = Edit("registers", f"patch:same@{other}", 6)
    (first,) = replay_edits(cache, [edit])
    removing.remove_store(Path(other))
    for path in (tmp_path / "other").glob("*/*.png"):
        with Image.open(path) as image:
            turned = image.rotate(180)
        turned.save(path)
    cachetool.extract("tiny-reg", f"imagefolder:{tmp_path / 'other'}", **options)
    (second,) = replay_edits(cache, [edit])
    assert not second.reused
    assert relative_rms(stored_sequence(second.path), stored_sequence(first.path)) > 1e-3
