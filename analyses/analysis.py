"""What an analysis is: a function from opened stores to a data set, found by name through entry points.

Its first parameter is the store that is analysed: `run` where a second one, `intact`, is compared with it, else any
other name. A parameter `train` receives a training cache. All further parameters are options with defaults.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import xarray as xr

from cachetool.errors import InvalidEditError, UnknownNameError

GROUP = "cachetool.analyses"
"""Group of entry points that announce analyses, those of other packages too."""


@dataclass(frozen=True)
class Analysis:
    """A function that measures something on a store, and what it takes."""

    name: str
    """Name on the command line."""
    function: Callable[..., xr.Dataset]
    """The function itself."""

    @property
    def description(self) -> str:
        """First line of the function's documentation."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def compares(self) -> bool:
        """Whether a run is compared with its intact arm."""
        return "intact" in self._parameters

    @property
    def needs_train(self) -> bool:
        """Whether heads are fitted on a training cache."""
        return "train" in self._parameters

    @property
    def options(self) -> dict[str, Any]:
        """Further parameters and their defaults."""
        positional = {next(iter(self._parameters)), "intact", "train"}
        return {name: one.default for name, one in self._parameters.items() if name not in positional}

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def parse_options(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Options from text: numbers, true and false, lists such as `[3, 9]`; anything else is a word.

        Raises
        ------
        UnknownNameError
            The analysis has no such option; names all of them.
        InvalidEditError
            A value is of another type than the default.
        """
        unknown = sorted(given.keys() - self.options.keys())
        if unknown:
            known = ", ".join(f"{name}={default}" for name, default in self.options.items()) or "none"
            raise UnknownNameError(f"{self.name} has no option {', '.join(unknown)}; its options are: {known}")
        parsed = {name: _parse(text) for name, text in given.items()}
        wrong = [
            f"{name}={given[name]} (as {self.options[name]!r})"
            for name, value in parsed.items()
            if not _fits(value, self.options[name])
        ]
        if wrong:
            raise InvalidEditError(f"{self.name}: expected values of the defaults' types, found {', '.join(wrong)}")
        return parsed


def analyses() -> dict[str, Analysis]:
    """All announced analyses by name, in alphabetical order; none is imported before it is asked for its function."""
    return {point.name: Analysis(point.name, point.load()) for point in sorted(entry_points(group=GROUP))}


def find_analysis(name: str) -> Analysis:
    """The analysis of this name. Raises `UnknownNameError`, naming all, where there is none."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise UnknownNameError(f"unknown analysis {name!r}; there are {', '.join(sorted(points))}")
    return Analysis(name, points[name].load())


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list)
    return isinstance(value, type(default))
