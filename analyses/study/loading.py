"""Studies by name or file: where the built-in ones lie, how one extends another, and the way to a checked `Study`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from analyses.study.checks import contradictions
from analyses.study.definition import Study
from analyses.study.parsing import parse_table
from cachetool.errors import MissingDataError, UnknownNameError

EXAMPLE = "zero-ablation"
"""The study to copy from."""


def builtin_studies() -> dict[str, Path]:
    """Studies that come with the package: name to TOML file."""
    folder = Path(str(resources.files("analyses.study")))
    return {path.stem: path for path in sorted(folder.glob("zero-ablation*.toml"), key=lambda path: path.stem)}


def study_file(name: str) -> Path:
    """File of a study: a path to a TOML file, or the name of a built-in one.

    Raises `UnknownNameError` for a name that is neither, `MissingDataError` for a path to no file.
    """
    known = builtin_studies()
    if name in known:
        return known[name]
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise MissingDataError(
                f"there is no file {name}; make one with `cachetool study {EXAMPLE} --print > {name}`"
            )
        return Path(name)
    raise UnknownNameError(
        f"there is no study {name!r}; built in are {', '.join(known)}, or name a file ending in .toml"
    )


def load_study(name: str) -> Study:
    """Read a study by name or from a file. Raises what `study_file`, `read_document` and `parse_study` raise."""
    path = study_file(name)
    return parse_study(read_document(path), str(path))


def read_document(path: Path, _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a TOML file, with the keys of the study that it `extends` filled in; a list replaces the other's as a whole.

    Raises `UnknownNameError` for text that is no TOML, and for studies that extend each other or none.
    """
    path = path.resolve()
    if path in _above:
        raise UnknownNameError(
            f"these studies extend each other: {', '.join(map(str, (*_above, path)))}; break the circle"
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingDataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UnknownNameError(f"{path} is no TOML: {error}") from error
    base = document.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str):
        raise UnknownNameError(f"{path}: extends: expected the name or file of a study, found {base!r}")
    beside = path.parent / base
    try:
        file = beside if base.endswith(".toml") and beside.is_file() else study_file(base)
    except (OSError, UnknownNameError) as error:  # there is none, or none can have such a name
        raise UnknownNameError(f"{path}: extends: {error}") from error
    return {**read_document(file, (*_above, path)), **document}


def parse_study(document: Mapping[str, Any], source: str) -> Study:
    """Build a study from a TOML document.

    Raises
    ------
    UnknownNameError
        Keys, types, names or numbers are wrong; the text names all of them.
    """
    problems: list[str] = []
    study: Study | None = parse_table(Study, document, "", problems)
    if study is not None:
        problems += contradictions(study)
    if study is None or problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise UnknownNameError(
            f"{source} is no study:\n{listing}\nsee `cachetool study {EXAMPLE} --print` for one that is"
        )
    return study
