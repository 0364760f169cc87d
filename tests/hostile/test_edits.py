"""What is typed as an edit, a list of numbers or a name: a valid object that survives its own text, or a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.cli.console import integers
from cachetool.edits import Edit, parse_replacement
from cachetool.edits.targets import Target
from cachetool.errors import CachetoolError, InvalidEditError, UnknownNameError
from tests.hostile.conftest import LONG, QUICK

WORDS = st.sampled_from(
    ["cls", "registers", "patches", "random", "outliers", "interpolate", "zero", "mean", "patch", "add", "same", "none",
     "knockout", "remove", ":", ":", ":", ",", "-", "@", ".zarr", ".npy", ".safetensors", "0", "1", "0.5", "1e308",
     "-0", "9" * 30, "9" * 5000, "nan", "inf", "_", " ", "\0", "\n", "\u0663", "\ud800", "../", "/", "x"]
)  # fmt: skip
TYPED = st.lists(WORDS | st.text(max_size=3), max_size=9).map("".join)


def is_target(text: str) -> bool:
    """Whether a target is read, which must survive its own text."""
    try:
        parsed = Target.parse(text)
    except CachetoolError:
        return False
    assert Target.parse(str(parsed)) == parsed
    return True


def is_replacement(text: str, layer: int) -> bool:
    """Whether a replacement is read, which must survive its own text, as the edit that it makes must."""
    try:
        built = parse_replacement(text)
    except CachetoolError:
        return False
    assert str(parse_replacement(str(built))) == str(built)
    edit = Edit("cls", text, layer)
    assert Edit(**edit.to_json()) == edit
    assert "/" not in edit.slug
    assert "\0" not in edit.slug
    assert len(edit.slug) < 200
    return True


def check(target: str, replacement: str, layer: int) -> None:
    is_target(target)
    is_replacement(replacement, layer)


@QUICK
@given(target=TYPED, replacement=TYPED, layer=st.integers(0, 40))
def test_what_is_typed_survives_its_own_text(target: str, replacement: str, layer: int) -> None:
    check(target, replacement, layer)


@pytest.mark.slow
@LONG
@given(target=TYPED, replacement=TYPED, layer=st.integers(0, 40))
def test_hundreds_of_texts_survive_themselves(target: str, replacement: str, layer: int) -> None:
    check(target, replacement, layer)


@QUICK
@given(text=TYPED)
def test_numbers_are_read_or_refused(text: str) -> None:
    try:
        found = integers(text, "--layers")
    except UnknownNameError as error:
        assert "--layers" in str(error)
        return
    assert found
    assert integers(",".join(map(str, found)), "--layers") == found


@pytest.mark.parametrize("text", ["0-99999999999", "9" * 5000, "0-5-7", "-1", "1,,2", "", "\u00b2", "3-1"])
def test_numbers_that_would_fill_the_memory_are_refused(text: str) -> None:
    with pytest.raises(UnknownNameError, match="expected numbers such as"):
        integers(text, "--layers")


@pytest.mark.parametrize("text", [f"patches:{'9' * 5000}", f"patches:random{'9' * 5000}", f"patches:0-{'9' * 5000}"])
def test_targets_of_too_many_digits_are_refused(text: str) -> None:
    with pytest.raises(InvalidEditError, match="no model has a token"):
        Target.parse(text)


def test_doses_deep_in_each_other_are_refused() -> None:
    deep = "interpolate:" * 4000 + "zero" + ":0.5" * 4000
    with pytest.raises(InvalidEditError, match="in each other"):
        parse_replacement(deep)
    with pytest.raises(InvalidEditError, match="in each other"):
        parse_replacement("interpolate:" * 9 + "zero" + ":0.5" * 9)
    assert str(parse_replacement("interpolate:" * 8 + "zero" + ":0.5" * 8)).startswith("interpolate:interpolate:")
