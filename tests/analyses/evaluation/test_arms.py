from __future__ import annotations

from typing import Any

import pytest
import xarray as xr

from analyses.evaluation.arms import MeasuredRun, edit_label, edit_of, group_arms, is_unedited, reads_edited_tokens
from analyses.tasks import parse_task
from cachetool import Edit
from cachetool.errors import MissingDataError


def run(edit: Edit, drawn_from: str = "a", head: Any = "intact") -> MeasuredRun:
    key = {"edit": edit.to_json(), "drawn_from": drawn_from, "measured_against": "m", "labels": None}
    return MeasuredRun(xr.Dataset(attrs={"kind": "run", "key": key}), xr.Dataset(), head)


def test_seeds_of_an_edit_are_one_arm() -> None:
    none = run(Edit("registers", "none", 1))
    seeds = [run(Edit("registers", "shuffle", 1, seed=seed)) for seed in (2, 0, 1)]
    intact, shuffled = group_arms([seeds[0], none, *seeds[1:]], "cache")
    assert intact.runs == (none,)
    assert intact.intact is none
    assert shuffled.runs == (seeds[1], seeds[2], seeds[0])
    assert shuffled.intact is none


def test_edits_without_randomness_are_not_counted_as_several_seeds() -> None:
    none = run(Edit("registers", "none", 1))
    zeros = [run(Edit("registers", "zero", 1, seed=seed)) for seed in (0, 1)]
    assert [len(arm.runs) for arm in group_arms([none, *zeros], "cache")] == [1, 1]


def test_heads_and_calibrations_are_kept_apart() -> None:
    none, edit = run(Edit("registers", "none", 1)), Edit("registers", "mean", 1)
    arms = group_arms([none, run(edit), run(edit, drawn_from="b"), run(edit, head="refit")], "cache")
    assert len(arms) == 4
    assert all(arm.intact is none for arm in arms)


def test_every_first_state_has_its_own_intact_arm() -> None:
    nones = [run(Edit("cls", "none", layer)) for layer in (1, 6)]
    edited = [run(Edit("cls", "zero", layer)) for layer in (6, 1)]
    arms = group_arms([*nones, *edited], "cache")
    assert [arm.intact for arm in arms] == [*nones, nones[1], nones[0]]


def test_a_missing_intact_arm_names_the_command() -> None:
    runs = [run(Edit("cls", "zero", layer)) for layer in (6, 1, 6)]
    with pytest.raises(MissingDataError, match="cachetool replay here --ablation none --from-layer 1,6"):
        group_arms(runs, "here")


def test_the_cache_itself_is_an_intact_arm() -> None:
    cache = MeasuredRun(xr.Dataset(attrs={"kind": "cache"}), xr.Dataset())
    assert cache.edit is None
    assert cache.intact
    (arm,) = group_arms([cache], "cache")
    assert arm.runs == (cache,)


def test_edits_are_read_back() -> None:
    edit = Edit("registers:1", "interpolate:zero:0.5", 3, until_layer=9)
    assert edit_of(run(edit).store) == edit
    assert not is_unedited(edit)
    assert is_unedited(Edit("cls", "none", 3))


@pytest.mark.parametrize(
    ("edit", "label"),
    [
        (Edit("registers", "shuffle", 1), "registers shuffle"),
        (Edit("cls", "zero", 1, until_layer=11), "[CLS] zero, to 11"),
        (Edit("patches:random4", "zero", 1, sustained=False), "patches:random4 zero, once"),
        (Edit("registers", "shuffle", 1, fresh_per_layer=True), "registers shuffle, fresh per layer"),
    ],
)
def test_labels(edit: Edit, label: str) -> None:
    assert edit_label(edit) == label


@pytest.mark.parametrize(
    ("task", "edit", "expected"),
    [
        ("classification", Edit("cls", "zero", 1), True),
        ("classification", Edit("cls", "zero", 1, until_layer=11), False),
        ("classification", Edit("cls", "zero", 1, sustained=False), False),
        ("classification", Edit("cls", "zero", 12, sustained=False), True),
        ("classification", Edit("registers", "zero", 1), False),
        ("classification:cls@9", Edit("cls", "zero", 1, until_layer=9), True),
        ("classification:cls@9", Edit("cls", "zero", 1, until_layer=8), False),
        ("classification:registers:2", Edit("registers", "zero", 1), True),
        ("classification:registers:2", Edit("registers:2", "zero", 1), True),
        ("classification:registers:2", Edit("registers:1", "zero", 1), False),
        ("classification:cls+patches", Edit("patches:random4", "zero", 1), True),
        ("segmentation", Edit("patches:outliers", "mean", 1), True),
        ("segmentation", Edit("registers", "mean", 1), False),
        ("correspondence", Edit("patches:random4", "knockout", 1), False),
    ],
)
def test_edits_of_the_very_tokens_that_are_read(task: str, edit: Edit, expected: bool) -> None:
    assert reads_edited_tokens(parse_task(task), edit, depth=12) is expected
