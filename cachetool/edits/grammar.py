"""Small parts that the grammars of targets and replacements share: numbers, lists in messages, unknown names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from cachetool.errors import UnknownNameError

SHOWN = 20
"""How many offenders a message spells out before it counts the rest."""


def parse_number(text: str) -> float | None:
    """The number that `text` spells, or None; surrounding blanks and digit separators are not accepted."""
    if text != text.strip() or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def format_number(value: float) -> str:
    """The shortest text that parses back to exactly this number: 5, 0.5, 1e-07."""
    return repr(float(value)).removesuffix(".0")


def listed(offenders: Iterable[object]) -> str:
    """Offenders in words, for messages: all of them, or the first 20 and how many more."""
    names = [str(offender) for offender in offenders]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def unknown_name(what: str, text: str, known: Sequence[str]) -> UnknownNameError:
    """The error for an unknown name: the closest known ones, then all of them."""
    close = get_close_matches(text, known)
    hint = f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else ";"
    return UnknownNameError(f"there is no {what} {text!r}{hint} choose among: {', '.join(known)}")
