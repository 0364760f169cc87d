"""What a replay refuses, by name and with nothing left behind: other weights, states that lack, unfit edits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cachetool
from cachetool import Edit, places
from cachetool.errors import (
    CertificateError,
    IncompleteError,
    InvalidEditError,
    KeyMismatchError,
    UnknownNameError,
    WeightsError,
)
from cachetool.replaying import replay_edits
from cachetool.store import StoreReader, StoreWriter
from tests.reference.plain_models import plain_tiny_reg, save_weights


def test_token_types_that_the_cache_lacks_are_named(caches: dict[str, Path]) -> None:
    with pytest.raises(InvalidEditError, match="--keep-tokens heads, keys: the cache holds cls, registers, patches"):
        replay_edits(caches["float32"], [Edit("registers", "zero", 9)], keep_tokens=["cls", "keys", "heads"])
    with pytest.raises(InvalidEditError, match=r"--keep-tokens \(none\)"):
        replay_edits(caches["float32"], [Edit("registers", "zero", 9)], keep_tokens=[])


def test_tampered_cache_is_refused(fresh: Callable[..., Path]) -> None:
    cache = fresh()
    reader, writer = StoreReader(cache), StoreWriter(cache)
    arrays = {name: reader.read(name, 6, 0, 8).copy()[None] for name in ("cls", "registers", "patches")}
    for array in arrays.values():
        array[0, 2] = array[0, 3]
    arrays["cls"] = arrays["cls"][:, :, 0]
    writer.write_block(0, arrays, (6,))
    with pytest.raises(CertificateError, match="from state 6"):
        replay_edits(cache, [Edit("registers", "zero", 6)])
    assert not places.list_runs(cache)
    replay_edits(cache, [Edit("registers", "zero", 7)])


def test_other_weights_are_refused(fresh: Callable[..., Path], tmp_path: Path) -> None:
    model = plain_tiny_reg()
    with torch.no_grad():
        model.blocks[3].mlp.fc1.bias[0] += 1e-3
    weights = save_weights(model, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="weights_sha256"):
        replay_edits(fresh(), [Edit("registers", "zero", 6)], weights=weights)


def test_same_weights_under_another_name_are_accepted(fresh: Callable[..., Path], tmp_path: Path) -> None:
    weights = save_weights(plain_tiny_reg(), tmp_path / "same.safetensors")
    (run,) = replay_edits(fresh(), [Edit("registers", "zero", 6)], weights=weights)
    assert run.certificate["bit_equal"]


def test_calibration_of_another_kind_of_cache_is_refused(caches: dict[str, Path]) -> None:
    calibration = cachetool.calibrate(caches["float16"], name="of-float16").attrs["cachetool_path"]
    with pytest.raises(KeyMismatchError, match="float16"):
        replay_edits(caches["float32"], [Edit("registers", "mean", 6)], calibration=calibration)


def test_missing_states_are_all_named(tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": tmp_path, "dtype": "float32", "workers": 0, "limit": 8}
    cache = cachetool.extract("tiny-reg", "shapes", layers=(6, 8, 12), **options).attrs["cachetool_path"]
    with pytest.raises(IncompleteError, match=r"registers: states 7, 9, 10, 11\b"):
        replay_edits(cache, [Edit("registers", "shuffle", 6)])
    with pytest.raises(IncompleteError, match=r"cls: states 3\n.*registers: states 3\n.*patches: states 3"):
        replay_edits(cache, [Edit("registers", "zero", 3)])
    with pytest.raises(IncompleteError, match=r"patches: states 7, 9, 10, 11\b"):
        replay_edits(cache, [Edit("registers", "zero", 6), Edit("patches", "mean", 6)])
    assert not places.list_runs(Path(cache))
    replay_edits(cache, [Edit("registers", "shuffle", 6, sustained=False), Edit("registers", "zero", 6)])
    cachetool.extract("tiny-reg", "shapes", layers=(7,), **options)
    replay_edits(cache, [Edit("registers", "shuffle", 6, until_layer=8)])


def test_cache_without_last_state_or_type_cannot_be_certified(tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": tmp_path, "dtype": "float32", "workers": 0, "limit": 8}
    cache = cachetool.extract("tiny-reg", "shapes", layers=(6, 8), **options).attrs["cachetool_path"]
    with pytest.raises(IncompleteError, match="state 12"):
        replay_edits(cache, [Edit("registers", "zero", 6)])
    few = cachetool.extract("tiny-reg", "shapes", name="few", tokens=("cls", "registers"), **options)
    with pytest.raises(IncompleteError, match="patches: states 6"):
        replay_edits(few.attrs["cachetool_path"], [Edit("registers", "zero", 6)])


@pytest.mark.parametrize(
    ("edits", "keep", "text"),
    [
        ([], None, "no edit"),
        ([Edit("cls", "zero", 13)], None, "13"),
        ([Edit("cls", "zero", 3)], (14, 2, 15), "14, 15"),
        ([Edit("cls", "zero", 3)], (2, 12), "2 .edited from state 3 on"),
        ([Edit("registers:7", "zero", 3)], None, "registers 7"),
        ([Edit("cls", "knockout", 12)], None, "no block attends"),
        ([Edit("cls", "patch:val/99999", 3)], None, "val/99999"),
        ([Edit("cls", "zero", 3), Edit("cls", "same-class-shuffle", 3)], None, "same class"),
    ],
)
def test_edits_that_do_not_fit_are_refused(
    fresh: Callable[..., Path], edits: list[Edit], keep: tuple[int, ...] | None, text: str
) -> None:
    cache = fresh()
    with pytest.raises(InvalidEditError, match=text):
        replay_edits(cache, edits, keep=keep)
    assert not places.list_runs(cache)


def test_a_run_is_no_cache(caches: dict[str, Path]) -> None:
    (run,) = replay_edits(caches["float32"], [Edit("cls", "none", 12)])
    with pytest.raises(InvalidEditError, match="is a run"):
        replay_edits(run.path, [Edit("cls", "zero", 12)])


def test_unknown_device_is_refused(caches: dict[str, Path]) -> None:
    with pytest.raises(UnknownNameError, match="--device abacus"):
        replay_edits(caches["float32"], [Edit("cls", "zero", 3)], device="abacus")


@pytest.mark.parametrize("before", [[], [Edit("registers", "zero", 12)]], ids=["alone", "after another edit"])
def test_overflow_in_a_run_names_state_image_and_value(
    fresh: Callable[..., Path], tmp_path: Path, before: list[Edit]
) -> None:
    np.save(tmp_path / "far.npy", np.full(96, 1e5, dtype=np.float32))
    cache = fresh("float16")
    with pytest.raises(OverflowError, match=r"state 12 .* float16 .*val/00000 \(.*bfloat16"):
        replay_edits(cache, [*before, Edit("patches:0", f"add:{tmp_path / 'far.npy'}", 12)])
    assert not any(StoreReader(run).complete.any() for run in places.list_runs(cache))
