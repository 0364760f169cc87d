"""What is computed on a CUDA device, against the same on the CPU: `make test-cuda`, where there is one.

Tolerance: products in float32 are summed in another order on each device, which twelve blocks keep near 1e-6 of a
token's size; what is stored in float16 is rounded to 5e-4 of each value.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import cachetool
from cachetool import Edit
from cachetool.arithmetic import BOUNDS
from cachetool.extraction import extract, prepare
from cachetool.plan import plan_extraction, plan_replay
from cachetool.replaying import Run, replay_edits
from cachetool.store import StoreReader
from tests.reference.hooked_forward import relative_rms
from tests.reference.plain_models import stored_sequence

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DEVICE = "cuda"
IMAGES = 70
ROUNDED = 5e-4
COMPUTED = 1e-5
REPLACEMENTS = (
    "none", "zero", "mean", "noise", "shuffle", "class-mean", "same-class-shuffle", "norm-matched",
    "interpolate:mean:0.5", "patch:{image}", "add:{row}", "knockout", "remove",
)  # fmt: skip


def path_of(opened) -> Path:
    return Path(opened.attrs["cachetool_path"])


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One cache from each device, in float32."""
    root = tmp_path_factory.mktemp("caches")
    return {
        device: path_of(
            cachetool.extract(
                "tiny-reg", "shapes", root=root, name=device, limit=IMAGES, dtype="float32", device=device
            )
        )
        for device in ("cpu", DEVICE)
    }


@pytest.fixture(scope="module")
def edits(caches: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Edit]:
    """Every kind of replacement, of some tokens from some state on."""
    row = tmp_path_factory.mktemp("rows") / "row.npy"
    reader = StoreReader(caches["cpu"])
    np.save(row, np.linspace(-1, 1, reader.spec.channels, dtype=np.float32))
    names = [text.format(image=reader.spec.images.image_id[3], row=row) for text in REPLACEMENTS]
    targets = ("registers", "cls", "patches:random4", "patches:3,17-20")
    return [Edit(targets[number % 4], name, (0, 6, 9)[number % 3]) for number, name in enumerate(names)]


def test_states_are_those_of_the_cpu(caches: dict[str, Path]) -> None:
    found, expected = stored_sequence(caches[DEVICE]), stored_sequence(caches["cpu"])
    assert max(relative_rms(one, other) for one, other in zip(found, expected, strict=True)) < COMPUTED
    assert StoreReader(caches[DEVICE]).spec.facts["environment"]["device"] == torch.cuda.get_device_name(DEVICE)


def test_replays_are_those_of_the_cpu(caches: dict[str, Path], edits: list[Edit]) -> None:
    """Each device replays the states it computed; every edit is checked, and all failures are named."""

    def replayed(device: str) -> list[Run]:
        return replay_edits(caches[device], edits, keep="all", device=device)

    wrong = []
    for edit, found, expected in zip(edits, replayed(DEVICE), replayed("cpu"), strict=True):
        error = relative_rms(stored_sequence(found.path), stored_sequence(expected.path))
        if not error < COMPUTED:
            wrong.append(f"{edit}: {error:.2g}")
        assert found.certificate["kernel"].startswith("cuda")
        assert found.certificate["relative_error"] < COMPUTED
    assert not wrong


def test_a_cache_of_the_cpu_is_replayed(caches: dict[str, Path]) -> None:
    run = cachetool.replay(caches["cpu"], Edit("registers", "shuffle", 3), device=DEVICE)
    assert 0 < run.attrs["facts"]["certificate"]["relative_error"] < COMPUTED


def test_alone_what_is_wanted_is_computed(caches: dict[str, Path]) -> None:
    edit = Edit("registers", "zero", 11)
    (alone,) = replay_edits(caches[DEVICE], [edit], keep_tokens=["cls"], device=DEVICE)
    (whole,) = replay_edits(caches[DEVICE], [edit], device=DEVICE)
    found, expected = (StoreReader(run.path).read("cls", 12, 0, IMAGES) for run in (alone, whole))
    assert relative_rms(found, expected) < COMPUTED


@pytest.mark.parametrize(("precision", "compiled"), [("tf32", False), ("bfloat16", False), ("float32", True)])
def test_the_certificate_says_what_faster_products_cost(
    caches: dict[str, Path], precision: str, compiled: bool
) -> None:
    run = cachetool.replay(
        caches[DEVICE], Edit("registers", "zero", 9), device=DEVICE, precision=precision, compiled=compiled
    )
    certificate = run.attrs["facts"]["certificate"]
    assert (certificate["precision"], certificate["compiled"]) == (precision, compiled)
    assert certificate["relative_error"] < (BOUNDS[precision] or COMPUTED)
    if not compiled:
        assert certificate["relative_error"] > COMPUTED


def test_attention_is_that_of_the_cpu(caches: dict[str, Path]) -> None:
    found, expected = (cachetool.attention(caches["cpu"], 7, device=device)[:4].values for device in (DEVICE, "cpu"))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_verify_computes_again_there(caches: dict[str, Path]) -> None:
    report = cachetool.verify(caches[DEVICE], recompute=8, device=DEVICE)
    assert report.sound, report


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    """The allocator is given room for a few images of a batch, and truly runs out of it."""
    request = prepare("tiny-reg", "shapes", root=tmp_path, limit=256, device=DEVICE, image_size=448)
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(DEVICE).total_memory
    room = torch.cuda.memory_reserved() + 96 * 2**20
    try:
        torch.cuda.set_per_process_memory_fraction(room / whole)
        extract(request, batch_size=256)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    sizes = StoreReader(request.path).spec.facts["batch_sizes"]
    assert len(sizes) > 1, sizes
    assert all(half == size // 2 for size, half in pairwise(sizes))


def test_a_cluster_computes_the_same_there(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra [distributed] is not installed")
    made = [
        path_of(cachetool.extract("tiny-reg", "shapes", root=tmp_path, name=name, limit=IMAGES, device=DEVICE, **how))
        for name, how in (("alone", {}), ("cluster", {"cluster": "local:2"}))
    ]
    alone, cluster = (stored_sequence(path) for path in made)
    np.testing.assert_array_equal(alone, cluster)


def test_plans_are_made_there(caches: dict[str, Path], tmp_path: Path) -> None:
    request = prepare("tiny-reg", "shapes", root=tmp_path, limit=IMAGES, device=DEVICE)
    assert plan_extraction(request).costs["predicted_seconds"] > 0
    plan = plan_replay(caches[DEVICE], [Edit("registers", "zero", 6)], device=DEVICE)
    assert plan.costs["predicted_seconds"] > 0


def test_what_is_stored_is_rounded_there(tmp_path: Path, caches: dict[str, Path]) -> None:
    rounded = cachetool.extract("tiny-reg", "shapes", root=tmp_path, limit=IMAGES, device=DEVICE)
    assert relative_rms(stored_sequence(path_of(rounded)), stored_sequence(caches[DEVICE])) < ROUNDED
