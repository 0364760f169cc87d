"""From a parsed TOML document to frozen dataclasses: types and keys are checked as a whole, every offender is named."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_UNSET = object()


def parse_table(cls: type[Any], document: object, where: str, problems: list[str]) -> Any:
    """Build the dataclass `cls` from a TOML table, by its fields' names and types.

    Parameters
    ----------
    cls
        A dataclass whose fields are text, numbers, booleans, tuples of these or of dataclasses, dataclasses, or
        unions of them; None stands for a key that is absent.
    document
        The table.
    where
        What the table is called in messages, such as `edits[2]`; empty for the whole document.
    problems
        Receives one line for each unknown key, missing key and wrong type.

    Returns
    -------
    The object, or None where something is wrong with it.
    """
    if not isinstance(document, Mapping):
        problems.append(f"{where or 'the document'}: expected a table, found {_shown(document)}")
        return None
    types_by_name, known = get_type_hints(cls), {field.name: field for field in fields(cls)}
    prefix = f"{where}." if where else ""
    before = len(problems)
    for name in document:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            problems.append(f"{prefix}{name}: there is no such key; {hint}")
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name in document:
            values[name] = _parse_value(types_by_name[name], document[name], f"{prefix}{name}", problems)
        elif field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{prefix}{name}: missing; expected {describe(types_by_name[name])}")
    return cls(**values) if len(problems) == before else None


def describe(expected: Any) -> str:
    """A type in words, for messages."""
    if expected in _WORDS:
        return _WORDS[expected]
    if is_dataclass(expected):
        return "a table"
    if get_origin(expected) is tuple:
        return f"a list of {describe(get_args(expected)[0])}"
    options = [option for option in get_args(expected) if option is not type(None)]
    return " or ".join(describe(option) for option in options)


def _parse_value(expected: Any, value: object, where: str, problems: list[str]) -> Any:
    if isinstance(expected, type) and is_dataclass(expected):
        return parse_table(expected, value, where, problems)
    if get_origin(expected) is tuple and isinstance(value, list):
        inner = get_args(expected)[0]
        return tuple(_parse_value(inner, item, f"{where}[{index}]", problems) for index, item in enumerate(value))
    found = _plain(expected, value)
    if found is _UNSET and get_origin(expected) in (Union, types.UnionType):
        options = [option for option in get_args(expected) if option is not type(None)]
        for option in options:
            attempt: list[str] = []
            parsed = _parse_value(option, value, where, attempt)
            if not attempt:
                return parsed
    if found is _UNSET:
        problems.append(f"{where}: expected {describe(expected)}, found {_shown(value)}")
        return None
    return found


def _plain(expected: Any, value: object) -> Any:
    """The value where it is of a plain expected type, else `_UNSET`; true and false are no numbers."""
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected in _WORDS and type(value) is expected:
        return value
    return _UNSET


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
