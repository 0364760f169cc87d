from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cachetool
from cachetool.extraction import prepare
from cachetool.plan import plan_extraction, plan_replay
from cachetool.plan.groups import group_edits
from cachetool.store import StoreReader

IMAGES = 12


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plan")
    opened = cachetool.extract("tiny-reg", "shapes", root=root, limit=IMAGES, workers=0)
    return Path(opened.attrs["cachetool_path"])


def test_what_is_stored_already_costs_nothing(cache: Path) -> None:
    request = prepare("tiny-reg", "shapes", root=cache.parents[1], limit=IMAGES)
    plan = plan_extraction(request)
    assert plan.costs["stored_images"] == IMAGES
    assert plan.costs["disk_bytes"] == 0
    assert plan.verdict == "nothing to do"


def test_replay_counts_blocks_and_bytes(cache: Path) -> None:
    edits = [cachetool.Edit("registers", "zero", 9), cachetool.Edit("registers", "zero", 6)]
    plan = plan_replay(cache, edits)
    assert plan.costs["blocks_run"] == 3 + 6
    assert plan.costs["blocks_of_full_forwards"] == 24
    # Two states are read: 12 images in two patch chunks of 8, [CLS] and registers padded to the block of 256.
    values = 2 * (16 * 64 * 96 + 256 * 96 + 256 * 4 * 96)
    assert plan.costs["read_bytes"] == values * np.dtype(np.float16).itemsize
    assert plan.costs["compute_seconds"] > 0
    assert set(plan.to_json()) == {"plan", "verdict", *plan.costs}


def test_operations_are_those_of_the_products(cache: Path) -> None:
    edits = [cachetool.Edit("registers", "zero", 11), cachetool.Edit("cls", "zero", 11)]
    plan = plan_replay(cache, edits)
    tokens, channels = 69, 96
    block = 2 * tokens * 12 * channels**2 + 2 * 2 * tokens**2 * channels  # weights; scores and weighted sums
    shared = 2 * tokens * 3 * channels**2  # queries, keys and values of the state that both begin with
    assert plan.costs["floating_point_operations"] == pytest.approx(IMAGES * (2 * block - shared), rel=1e-3)


def test_an_extraction_is_predicted_from_its_parts(tmp_path: Path) -> None:
    plan = plan_extraction(prepare("tiny-reg", "shapes", root=tmp_path, limit=64))
    parts = [plan.costs[f"{name}_seconds"] for name in ("compute", "decode", "write", "storage_error")]
    assert all(seconds > 0 for seconds in parts)
    assert max(parts) < plan.costs["predicted_seconds"] <= sum(parts)
    assert not list(tmp_path.iterdir())


def test_more_images_than_are_at_hand_can_be_planned(tmp_path: Path) -> None:
    request = prepare("tiny-reg", "shapes", root=tmp_path, limit=8, tokens=["registers"])
    plan = plan_extraction(request, images=50_000)
    assert plan.costs["total_images"] == 50_000
    # 196 blocks of 256 images, 13 states, 4 registers of 96 channels.
    assert plan.costs["disk_bytes"] == 196 * 256 * 13 * 4 * 96 * 2
    assert plan.costs["compute_seconds"] > 0


def test_a_replay_writes_the_states_and_tokens_that_are_kept(cache: Path) -> None:
    edits = [cachetool.Edit("registers", "zero", 9), cachetool.Edit("registers", "zero", 11)]
    last = plan_replay(cache, edits, keep_tokens=["cls"]).costs["written_bytes"]
    assert last == 2 * 256 * 96 * 2  # [CLS] of a whole block of two edits
    assert plan_replay(cache, edits, keep=[11, 12], keep_tokens=["cls"]).costs["written_bytes"] == 2 * last
    assert plan_replay(cache, edits, keep="all", keep_tokens=["cls"]).costs["written_bytes"] == 3 * last


STORED = IMAGES * 69 * 96 * 2
"""Bytes of the last state of all images, float16."""
VALUES = 2 * IMAGES * 4 * 4 * 96 * 4
"""Bytes of what is put into four registers at four states, float32: of the block computed and of the one read."""


def memory(cache: Path, edits: int, from_layer: int = 9, **options: str) -> float:
    """Planned bytes of edits of registers."""
    drawn = [cachetool.Edit("registers", "noise", from_layer, seed=seed) for seed in range(edits)]
    return plan_replay(cache, drawn, **options).costs["memory_bytes"]


def test_memory_of_a_replay_grows_with_edits_up_to_a_bound(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = memory(cache, 1)
    assert memory(cache, 2) - one == STORED + VALUES
    # What three give, and as much that is written meanwhile; with one edit two wait to be written.
    assert memory(cache, 3) - one == 3 * STORED + 2 * VALUES
    # Three blocks that are written, all states from 9 on.
    assert memory(cache, 1, keep="all") - one == 4 * 3 * STORED
    monkeypatch.setattr("cachetool.replaying.portions.HELD_BYTES", 2 * STORED)
    assert memory(cache, 100) - one == memory(cache, 2) - one == STORED + VALUES


def test_memory_is_that_of_the_blocks_of_the_runs_and_more_work_takes_no_less(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, weights = memory(cache, 1), memory(cache, 1) - 4 * STORED - VALUES - 2 * IMAGES * 69 * 96 * 4
    monkeypatch.setattr("cachetool.plan.groups.run_block", lambda spec, edit, keep: 3)
    assert memory(cache, 1) - weights == (whole - weights) / 4
    monkeypatch.setattr("cachetool.plan.groups.run_block", lambda spec, edit, keep: 3 if len(keep) > 4 else 12)
    late = [cachetool.Edit("registers", "zero", 9)]
    early = [cachetool.Edit("registers", "zero", 1)]
    both = plan_replay(cache, [*late, *early], keep="all").costs
    alone = plan_replay(cache, late, keep="all").costs
    assert both["memory_bytes"] >= alone["memory_bytes"]
    assert both["read_bytes"] == 2 * alone["read_bytes"]


def test_edits_whose_runs_are_cut_otherwise_are_read_for_apart(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [cachetool.Edit("registers", "zero", 9), cachetool.Edit("patches", "zero", 9)]
    together = plan_replay(cache, edits).costs["read_bytes"]
    monkeypatch.setattr(
        "cachetool.plan.groups.run_block", lambda spec, edit, keep: 12 if edit.target == "registers" else 4
    )
    assert plan_replay(cache, edits).costs["read_bytes"] == 2 * together


def test_a_table_names_what_each_number_counts(cache: Path) -> None:
    plan = plan_replay(cache, [cachetool.Edit("cls", "zero", 9)])
    names = set(plan.table().columns[0].cells)
    assert {"total images", "blocks run", "blocks of full forwards", "floating point operations", "memory"} <= names


def test_on_a_device_the_values_of_a_portion_are_held_once_more(cache: Path) -> None:
    spec = StoreReader(cache).spec
    (group,) = group_edits(spec, [cachetool.Edit("registers", "noise", 9)], keep_all=False, keep=[12])
    plain, pinned = (group.memory_bytes(spec, spec.token_types, pinned=one) for one in (False, True))
    assert pinned - plain == VALUES // 2
