"""What an analysis is: a function from opened stores to a data set, found by name through entry points.

Its first parameter is the store that is analysed. A parameter `intact` receives the unedited arm that a run is compared
with, `train` a training cache, `weights` and `device` what `cachetool.attention` takes. All further parameters are
options with defaults.

Memory is stated for T dask threads (by default the number of cores) and these sizes in bytes:

- B, a block: `4 x images x tokens x channels` of one state, where `store.patches.chunksizes["image"]` says how many
  images a block has. 16 images of 256 patches and 768 channels are 12.6 MB.
- M, a matrix of all channels: `8 x channels x channels`, 4.7 MB for 768; N is the number of blocks.
- P, the pooled moments of tokens: `T x (4 M + 16384 x channels) + log2(N) x M`.
- W, the model's weights: `4 x parameters`.
- A, what attention takes while it is computed: `3 x 8 MB + 8 x` the states of the images whose attention fits into
  8 MB. One image counts where a single one has more.

To these come imports, about 30 MB for buffers of libraries, and the result. `tests/benchmarks/memory_of_analyses.py`
measures every analysis against its bound. On Linux, glibc keeps much of what was freed, unless
`MALLOC_TRIM_THRESHOLD_=1000000` is set in the environment: attention-flow of two blocks of a ViT-tiny on two threads
took 105 MB with it, 308 without.

On a cluster T is 1 for each worker, which beside that holds what following tasks need, see `docs/how-to/cluster.md`.
"""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from cachetool.errors import InvalidEditError, UnknownNameError
from cachetool.plugins import announced, failure, load_announced

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
    def reserved(self) -> set[str]:
        """Parameters that are no options: stores, and where blocks are run."""
        return set(self._parameters) & {next(iter(self._parameters)), "intact", "train", "weights", "device"}

    @property
    def options(self) -> dict[str, Any]:
        """Further parameters and their defaults."""
        return {name: one.default for name, one in self._parameters.items() if name not in self.reserved}

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
            A value is of another type than the default, or no finite number.
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
        self.check_finite(parsed)
        return parsed

    def check_finite(self, options: Mapping[str, Any]) -> None:
        """Raise `InvalidEditError` for NaN, and for infinity unless the default is infinite too; names all of them."""
        wrong = [
            f"{name}={value}"
            for name, value in options.items()
            if not _is_finite(value) and not (_is_infinite(value) and _is_infinite(self.options.get(name)))
        ]
        if wrong:
            raise InvalidEditError(f"{self.name}: expected finite numbers, found {', '.join(wrong)}")


def analyses() -> dict[str, Analysis]:
    """All announced analyses by name; those that cannot be loaded are left out, with `BrokenPluginWarning`."""
    return {name: Analysis(name, function) for name, function in load_announced(GROUP, "analysis", _check).items()}


def find_analysis(name: str) -> Analysis:
    """The analysis of this name. Raises `UnknownNameError` where there is none, naming all, or it cannot be loaded."""
    points = announced(GROUP)
    if name not in points:
        raise UnknownNameError(f"unknown analysis {name!r}; there are {', '.join(points)}")
    try:
        function = points[name].load()
        _check(function)
    except Exception as error:
        raise UnknownNameError(
            f"{failure(points[name], 'analysis', error)}; mend its package, or choose another analysis"
        ) from error
    return Analysis(name, function)


def _check(function: Callable[..., Any]) -> None:
    if not inspect.signature(function).parameters:
        raise TypeError("it must be a function of an opened store")


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_finite(value: Any) -> bool:
    """Whether there is neither NaN nor infinity in an option."""
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


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
