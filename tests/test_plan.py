from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cachetool
from cachetool.extraction import prepare
from cachetool.plan import plan_extraction, plan_replay

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


def test_memory_of_a_replay_grows_with_edits_up_to_a_bound(cache: Path) -> None:
    def memory(count: int, **options: str) -> float:
        edits = [cachetool.Edit("registers", "noise", 9, seed=seed) for seed in range(count)]
        return plan_replay(cache, edits, **options).costs["memory_bytes"]

    one = 256 * 69 * 96 * 2  # the last state of a block, float16
    assert memory(2) - memory(1) == one
    # More than 256 MiB are never held at a time, half of them to be written, unless one edit needs them.
    assert memory(100) - memory(1) == 256 * 2**20 - 3 * one
    # Two states in float32 and three blocks that are written, all states from 9 on.
    assert memory(1, keep="all") - memory(1) == 4 * 3 * one
