"""Study files from anybody: a study, or a message that names the file and every offender."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from analyses.study.definition import Study
from analyses.study.loading import builtin_studies, load_study, parse_study
from cachetool.errors import CachetoolError, UnknownNameError
from tests.hostile.conftest import LONG, QUICK
from tests.hostile.mutation import mutated

SOUND: dict[str, Any] = tomllib.loads(builtin_studies()["zero-ablation"].read_text())


def check(document: Any) -> None:
    try:
        study = parse_study(document, "file.toml")
    except CachetoolError as error:
        assert "file.toml" in str(error)
        return
    assert isinstance(study, Study)


@QUICK
@given(document=mutated(SOUND))
def test_a_changed_study_is_refused_or_one(document: Any) -> None:
    check(document)


@pytest.mark.slow
@LONG
@given(document=mutated(SOUND))
def test_hundreds_of_changed_studies_are_refused_or_ones(document: Any) -> None:
    check(document)


@pytest.mark.parametrize(
    "text",
    ["name = " + "[" * 50_000, "a." * 3000 + "b = 1", "name = 1" + "0" * 6000, "name", "x = 1\nx = 2", "\0"],
    ids=["deep", "deep key", "long", "cut", "twice", "NUL"],
)
def test_what_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.toml"
    file.write_text(text)
    with pytest.raises(UnknownNameError, match=r"file\.toml"):
        load_study(str(file))


@pytest.mark.parametrize(
    "name",
    ["zero-abla =on", "nowhere.toml", "x" * 5000 + ".toml", "\\u0000.toml", "/", ""],
    ids=["unknown", "no file", "long", "NUL", "folder", "empty"],
)
def test_the_file_that_extends_what_is_no_study_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file.toml"
    file.write_text(f'extends = "{name}"')
    with pytest.raises(UnknownNameError, match=r"file\.toml: extends: "):
        load_study(str(file))


def test_numbers_that_would_fill_the_memory_are_refused() -> None:
    changed = json.loads(json.dumps(SOUND))
    changed["edits"][0]["seeds"] = 10**12
    changed["resamples"] = 10**12
    with pytest.raises(UnknownNameError, match=r"(?s)resamples: expected at most .*seeds: expected at most"):
        parse_study(changed, "file.toml")
