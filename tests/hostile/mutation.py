"""JSON documents with something wrong in them: one or a few parts replaced, removed or added at any depth."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

from hypothesis import strategies as st

HOSTILE = (
    None, True, False, 0, 1, -1, 2, 2**31, 2**63, 2**64 - 1, 10**12, 10**30, 0.5, 1e308, float("nan"), float("inf"), "",
    "x", "../../outside", "/etc/passwd", "a\0b", "NaN", "\ud800", "\u202e\x1b[2J", "x" * 5000, [], {}, [[]], [1],
    [10**12], [-1], [1] * 40, ["x"], {"x": 1}, {"../x": {"bytes": 1, "crc32c": 1}},
)  # fmt: skip
"""Values that nothing expects."""


NAMES = ("", "../x", "/x", "a\0b", ".cachetool", "x" * 300, "cls")


def places(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of a document."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    found = [above] if above else []
    return found + [place for key in keys for place in places(document[key], (*above, key))]


class Choose(Protocol):
    """Takes one of several options: from hypothesis, or from a generator of random numbers."""

    def __call__(self, options: Sequence[Any], /) -> Any: ...


def change(document: Any, choose: Choose) -> Any:
    """The document with one to three parts replaced by hostile values, removed, renamed or swapped."""
    changed = copy.deepcopy(document)
    for _ in range(choose((1, 2, 3))):
        known = places(changed)
        if not known:
            break
        *way, last = choose(known)
        parent = changed
        for key in way:
            parent = parent[key]
        match choose(("replace", "replace", "remove", "rename", "swap", "nudge")):
            case "remove":
                del parent[last]
            case "rename" if isinstance(parent, dict):
                parent[choose(NAMES)] = parent.pop(last)
            case "swap":
                other: Any = changed
                for key in choose(known):
                    if not isinstance(other, dict | list) or (isinstance(other, dict) and key not in other):
                        break
                    if isinstance(other, list) and not (isinstance(key, int) and key < len(other)):
                        break
                    other = other[key]
                parent[last] = copy.deepcopy(other) if other is not changed else None
            case "nudge" if isinstance(parent[last], int):
                parent[last] += choose((-1, 1, 7, 10**6))
            case _:
                parent[last] = copy.deepcopy(choose(HOSTILE))
    return changed


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """What `change` makes of the document, by the choices of hypothesis."""
    return change(document, lambda options: draw(st.sampled_from(options)))
