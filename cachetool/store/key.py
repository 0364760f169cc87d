"""Keys: what the values of a store depend on, digested and compared in words."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

ABSENT = "absent"


def key_digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key (hexadecimal, 64 digits), independent of the order of its parts.

    Raises `ValueError` or `TypeError` where a part is not JSON: NaN included, since it would equal nothing.
    """
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """The parts in which two keys differ, as `image size: 224 here, 448 there`; empty where they are equal."""
    lines: list[str] = []
    _compare((), here, there, lines)
    return lines


def undetermined(key: Mapping[str, Any]) -> list[str]:
    """Names of the parts that say nothing: absent, empty, or not finite. A key with any would be a guess."""
    found: list[str] = []
    for name, value in key.items():
        if isinstance(value, Mapping) and value:
            found += [f"{name}, {part}" for part in undetermined(value)]
        elif value is None or value in ("", (), [], {}) or _infinite(value):
            found.append(name)
    return [name.replace("_", " ") for name in found]


def _infinite(value: Any) -> bool:
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(number, float) and not math.isfinite(number) for number in numbers)


def _compare(path: tuple[str, ...], here: Any, there: Any, lines: list[str]) -> None:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in sorted({*here, *there}):
            _compare((*path, name), here.get(name, ABSENT), there.get(name, ABSENT), lines)
    elif _plain(here) != _plain(there):
        name = ", ".join(part.replace("_", " ") for part in path)
        lines.append(f"{name}: {_show(here)} here, {_show(there)} there")


def _plain(value: Any) -> Any:
    """A value as JSON would return it, so that tuples equal lists."""
    return json.loads(json.dumps(value, sort_keys=True))


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
