"""What an edit should put in, computed with NumPy from intact states that hooks captured on all images.

Written from the definitions in the documentation, not from the code; only the counter-based draws come from
`cachetool.randomness`, since they are what they are by definition. Each draw is made for one token of one image alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cachetool.randomness import normals, order_values, uniforms
from tests.reference.hooked_forward import Change, Tokens

Array = NDArray[Any]


@dataclass(frozen=True)
class Intact:
    """Intact states of all images, as hooks captured them."""

    states: NDArray[np.float32]
    """(layer, image, token, channel)."""
    tokens: Tokens
    image_ids: Sequence[str]
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def depth(self) -> int:
        return len(self.states) - 1


def chosen_tokens(intact: Intact, target: str, from_layer: int, seed: int) -> NDArray[np.bool_]:
    """Which tokens a target means, (image, token), chosen on the intact state `from_layer`."""
    kind, _, which = target.partition(":")
    place = intact.tokens.slices[kind]
    chosen = np.zeros((len(intact.image_ids), intact.tokens.count), dtype=bool)
    if not which:
        chosen[:, place] = True
    elif which.startswith("random"):
        for image, image_id in enumerate(intact.image_ids):
            drawn = uniforms(seed, [image_id], None, intact.tokens.patches, "random-patches")[0]
            chosen[image, place.start + np.argsort(drawn)[: int(which.removeprefix("random"))]] = True
    elif which.startswith("outliers"):
        factor = float(which.partition(":")[2] or 5)
        norms = np.linalg.norm(intact.states[from_layer][:, place].astype(np.float64), axis=-1)
        chosen[:, place] = norms > factor * np.median(norms, axis=1, keepdims=True)
    else:
        for part in which.split(","):
            first, _, last = part.partition("-")
            chosen[:, place.start + int(first) : place.start + int(last or first) + 1] = True
    return chosen


def edited_states(from_layer: int, until: int | None, sustained: bool, depth: int) -> list[int]:
    """The states that an edit changes."""
    last = from_layer if not sustained else depth if until is None else until
    return list(range(from_layer, last + 1))


def put_in(
    intact: Intact,
    target: str,
    replacement: str,
    layer: int,
    seed: int,
    chosen: NDArray[np.bool_],
    donors: Array | None = None,
    directions: Mapping[str, Array] | None = None,
    others: Mapping[str, Intact] | None = None,
    *,
    fresh: bool = False,
) -> Array:
    """What stands at (or is added to) each token of each image, (image, token, channel), at one state.

    Random numbers are drawn for the chosen tokens (image, token) alone; NaN stands at what is not known.
    `donors` (image,) serves the shuffles, `directions` the files of `add`, `others` the other caches of `patch`.
    """
    kind = target.partition(":")[0]
    place = intact.tokens.slices[kind]
    state = intact.states[layer].astype(np.float64)
    result = np.full(state.shape, np.nan)
    part = result[:, place]
    natural = state[:, place]
    name, _, argument = replacement.partition(":")
    match name:
        case "zero":
            part[:] = 0
        case "mean":
            part[:] = _over_tokens(natural, kind).mean(axis=0)
        case "noise":
            rows = _over_tokens(natural, kind)
            for image, token, drawn in _draws(intact, seed, layer, chosen[:, place], f"noise/{kind}"):
                which = 0 if kind == "patches" else token
                part[image, token] = drawn * rows.std(axis=0)[which] + rows.mean(axis=0)[which]
        case "norm-matched":
            of_layer = layer if fresh else None
            for image, token, drawn in _draws(intact, seed, of_layer, chosen[:, place], f"norm-matched/{kind}"):
                part[image, token] = drawn * (np.linalg.norm(natural[image, token]) / np.linalg.norm(drawn))
        case "class-mean":
            for image, label in enumerate(intact.labels):
                part[image] = _over_tokens(natural[intact.labels == label], kind).mean(axis=0)
        case "shuffle" | "same-class-shuffle" | "other-class-shuffle":
            assert donors is not None
            part[:] = natural[donors]
        case "interpolate":
            other, _, dose = argument.rpartition(":")
            put = put_in(intact, target, other, layer, seed, chosen, donors, directions, others, fresh=fresh)[:, place]
            part[:] = (1 - float(dose)) * natural + float(dose) * put
        case "patch":
            image_id, _, path = argument.rpartition("@") if "@" in argument else (argument, "", "")
            source = intact if not path else (others or {})[path]
            rows_of = {name: row for row, name in enumerate(source.image_ids)}
            wanted = [rows_of[own if image_id == "same" else image_id] for own in intact.image_ids]
            part[:] = source.states[layer][wanted][:, place]
        case "add":
            path, _, scale = argument.partition(":")
            direction = (directions or {})[path]
            part[:] = float(scale or 1) * (direction if direction.ndim == 1 else direction[layer])
        case _:
            raise AssertionError(f"the reference does not know {replacement}")
    return result


def changes_of(
    intact: Intact, edit: Mapping[str, Any], donors: Array | None = None, **sources: Any
) -> dict[int, Change]:
    """All changes of an edit that puts in or adds values; `donors` (image,) or (image, edited state)."""
    chosen = chosen_tokens(intact, edit["target"], edit["from_layer"], edit["seed"])
    states = edited_states(edit["from_layer"], edit["until_layer"], edit["sustained"], intact.depth)
    changes = {}
    for column, layer in enumerate(states):
        own = donors if donors is None or donors.ndim == 1 else donors[:, column]
        put = (edit["target"], edit["replacement"], layer, edit["seed"])
        values = put_in(intact, *put, chosen, own, fresh=edit["fresh_per_layer"], **sources)
        changes[layer] = Change(chosen, values, added=edit["replacement"].startswith("add:"))
    return changes


def cyclic_donors(image_ids: Sequence[str], seed: int, layer: int | None, groups: Array | None = None) -> Array:
    """Donor of each image: the next one when images (of one group) are ordered by their random word."""
    words = np.array([order_values(seed, [image_id], layer, "donor")[0] for image_id in image_ids])
    donors = np.empty(len(image_ids), dtype=np.int64)
    for group in np.unique(groups) if groups is not None else [None]:
        members = np.arange(len(image_ids)) if groups is None else np.flatnonzero(groups == group)
        circle = members[np.argsort(words[members])]
        donors[circle] = np.concatenate([circle[1:], circle[:1]])
    return donors


def _over_tokens(natural: Array, kind: str) -> Array:
    """Samples (sample, slot, channel): patches of all positions are one kind, registers one kind each."""
    return natural.reshape(-1, 1, natural.shape[-1]) if kind == "patches" else natural


def _draws(
    intact: Intact, seed: int, layer: int | None, chosen: Array, purpose: str
) -> Iterator[tuple[int, int, Array]]:
    """Image, token and standard normal numbers (channel,) for each chosen token (image, token), drawn one by one."""
    for image, token in np.argwhere(chosen).tolist():
        yield image, token, _drawn(seed, intact.image_ids[image], layer, token, intact.states.shape[-1], purpose)


@cache
def _drawn(seed: int, image_id: str, layer: int | None, token: int, channels: int, purpose: str) -> Array:
    """Kept, since many edits ask for the same numbers."""
    return normals(seed, [image_id], layer, np.array([token]), channels, purpose)[0]
