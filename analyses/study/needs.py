"""Which states and token types the caches of a study have to hold, so that its edits and tasks find what they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from cachetool import Edit
from cachetool.tokens import TOKEN_TYPES, TokenLayout

States = Mapping[str, tuple[int, ...]]
"""States to store, ascending, by token type."""


def replay_states(edits: Iterable[Edit], layout: TokenLayout, depth: int) -> States:
    """States that replays read: the whole first state, what is drawn from the cache, and the last, to certify."""
    states: dict[str, set[int]] = {name: {depth} for name in layout.types}
    for edit in edits:
        for name in states:
            states[name].add(edit.from_layer)
        for name, layers in edit.needed_states(depth).items():
            states[name].update(layers)
    # [CLS] and registers are few: stored at the same states they are written in one pass.
    small = set().union(*(layers for name, layers in states.items() if name != "patches"))
    return {name: tuple(sorted(layers if name == "patches" else small)) for name, layers in states.items()}


def training_states(refit: Iterable[Edit], tokens: Iterable[str], layout: TokenLayout, depth: int) -> States:
    """States of a training cache: the last one that heads read, and what the edits replay whose heads are refitted."""
    edits = tuple(refit)
    if edits:
        return replay_states(edits, layout, depth)
    return {name: (depth,) for name in layout.types if name in set(tokens)}


def calibration_states(edits: Iterable[Edit], depth: int) -> States:
    """States of a calibration: those that values are drawn from, and the first ones, where distances are measured.

    One artefact has the same states for all its token types, so each is stored at the states of all.
    """
    types: set[str] = set()
    layers: set[int] = set()
    for edit in edits:
        replacement = edit.build()
        if replacement.kind not in ("values", "add"):
            continue
        types.add(edit.parsed_target().token_type)
        layers.add(edit.from_layer)
        if "calibration" in replacement.needs:
            layers.update(edit.edited_layers(depth))
    return {name: tuple(sorted(layers)) for name in TOKEN_TYPES if name in types}


def passes(states: States) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Token types that are stored at the same states together, so that each pass over the images stores no more."""
    ordered = sorted(states.items(), key=lambda item: (item[1], TOKEN_TYPES.index(item[0])))
    return [(tuple(name for name, _ in group), layers) for layers, group in groupby(ordered, key=lambda item: item[1])]
