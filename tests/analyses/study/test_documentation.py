from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from analyses.evaluation.rows import Row
from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.loading import builtin_studies
from analyses.study.table import OWN_COLUMNS
from analyses.tasks import TASKS

TEXT = (Path(__file__).parents[3] / "docs" / "study.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """A section, with what stands between backticks and outside as it is."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def first_cells(text: str) -> set[str]:
    """Names between backticks in the first cells of tables."""
    cells = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return {name.strip("[]") for cell in cells for name in re.findall(r"`([^`]*)`", cell)}


def test_every_column_has_its_line() -> None:
    columns = {*(field.name for field in fields(Row)), *OWN_COLUMNS} - {"published_source"}
    assert first_cells(section("The table")) == columns
    assert "`published_source`" in section("The table")


def test_every_key_has_its_line() -> None:
    keys = {field.name for cls in (Study, CalibrationData, StudyModel, StudyData, EditGroup) for field in fields(cls)}
    assert first_cells(section("Copy and change a study")) == keys | {"extends"}


@pytest.mark.parametrize("name", [*TASKS, *builtin_studies()])
def test_tasks_and_studies_are_named(name: str) -> None:
    assert f"`{name}`" in TEXT
