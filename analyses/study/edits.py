"""From the edit groups of a study to the edits of one model: targets and states spelled out, repetitions dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from analyses.study.definition import CUMULATIVE, EACH, EditGroup
from cachetool import Edit
from cachetool.errors import CachetoolError, InvalidEditError
from cachetool.tokens import TokenLayout

SWEEP_FRACTIONS = (1 / 12, 1 / 4, 1 / 2, 3 / 4, 11 / 12)
"""Shares of the depth at which a sweep starts its edits: states 1, 3, 6, 9 and 11 of a model with 12 blocks."""


@dataclass(frozen=True)
class PlannedEdit:
    """An edit, and what the study says about it."""

    edit: Edit
    """The edit, with its seed."""
    groups: tuple[str, ...]
    """Names of the edit groups that it belongs to; empty for the intact arms."""
    refit: bool = False
    """Whether heads are fitted on edited features too."""


@dataclass(frozen=True)
class Expansion:
    """The edits of one model."""

    edits: tuple[PlannedEdit, ...]
    """The unedited arm of every first state, then the edits in the order of the study."""
    skipped: tuple[str, ...]
    """What the model cannot do, each with its reason."""


def expand(groups: tuple[EditGroup, ...], layout: TokenLayout, depth: int, first_seed: int = 0) -> Expansion:
    """Edits of a model with this token layout and depth; edits that occur in several groups are there once.

    Targets that the model lacks are left out and listed, and so are edits that end before they begin, or that nothing
    follows, where the study does not name their states: a sweep, and ends counted from the last state, mean other
    states in each model, and a shallow one has no room for all of them.

    Raises
    ------
    InvalidEditError
        Named states that the model lacks, or an edit that ends before it begins; names the group and all such edits.
    """
    planned: dict[Edit, PlannedEdit] = {}
    skipped: list[str] = []
    problems: list[str] = []
    for group in groups:
        for target in group.targets:
            reason = _lacking(target, layout)
            if reason is not None:
                skipped.append(f"{group.name}: {reason}")
                continue
            spelled = _spell_out(target, layout)
            for edit in _edits_of(group, spelled, depth, first_seed, skipped=skipped, problems=problems):
                known = planned.get(edit, PlannedEdit(edit, ()))
                names = known.groups if group.name in known.groups else (*known.groups, group.name)
                planned[edit] = PlannedEdit(edit, names, known.refit or group.refit)
    if problems:
        listing = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
        raise InvalidEditError(f"these edits do not fit a model with states 0 to {depth}:\n{listing}\nchange the study")
    starts = sorted({edit.from_layer for edit in planned})
    intact = [PlannedEdit(Edit(layout.types[0], "none", start), ()) for start in starts]
    return Expansion((*intact, *planned.values()), tuple(skipped))


def resolve_states(states: tuple[int, ...] | str, depth: int) -> tuple[int, ...]:
    """State numbers; negative ones count from the last state, which is -1. Out of range they stay as they are.

    A text stands for `SWEEP`: `analyses.study.checks` lets no other pass.
    """
    if isinstance(states, str):
        return tuple(dict.fromkeys(max(1, round(depth * fraction)) for fraction in SWEEP_FRACTIONS))
    return tuple(_state(number, depth) for number in states)


def _state(number: int, depth: int) -> int:
    return number + depth + 1 if number < 0 else number


def _lacking(target: str, layout: TokenLayout) -> str | None:
    """Why a model of this layout has no such target; None where it has."""
    try:
        Edit("registers" if target in (EACH, CUMULATIVE) else target, "none", 0).parsed_target().check(layout)
    except InvalidEditError as error:
        return str(error)
    return None


def _spell_out(target: str, layout: TokenLayout) -> tuple[str, ...]:
    """The targets that one entry stands for."""
    count = layout.registers
    match target:
        case "registers:each":
            return tuple(f"registers:{index}" for index in range(count))
        case "registers:cumulative":
            # All of them together are the target `registers`, so that the edit is not run under two names.
            return (*(f"registers:0-{last}" for last in range(1, count - 1)), "registers")
        case _:
            return (target,)


def _edits_of(
    group: EditGroup,
    targets: tuple[str, ...],
    depth: int,
    first_seed: int,
    *,
    skipped: list[str],
    problems: list[str],
) -> list[Edit]:
    edits: list[Edit] = []
    swept = isinstance(group.from_layers, str)
    starts, untils = resolve_states(group.from_layers, depth), group.until_layers or (None,)
    for target, replacement, start, until in product(targets, group.replacements, starts, untils):
        last = None if until is None else _state(until, depth)
        try:
            edit = Edit(
                target,
                replacement,
                from_layer=start,
                sustained=not group.once,
                until_layer=None if last == depth else last,
                seed=first_seed,
                fresh_per_layer=group.fresh_per_layer,
            )
            edit.edited_layers(depth)
            edit.masked_blocks(depth)
        except CachetoolError as error:
            counted_back = until is not None and until < 0 and start <= depth
            (skipped if swept or counted_back else problems).append(f"{group.name}: {target} {replacement}: {error}")
            continue
        repeats = group.seeds if edit.random else 1
        edits += [replace(edit, seed=first_seed + offset) for offset in range(repeats)]
    return edits
