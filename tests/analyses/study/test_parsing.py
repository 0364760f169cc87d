from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.parsing import describe, parse_table

# JSON's escapes are TOML's too, except for characters that neither file should hold.
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f"), max_size=8)
COUNT = st.none() | st.integers(1, 10**6)
STATES = st.lists(st.integers(-30, 30), max_size=3).map(tuple)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
CALIBRATION = st.builds(CalibrationData, TEXT, COUNT)
STUDIES = st.builds(
    Study,
    name=TEXT,
    calibration=CALIBRATION,
    models=st.lists(
        st.builds(StudyModel, TEXT, st.none() | TEXT, COUNT, COUNT, st.none() | TEXT), max_size=2
    ).map(tuple),
    data=st.lists(
        st.builds(StudyData, TEXT, TEXTS, st.none() | TEXT, COUNT, COUNT, TEXT, st.none() | CALIBRATION), max_size=2
    ).map(tuple),
    edits=st.lists(
        st.builds(
            EditGroup, TEXT, TEXTS, TEXTS, STATES | TEXT, st.none() | STATES, st.integers(), st.booleans(),
            st.booleans(), st.booleans()
        ),
        max_size=2,
    ).map(tuple),
    description=TEXT,
    resamples=st.integers(0, 10**9),
    confidence=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(-5, 10**9),
)  # fmt: skip


def toml(value: Any) -> str:
    """A value as TOML, tables inline; keys without a value are left out, as TOML has no null."""
    if isinstance(value, dict):
        entries = [f"{name} = {toml(entry)}" for name, entry in value.items() if entry is not None]
        return "{ " + ", ".join(entries) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(entry) for entry in value) + "]"
    return json.dumps(value)


@given(STUDIES)
def test_a_study_written_as_toml_is_read_as_the_same_study(study: Study) -> None:
    document = "\n".join(f"{name} = {toml(value)}" for name, value in asdict(study).items())
    problems: list[str] = []
    assert parse_table(Study, tomllib.loads(document), "", problems) == study
    assert problems == []


@dataclass(frozen=True)
class Inner:
    number: int


@dataclass(frozen=True)
class Outer:
    name: str
    share: float = 0.5
    states: tuple[int, ...] | str = "all"
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    flag: bool = False


def problems_of(document: Any) -> list[str]:
    problems: list[str] = []
    assert parse_table(Outer, document, "", problems) is None
    return problems


def test_whole_numbers_pass_for_numbers() -> None:
    found = parse_table(Outer, {"name": "a", "share": 2}, "", [])
    assert (found.share, type(found.share)) == (2.0, float)


def test_all_problems_are_named_at_their_places() -> None:
    document = {"nam": 1, "share": True, "flag": 1, "states": [1, 2.5], "many": [{"number": 1}, {"numbr": 2}, 3]}
    assert problems_of(document) == [
        "nam: there is no such key; did you mean name?",
        "name: missing; expected text",
        "share: expected a number, found True",
        "states: expected a list of a whole number or text, found [1, 2.5]",
        "many[1].numbr: there is no such key; did you mean number?",
        "many[1].number: missing; expected a whole number",
        "many[2]: expected a table, found 3",
        "flag: expected true or false, found 1",
    ]


def test_a_key_like_no_other_gets_the_list_of_keys() -> None:
    (problem,) = problems_of({"name": "a", "zzz": 1})
    assert problem == "zzz: there is no such key; there are name, share, states, inner, many, flag"


def test_long_values_are_shortened() -> None:
    (problem,) = problems_of({"name": list(range(100))})
    assert problem.endswith("...")
    assert len(problem) < 120


@pytest.mark.parametrize("document", [[], "text", 3, None])
def test_a_document_is_a_table(document: object) -> None:
    (problem,) = problems_of(document)
    assert problem.startswith("the document: expected a table, found ")


def test_types_in_words() -> None:
    assert describe(tuple[str, ...]) == "a list of text"
    assert describe(int | None) == "a whole number"
