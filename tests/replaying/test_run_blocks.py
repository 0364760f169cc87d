"""Runs are cut into blocks of more images than their cache, as many as memory allows, and hold the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cachetool import Edit
from cachetool.replaying import Run, replay_edits
from cachetool.replaying.run_blocks import PREPARED_BYTES, run_block, value_bytes
from cachetool.store import StoreReader, StoreSpec, StoreWriter, default_block
from cachetool.tokens import TokenLayout
from tests.reference.plain_models import stored_array, stored_sequence
from tests.store.conftest import image_table, make_example

EDITS = (
    Edit("registers", "shuffle", 6, seed=1),
    Edit("patches:random4", "noise", 6, seed=2),
    Edit("cls", "remove", 6),
)


ZERO = Edit("registers", "zero", 9)


def cache_of(channels: int, depth: int, grid: tuple[int, int] = (16, 16), images: int = 1024) -> StoreSpec:
    """A cache of all states of a model in float16, cut as by default."""
    layout, layers = TokenLayout(1, 4, *grid), tuple(range(depth + 1))
    block = default_block(layout, channels, depth + 1, 2)
    spec = make_example(images=0).spec
    return replace(spec, layout=layout, channels=channels, layers=layers, block=block, images=image_table(images))


@pytest.mark.parametrize(
    ("model", "blocks"),
    [
        pytest.param(cache_of(384, 12), (32, 128), id="ViT-S"),
        pytest.param(cache_of(768, 12), (16, 64), id="ViT-B"),
        pytest.param(cache_of(1024, 24), (8, 32), id="ViT-L"),
        pytest.param(cache_of(768, 12, (37, 37)), (8, 8), id="ViT-B at 518 px"),
    ],
)
def test_blocks_of_a_run_are_some_of_its_cache(model: StoreSpec, blocks: tuple[int, int]) -> None:
    """On paper: a state of ViT-S is 261 x 384 x 4 bytes an image, and 128 times that are 51 MB; twice, over 64 MiB."""
    keep = [model.layers[-1]]
    assert (model.block, run_block(model, ZERO, keep)) == blocks
    assert run_block(model, Edit("registers", "zero", 0), model.layers) == model.block
    state = model.layout.tokens * model.channels * 4
    assert blocks[0] == blocks[1] or blocks[1] * state <= PREPARED_BYTES < 2 * blocks[1] * state


def test_a_run_of_more_states_has_smaller_blocks() -> None:
    edit = Edit("registers", "zero", 0)
    found = [run_block(cache_of(384, 12), edit, range(13 - states, 13)) for states in range(1, 14)]
    assert found == sorted(found, reverse=True)
    assert found[3] == 128, "the shard of 128 images at 4 states takes 101 MB"
    assert found[6] == 64, "at 7 states it would take 176 MB"


@pytest.mark.parametrize(
    ("edit", "values", "block"),
    [
        (Edit("patches", "mean", 9), 256 * 4, 32),  # 64 images would take 101 MB
        (Edit("patches", "mean", 11), 256 * 2, 64),
        (Edit("patches:outliers", "mean", 9), 256 * 4, 32),  # who knows how many
        (Edit("patches:random16", "mean", 9), 16 * 4, 128),
        (Edit("registers:1,3", "noise", 9, sustained=False), 2, 128),
        (Edit("patches", "remove", 9), 0, 128),  # puts nothing in
    ],
)
def test_what_an_edit_puts_in_is_bounded_too(edit: Edit, values: int, block: int) -> None:
    cache = cache_of(384, 12)
    assert value_bytes(cache, edit, 12) == values * 384 * 4
    assert run_block(cache, edit, [12]) == block
    assert block == cache.block or block * values * 384 * 4 <= PREPARED_BYTES


def test_a_cache_that_is_cut_finer_stays_so_in_its_runs() -> None:
    assert run_block(replace(cache_of(384, 12), block=3), ZERO, [12]) == 24
    assert run_block(replace(cache_of(48, 12), block=5), ZERO, [12]) == 5, "by default both would have 256"


def test_few_images_are_left_in_blocks_that_overlap() -> None:
    blocks = [run_block(cache_of(384, 12, images=images), ZERO, [12]) for images in (20, 255, 256, 511, 512)]
    assert blocks == [32, 32, 64, 64, 128]


@pytest.fixture
def whole(caches: dict[str, Path]) -> list[Run]:
    """Runs in blocks of 8, as their cache."""
    runs = replay_edits(caches["float32"], EDITS)
    assert [StoreReader(run.path).spec.block for run in runs] == [8, 8, 8]
    return runs


def cut(patch: pytest.MonkeyPatch, images: int) -> None:
    patch.setattr("cachetool.replaying.runs.run_block", lambda cache, edit, keep: images)


@pytest.mark.parametrize("images", [16, 12, 64])
def test_values_do_not_depend_on_the_blocks_of_a_run(
    fresh: Callable[..., Path], whole: list[Run], monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    cut(monkeypatch, images)
    runs = replay_edits(fresh(), EDITS, batch_size=4)
    for run, expected in zip(runs, whole, strict=True):
        spec = StoreReader(run.path).spec
        assert (spec.block, spec.facts["batch_size"]) == (images, 4)
        found, natural = stored_sequence(run.path), stored_sequence(expected.path)
        np.testing.assert_allclose(found, natural, rtol=1e-4, atol=1e-4)
        assert np.array_equal(stored_array(run.path, "edited"), stored_array(expected.path, "edited"))
        if run.edit.build().kind != "attention":
            for name in ("mahalanobis", "neighbour_percentile"):
                array = f"off_distribution_{name}"
                np.testing.assert_allclose(stored_array(run.path, array), stored_array(expected.path, array), rtol=1e-6)


def test_batches_are_no_larger_than_a_block(fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 12)
    (run,) = replay_edits(fresh(), EDITS[:1], batch_size=50)
    assert StoreReader(run.path).spec.facts["batch_size"] == 12


def test_runs_that_are_cut_otherwise_are_replayed_together(
    fresh: Callable[..., Path], whole: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fresh()
    replay_edits(cache, EDITS[:2])
    cut(monkeypatch, 16)
    runs = replay_edits(cache, EDITS)
    assert [StoreReader(run.path).spec.block for run in runs] == [8, 8, 16]
    for run in runs[:2]:
        writer = StoreWriter(run.path)
        writer.discard(1)
        writer.update_facts({"finished": False})
    writer = StoreWriter(runs[2].path)
    writer.discard(0)
    again = replay_edits(cache, EDITS)
    assert [run.reused for run in again] == [False, False, False]
    for run, expected in zip(again, whole, strict=True):
        np.testing.assert_allclose(stored_sequence(run.path), stored_sequence(expected.path), rtol=1e-4, atol=1e-4)
