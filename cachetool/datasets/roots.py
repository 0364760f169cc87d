"""Where the named data sets lie: `CACHETOOL_DATA`, or a TOML file that gives a folder for each name."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from cachetool.datasets.base import listed
from cachetool.errors import DatasetError, MissingDataError
from cachetool.files import expanded

if TYPE_CHECKING:
    from collections.abc import Collection

VARIABLE = "CACHETOOL_DATA"
"""Environment variable: a folder that holds one folder (or link) for each named set, or a TOML file."""


def config_file() -> Path:
    """Return the TOML file that is read besides `CACHETOOL_DATA`, in the user's configuration."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return expanded(home) / "cachetool" / "data.toml"


def absolute_path(place: str | Path) -> Path:
    """Return a path that means the same from any current folder; links are not followed."""
    return Path(os.path.abspath(expanded(place)))  # noqa: PTH100 (`resolve` would follow links)


def find_root(name: str, known: Collection[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Return the folder of a named set, or None, and all places that were looked at, first to last.

    `known` holds all names that a TOML file may give. Raises `DatasetError` for a TOML file that cannot be used.
    """
    looked: list[str] = []
    for place, origin in _candidates(name, known):
        if place is not None and place.is_dir():
            return place, (*looked, str(place))
        looked.append(origin)
    return None, tuple(looked)


def require_root(name: str, known: Collection[str], layout: str) -> Path:
    """Return the folder of a named set, or raise `MissingDataError`: what it should hold, where it was sought."""
    root, looked = find_root(name, known)
    if root is None:
        raise MissingDataError(
            f"{name} is not on this machine; its folder holds {layout}.\n"
            f"Looked at: {'; '.join(looked)}.\n"
            f'Set {VARIABLE} to a folder that holds `{name}`, or write  {name} = "FOLDER"  into {config_file()}.'
        )
    return root


def _candidates(name: str, known: Collection[str]) -> list[tuple[Path | None, str]]:
    """Return places to look at, in order, each with the words that say so where nothing is there."""
    files = [(config_file(), "")]
    found: list[tuple[Path | None, str]] = []
    if not (value := os.environ.get(VARIABLE, "")):
        found.append((None, f"{VARIABLE} (not set)"))
    elif value.endswith(".toml"):
        files.insert(0, (expanded(value), f" ({VARIABLE})"))
    else:
        place = absolute_path(value) / name
        found.append((place, f"{place} ({VARIABLE})"))
    for file, note in files:
        if not file.is_file():
            found.append((None, f"{file}{note} (no such file)"))
        elif (folder := _read(file, known).get(name)) is None:
            found.append((None, f"{file}{note} (does not name {name})"))
        else:
            found.append((folder, f"{folder} ({file})"))
    return found


def _read(file: Path, known: Collection[str]) -> dict[str, Path]:
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # tomllib's own error and wrong UTF-8 are both ValueErrors
        raise DatasetError(f"{file} cannot be read as TOML: {error}") from error
    problems = [f"{key}: no such data set" for key in entries if key not in known]
    problems += [
        f"{key}: expected a folder in quotes, found {value!r}"
        for key, value in entries.items()
        if key in known and not isinstance(value, str)
    ]
    if problems:
        raise DatasetError(
            f'{file} gives folders of data sets, one a line such as  voc2012 = "FOLDER" , '
            f"and knows {', '.join(sorted(known))}. Correct:{listed(problems)}"
        )
    base = absolute_path(file.parent)
    return {key: base / expanded(value) for key, value in entries.items()}
