"""All replacements by name: the modules of `cachetool.edits.replacements`, and those that other packages announce."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from cachetool.edits import replacements as package
from cachetool.edits.base import Replacement
from cachetool.edits.grammar import unknown_name
from cachetool.plugins import load_announced

ENTRY_POINTS = "cachetool.replacements"
"""The entry-point group in which other packages name their subclasses of `Replacement`."""


@cache
def replacements() -> dict[str, type[Replacement]]:
    """Every replacement class by name, sorted; one file (or entry point) adds one.

    Warns of those of other packages that cannot be loaded, and leaves them out.
    """
    found: dict[str, type[Replacement]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        for member in vars(loaded).values():
            defined_here = isinstance(member, type) and member.__module__ == loaded.__name__
            if defined_here and issubclass(member, Replacement):
                found[member.name] = member
    found |= {one.name: one for one in load_announced(ENTRY_POINTS, "replacement", _check).values()}
    return dict(sorted(found.items()))


def _check(announced: object) -> None:
    if not (isinstance(announced, type) and issubclass(announced, Replacement)):
        raise TypeError("it must be a subclass of cachetool.edits.Replacement")


def parse_replacement(text: str) -> Replacement:
    """Build a replacement from its specification, such as `zero` or `interpolate:mean:0.5`.

    Raises
    ------
    UnknownNameError
        No replacement has this name; the message lists them.
    InvalidEditError
        The arguments do not fit.
    """
    name, separator, argument = text.partition(":")
    known = replacements()
    if name not in known:
        raise unknown_name("replacement", name, tuple(known))
    return known[name].parse(argument if separator else None)
