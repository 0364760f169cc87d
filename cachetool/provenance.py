"""What a store says of its own making, checked by name and type where it is relied on: the store may be anybody's.

The store itself keeps key and facts as JSON of any shape. What is there under a known name has to be of the known type,
and what a caller cannot do without has to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cachetool.errors import DamagedError
from cachetool.objects import Place

MODEL = ("facts.model", "key.architecture", "key.weights_sha256", "key.position_embedding", "key.transform.size")
"""Entries of a cache that its model is found by."""

IMAGES = ("facts.dataset", *(f"key.transform.{name}" for name in ("size", "crop", "interpolation", "mean", "std")))
IMAGES += ("key.transform.decoding_rules", "key.transform.exif")
"""Entries of a cache that its images are found by."""

TRANSFORM = {"size", "crop", "crop_fraction", "interpolation", "mean", "std", "decoding_rules", "exif"}
"""Parts of a transform."""

RUN = ("key.cache", "key.edit.target", "key.edit.replacement", "key.edit.from_layer", "facts.depth", "facts.oracle")
"""Entries of a run that it is found and compared by."""

FINISHED = ("facts.certificate.bound", "facts.certificate.kernel", "facts.certificate.relative_error")
"""Entries that a finished run has besides."""

_NOTHING = object()


def check_provenance(path: Place, key: Mapping[str, Any], facts: Mapping[str, Any], *required: str) -> None:
    """Raise `DamagedError` naming every known entry of another type, and every one of `required` that is missing."""
    document = {"key": key, "facts": facts}
    problems = []
    for name, (fits, expected) in _ENTRIES.items():
        value = _find(document, name)
        if value is _NOTHING and name in required:
            problems.append(f"{name} is missing, expected {expected}")
        elif value is not _NOTHING and not fits(value):
            text = repr(value)
            problems.append(f"{name} must be {expected}, found {text if len(text) <= 80 else f'{text[:77]}...'}")
    edit = key.get("edit")
    strange = sorted(set(edit) - _EDIT) if isinstance(edit, Mapping) else []
    if strange:
        problems.append(f"key.edit has unknown parts: {', '.join(strange)}")
    if problems:
        raise DamagedError(
            f"{path / 'zarr.json'} is damaged, or was made by something else than cachetool: {'; '.join(problems)}."
        )


def _find(document: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(document, Mapping) or part not in document:
            return _NOTHING
        document = document[part]
    return document


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_TEXT, _INTEGER, _NUMBER, _FLAG = (
    (_is_text, "text"),
    (_is_integer, "an integer from 0"),
    (_is_number, "a number"),
    (_is_flag, "true or false"),
)
_OBJECT = (_is_object, "an object")
_SCALES = (lambda value: _list_of(_is_number)(value) and len(value) == 3, "a list of 3 numbers")
_EDIT = {"target", "replacement", "from_layer", "sustained", "until_layer", "seed", "fresh_per_layer"}

_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "key.architecture": _TEXT,
    "key.weights_sha256": _TEXT,
    "key.position_embedding": _TEXT,
    "key.dtype": _TEXT,
    "key.dataset": _TEXT,
    "key.transform": _OBJECT,
    "key.transform.size": (lambda value: _is_integer(value) and 0 < value <= 4096, "an integer from 1 to 4096"),
    "key.transform.crop": _TEXT,
    "key.transform.crop_fraction": _NUMBER,
    "key.transform.interpolation": _TEXT,
    "key.transform.mean": _SCALES,
    "key.transform.std": _SCALES,
    "key.transform.decoding_rules": _INTEGER,
    "key.transform.exif": _TEXT,
    "key.cache": _TEXT,
    "key.edit": _OBJECT,
    "key.edit.target": _TEXT,
    "key.edit.replacement": _TEXT,
    "key.edit.from_layer": _INTEGER,
    "key.edit.sustained": _FLAG,
    "key.edit.until_layer": (_or_none(_is_integer), "an integer from 0, or null"),
    "key.edit.seed": (lambda value: isinstance(value, int) and not isinstance(value, bool), "an integer"),
    "key.edit.fresh_per_layer": _FLAG,
    "key.keep": (_list_of(_is_integer), "a list of states"),
    "key.keep_tokens": (_list_of(_is_text), "a list of token types"),
    "facts.model": _TEXT,
    "facts.dataset": _TEXT,
    "facts.weights_file": (_or_none(_is_text), "text or null"),
    "facts.depth": _INTEGER,
    "facts.oracle": _FLAG,
    "facts.environment": _OBJECT,
    "facts.storage_error": (
        _or_none(lambda value: _is_object(value) and all(map(_is_number, value.values()))),
        "numbers by state",
    ),
    "facts.promised": _OBJECT,
    "facts.promised.layers": (_list_of(_is_integer), "a list of states"),
    "facts.promised.token_types": (_list_of(_is_text), "a list of token types"),
    "facts.certificate": _OBJECT,
    "facts.certificate.bound": _NUMBER,
    "facts.certificate.kernel": _TEXT,
    "facts.certificate.relative_error": _NUMBER,
    "facts.certificate.bit_equal": _FLAG,
    "facts.calibration": (_or_none(_is_object), "an object or null"),
}
"""Known entries, whether a value fits, and what is expected in words."""
