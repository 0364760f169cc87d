from __future__ import annotations

import pytest

from analyses.study.definition import EditGroup
from analyses.study.edits import expand, resolve_states
from analyses.study.loading import load_study
from cachetool import Edit
from cachetool.errors import InvalidEditError
from cachetool.tokens import TokenLayout

WITH = TokenLayout(cls=1, registers=4, rows=8, columns=8)
WITHOUT = TokenLayout(cls=1, registers=0, rows=8, columns=8)


def test_targets_states_and_seeds_are_spelled_out() -> None:
    group = EditGroup("g", ("registers",), ("zero", "shuffle"), (1, -2), until_layers=(-1, -2), seeds=2)
    edits = [planned.edit for planned in expand((group,), WITH, 12, first_seed=5).edits]
    assert edits == [
        Edit("cls", "none", 1),
        Edit("cls", "none", 11),
        *(Edit("registers", "zero", start, until_layer=until, seed=5) for start in (1, 11) for until in (None, 11)),
        *(
            Edit("registers", "shuffle", start, until_layer=until, seed=seed)
            for start in (1, 11)
            for until in (None, 11)
            for seed in (5, 6)
        ),
    ]


@pytest.mark.parametrize(
    ("registers", "each", "cumulative"),
    [
        (
            4,
            ["registers:0", "registers:1", "registers:2", "registers:3"],
            ["registers:0-1", "registers:0-2", "registers"],
        ),
        (1, ["registers:0"], ["registers"]),
    ],
)
def test_lesions_follow_the_number_of_registers(registers: int, each: list[str], cumulative: list[str]) -> None:
    layout = TokenLayout(cls=1, registers=registers, rows=2, columns=2)
    for target, expected in (("registers:each", each), ("registers:cumulative", cumulative)):
        planned = expand((EditGroup("g", (target,), ("zero",)),), layout, 12).edits[1:]
        assert [entry.edit.target for entry in planned] == expected


def test_an_edit_of_two_groups_is_there_once_and_remembers_both() -> None:
    groups = (EditGroup("a", ("registers",), ("zero",)), EditGroup("b", ("registers",), ("zero", "mean"), refit=True))
    (_, zero, mean) = expand(groups, WITH, 12).edits
    assert (zero.groups, zero.refit) == (("a", "b"), True)
    assert (mean.groups, mean.refit) == (("b",), True)


def test_targets_that_a_model_lacks_are_listed() -> None:
    groups = (EditGroup("a", ("registers", "cls", "registers:each"), ("zero",)),)
    expansion = expand(groups, WITHOUT, 12)
    assert [planned.edit for planned in expansion.edits] == [Edit("cls", "none", 1), Edit("cls", "zero", 1)]
    assert len(expansion.skipped) == 2
    assert all(reason.startswith("a: target 'registers' needs registers") for reason in expansion.skipped)


def test_states_that_a_model_lacks_are_all_named() -> None:
    groups = (
        EditGroup("late", ("cls",), ("zero",), (13,)),
        EditGroup("backwards", ("cls",), ("zero",), (9,), until_layers=(3,)),
        EditGroup("no block left", ("cls",), ("knockout",), (-1,)),
    )
    with pytest.raises(InvalidEditError) as raised:
        expand(groups, WITH, 12)
    for name in ("late", "backwards", "no block left"):
        assert f"\n  {name}: cls" in str(raised.value)


def test_a_sweep_takes_the_documented_states() -> None:
    assert resolve_states("sweep", 12) == (1, 3, 6, 9, 11)
    assert resolve_states("sweep", 24) == (2, 6, 12, 18, 22)
    assert resolve_states("sweep", 2) == (1, 2)
    assert resolve_states((0, -1, -13), 12) == (0, 12, 0)


def test_a_deep_model_without_registers_gets_states_of_its_own() -> None:
    layout = TokenLayout(cls=1, registers=0, rows=16, columns=16)
    groups = (
        EditGroup("sweep", ("cls", "registers"), ("zero",), "sweep", until_layers=(-2,)),
        EditGroup("last", ("patches:random4",), ("zero",), (-1,), seeds=2),
    )
    expansion = expand(groups, layout, 24)
    assert [planned.edit for planned in expansion.edits if planned.groups] == [
        *(Edit("cls", "zero", start, until_layer=23) for start in (2, 6, 12, 18, 22)),
        Edit("patches:random4", "zero", 24),
        Edit("patches:random4", "zero", 24, seed=1),
    ]
    intact = [planned.edit for planned in expansion.edits if not planned.groups]
    assert intact == [Edit("cls", "none", start) for start in (2, 6, 12, 18, 22, 24)]
    (reason,) = expansion.skipped
    assert reason.startswith("sweep: target 'registers' needs registers")


def test_a_sweep_that_ends_one_state_early_reaches_the_state_before_the_last() -> None:
    edits = expand((EditGroup("g", ("cls",), ("zero",), "sweep", until_layers=(-2,)),), WITH, 12).edits
    assert edits[-1].edit == Edit("cls", "zero", 11, until_layer=11)
    assert list(edits[-1].edit.edited_layers(12)) == [11]


@pytest.mark.parametrize(
    ("from_layers", "until", "kept"), [("sweep", -2, [1]), ((1, 2), -2, [1]), ("sweep", -3, []), ("sweep", 9, [])]
)
def test_a_shallow_model_leaves_out_what_it_has_no_room_for(
    from_layers: tuple[int, ...] | str, until: int, kept: list[int]
) -> None:
    expansion = expand((EditGroup("early", ("cls",), ("zero",), from_layers, until_layers=(until,)),), WITH, 2)
    assert [planned.edit.from_layer for planned in expansion.edits if planned.groups] == kept
    assert len(expansion.skipped) == 2 - len(kept)
    assert all(reason.startswith("early: cls zero: ") for reason in expansion.skipped)


def test_a_named_state_beyond_a_shallow_model_is_an_error_even_where_the_end_is_counted_back() -> None:
    with pytest.raises(InvalidEditError, match="early: cls zero: "):
        expand((EditGroup("early", ("cls",), ("zero",), (9,), until_layers=(-2,)),), WITH, 6)


def test_the_built_in_study_has_the_controls_that_reviewers_ask_for() -> None:
    expansion = expand(load_study("zero-ablation").edits, WITH, 12)
    edits = {planned.edit for planned in expansion.edits}
    assert expansion.skipped == ()
    wanted = {
        *(Edit("registers", name, 1, seed=seed) for name in ("noise", "shuffle") for seed in range(3)),
        *(Edit("cls", name, 1, until_layer=until) for name in ("zero", "mean") for until in (None, 11)),
        *(Edit("registers", name, 1) for name in ("zero", "mean", "remove", "knockout", "norm-matched")),
        *(Edit("patches:random4", "zero", 1, seed=seed) for seed in range(3)),
        *(Edit(f"registers:{index}", "zero", 1) for index in range(4)),
        *(Edit("registers", name, start) for name in ("zero", "mean", "shuffle") for start in (3, 6, 9, 11)),
        *(Edit("cls", "none", start) for start in (1, 3, 6, 9, 11)),
        *(
            Edit("cls", f"interpolate:{name}:{dose}", 1, until_layer=11)
            for name in ("zero", "mean")
            for dose in (0.25, 0.5, 0.75)
        ),
    }
    assert wanted <= edits
    refit = {planned.edit for planned in expansion.edits if planned.refit}
    assert refit == {
        *(Edit("registers", name, 1) for name in ("zero", "mean")),
        *(Edit("registers", name, 1, seed=seed) for name in ("noise", "shuffle") for seed in range(3)),
        Edit("cls", "zero", 1, until_layer=11),
    }
