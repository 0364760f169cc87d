"""What is computed for the wanted tokens alone, in lower precision or compiled: measured, recorded, kept apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cachetool import Edit
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import load
from cachetool.errors import CertificateError, UnknownNameError
from cachetool.events import Silent
from cachetool.replaying import replay_edits
from cachetool.replaying.replayer import Settings
from tests.reference.plain_models import stored_array
from tests.reference.quick import quick_load

EDITS = (
    Edit("registers", "zero", 9),
    Edit("registers", "mean", 11),
    Edit("cls", "knockout", 10, until_layer=10),
    Edit("patches:random4", "remove", 11),
    Edit("registers", "zero", 12),
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.slug)
def test_cls_alone_is_cls_of_all_tokens(caches: dict[str, Path], edit: Edit) -> None:
    (whole,) = replay_edits(caches["float32"], [edit])
    (alone,) = replay_edits(caches["float32"], [edit], keep_tokens=["cls"])
    np.testing.assert_allclose(stored_array(alone.path, "cls"), stored_array(whole.path, "cls"), rtol=1e-4, atol=1e-4)
    assert alone.certificate["tokens"] == ["cls"]
    assert alone.certificate["relative_error"] < 1e-5
    assert whole.certificate["tokens"] == ["cls", "registers", "patches"]


def test_earlier_states_that_are_kept_are_whole(caches: dict[str, Path]) -> None:
    edit = Edit("registers", "zero", 9)
    (whole,) = replay_edits(caches["float32"], [edit], keep=[11, 12])
    (some,) = replay_edits(caches["float32"], [edit], keep=[11, 12], keep_tokens=["cls", "registers"])
    for name in ("cls", "registers"):
        found, expected = stored_array(some.path, name), stored_array(whole.path, name)
        assert np.array_equal(found[:, 0], expected[:, 0])
        np.testing.assert_allclose(found[:, 1], expected[:, 1], rtol=1e-4, atol=1e-4)


def test_bfloat16_is_another_run_and_its_error_is_measured(caches: dict[str, Path]) -> None:
    edit = Edit("registers", "zero", 6)
    (exact,) = replay_edits(caches["float32"], [edit])
    (rounded,) = replay_edits(caches["float32"], [edit], precision="bfloat16")
    assert rounded.path != exact.path
    assert rounded.certificate["precision"] == "bfloat16"
    assert "bfloat16 products" in rounded.certificate["kernel"]
    assert exact.certificate["bit_equal"]
    difference = stored_array(rounded.path, "patches") - stored_array(exact.path, "patches")
    relative = np.sqrt(np.square(difference).mean() / np.square(stored_array(exact.path, "patches")).mean())
    assert 1e-4 < relative < 3 * rounded.certificate["relative_error"] < 6e-2
    (again,) = replay_edits(caches["float32"], [edit], precision="bfloat16")
    assert again.reused


def test_too_coarse_arithmetic_is_refused(caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.replaying.certificate.ARITHMETIC_BOUNDS", {"bfloat16": 1e-5})
    with pytest.raises(CertificateError, match="bfloat16 products"):
        replay_edits(caches["float32"], [Edit("cls", "zero", 5)], precision="bfloat16")


def test_what_the_device_cannot_do_is_refused_before_any_work(fresh: Callable[..., Path]) -> None:
    cache = fresh()
    with pytest.raises(UnknownNameError, match="tf32"):
        replay_edits(cache, [Edit("cls", "zero", 5)], precision="tf32", device="cpu")
    assert not cache.with_suffix(".runs").exists()


@pytest.fixture
def compiled_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled blocks round otherwise, as they do, and take no seconds."""

    def compiled(call: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return lambda *arguments, **named: call(*arguments, **named) * (1 + 1e-6)

    monkeypatch.setattr(torch, "compile", compiled)


@pytest.mark.usefixtures("compiled_otherwise")
@pytest.mark.parametrize("opened_by", [load, quick_load])
def test_blocks_are_compiled_for_one_replay_alone(
    caches: dict[str, Path], fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, opened_by: Callable[..., Any]
) -> None:
    monkeypatch.setattr("cachetool.replaying.model.load", opened_by)
    edit = Edit("registers", "zero", 9)
    (compiled,) = replay_edits(fresh(), [edit], compiled=True)
    (plain,) = replay_edits(fresh(name="plain"), [edit])
    (before,) = replay_edits(caches["float32"], [edit])
    assert not compiled.certificate["bit_equal"]
    assert plain.certificate["bit_equal"]
    assert np.array_equal(stored_array(plain.path, "patches"), stored_array(before.path, "patches"))


@pytest.mark.usefixtures("compiled_otherwise")
def test_a_worker_that_compiled_blocks_opens_others_for_replays_without(
    caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the extra [distributed] is not installed")
    from cachetool.distributing import workers
    from cachetool.distributing.replays import CertificateJob

    monkeypatch.setattr(workers, "_kept", {})
    found = []
    for compiled in (False, True, False):
        settings = Settings(
            cache=caches["float32"], token_types=("cls", "registers", "patches"), calibration=None, weights=None,
            device="cpu", arithmetic=Arithmetic(compiled=compiled), batch_size=None,
        )  # fmt: skip
        job = CertificateJob(cache=settings.cache, settings=settings)
        found.append(job.open(Silent()).run(9)["bit_equal"])
    assert found == [True, False, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_compiled_blocks_agree(caches: dict[str, Path], fresh: Callable[..., Path]) -> None:
    edit = Edit("registers", "zero", 11)
    (plain,) = replay_edits(caches["float32"], [edit])
    (compiled,) = replay_edits(caches["float32"], [edit], compiled=True)
    assert compiled.path != plain.path
    assert compiled.certificate["compiled"]
    np.testing.assert_allclose(
        stored_array(compiled.path, "patches"), stored_array(plain.path, "patches"), rtol=1e-4, atol=1e-4
    )
    (after,) = replay_edits(fresh(), [edit])
    assert after.certificate["bit_equal"]
    assert np.array_equal(stored_array(after.path, "patches"), stored_array(plain.path, "patches"))
