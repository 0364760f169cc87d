from __future__ import annotations

import pytest

from cachetool.edits.grammar import format_number, listed, parse_number, unknown_name


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("-2.5", -2.5), ("1e-7", 1e-7), (".5", 0.5)])
def test_numbers_survive_their_own_text(text, number):
    assert parse_number(text) == number
    assert parse_number(format_number(number)) == number


def test_numbers_are_written_as_short_as_can_be():
    assert [format_number(number) for number in (5, 0.5, 1e-7, -2.0)] == ["5", "0.5", "1e-07", "-2"]


@pytest.mark.parametrize("text", ["", "five", " 5", "5\n", "5_0"])
def test_what_is_no_number(text):
    assert parse_number(text) is None


def test_twenty_offenders_are_spelled_out_and_more_are_counted():
    twenty = ", ".join(map(str, range(20)))
    assert listed(range(20)) == twenty
    assert listed(range(23)) == f"{twenty} and 3 more"


def test_unknown_names_come_with_the_closest_and_with_all():
    known = ("registers", "registers:INDICES", "cls")
    assert str(unknown_name("target", "register", known)) == (
        "there is no target 'register'; did you mean 'registers' or 'registers:INDICES'? choose among: "
        "registers, registers:INDICES, cls"
    )
    assert str(unknown_name("target", "x", ("cls", "patches"))) == (
        "there is no target 'x'; choose among: cls, patches"
    )
