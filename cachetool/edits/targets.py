"""The grammar of targets: which tokens an edit touches.

cls                     the [CLS] token
registers               all registers
registers:2             one register (from 0); lists and ranges too: registers:0-2, registers:0,2-3
patches                 all patches
patches:3,7             these patches, counted row by row
patches:random4         4 patches of each image, drawn once per image
patches:outliers        patches whose norm is above 5 times the image's median patch norm
patches:outliers:3.5    the same with another factor
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import groupby

from cachetool.edits.grammar import format_number, parse_number, unknown_name
from cachetool.errors import InvalidEditError
from cachetool.tokens import MOST_TOKENS, TOKEN_TYPES, TokenLayout

DEFAULT_OUTLIER_FACTOR = 5.0
"""A patch is an outlier when its norm is above this many times the median patch norm of its image."""

GRAMMAR = (
    "cls",
    "registers",
    "registers:INDICES",
    "patches",
    "patches:INDICES",
    "patches:randomN",
    "patches:outliers",
    "patches:outliers:FACTOR",
)
"""What can be typed as a target; INDICES are numbers and ranges such as 0,2-3."""


@dataclass(frozen=True)
class AllTokens:
    """Every token of the type."""


@dataclass(frozen=True)
class TokenIndices:
    """Tokens at these indices within their type, ascending."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class RandomPatches:
    """A number of patches of each image, drawn without replacement."""

    count: int


@dataclass(frozen=True)
class OutlierPatches:
    """Patches whose norm is above `factor` times the median patch norm of their image; an image may have none."""

    factor: float


@dataclass(frozen=True)
class Target:
    """Which tokens an edit touches: a token type, and which of its tokens."""

    token_type: str
    choice: AllTokens | TokenIndices | RandomPatches | OutlierPatches

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target. Raises `UnknownNameError` for an unknown one, `InvalidEditError` for a wrong parameter."""
        token_type, separator, rest = text.partition(":")
        if token_type not in TOKEN_TYPES or (separator and (token_type == "cls" or not rest)):
            raise unknown_name("target", text, GRAMMAR)
        if not separator:
            return cls(token_type, AllTokens())
        if not rest.startswith("outliers") and (long := re.search(r"\d{20}", rest, re.ASCII)):
            raise InvalidEditError(f"target {text[:80]!r}: no model has a token {long[0]}..., nor as many")
        if re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", rest, re.ASCII):
            return cls(token_type, TokenIndices(_parse_indices(rest, text)))
        if token_type == "patches":
            if match := re.fullmatch(r"random(\d+)", rest, re.ASCII):
                return cls(token_type, RandomPatches(_positive_count(int(match[1]), text)))
            if match := re.fullmatch(r"outliers(?::(.*))?", rest, re.DOTALL):
                factor = DEFAULT_OUTLIER_FACTOR if match[1] is None else _parse_factor(match[1], text)
                return cls(token_type, OutlierPatches(factor))
        raise unknown_name("target", text, GRAMMAR)

    def __str__(self) -> str:
        """The canonical text, which parses back to an equal target."""
        match self.choice:
            case AllTokens():
                return self.token_type
            case TokenIndices(indices):
                return f"{self.token_type}:{_format_indices(indices)}"
            case RandomPatches(count):
                return f"{self.token_type}:random{count}"
            case OutlierPatches(factor):
                suffix = "" if factor == DEFAULT_OUTLIER_FACTOR else f":{format_number(factor)}"
                return f"{self.token_type}:outliers{suffix}"

    def most(self, layout: TokenLayout) -> int:
        """The most tokens of an image that it can choose."""
        match self.choice:
            case TokenIndices(indices):
                return len(indices)
            case RandomPatches(count):
                return count
        return layout.count(self.token_type)

    def check(self, layout: TokenLayout) -> None:
        """Raise `InvalidEditError` where a model of this layout lacks the tokens."""
        count = layout.count(self.token_type)
        has = _describe(layout)
        if count == 0:
            raise InvalidEditError(
                f"target {str(self)!r} needs {_NAMES[self.token_type]}, but the model has {has}; choose a target among "
                f"{', '.join(layout.types)}"
            )
        match self.choice:
            case TokenIndices(indices) if beyond := [index for index in indices if index >= count]:
                raise InvalidEditError(
                    f"target {str(self)!r} names {self.token_type} {_format_indices(tuple(beyond))}, but the model has "
                    f"{has}; {self.token_type} are counted from 0 to {count - 1}"
                )
            case RandomPatches(wanted) if wanted > count:
                raise InvalidEditError(
                    f"target {str(self)!r} draws {wanted} different patches, but the model has {has}; "
                    f"draw {count} at most"
                )


_NAMES = {"cls": "a [CLS] token", "registers": "registers", "patches": "patches"}


def _describe(layout: TokenLayout) -> str:
    """The tokens of a model in words: "[CLS], no registers, 16 x 16 patches"."""
    cls = "[CLS]" if layout.cls else "no [CLS]"
    registers = {0: "no registers", 1: "1 register"}.get(layout.registers, f"{layout.registers} registers")
    return f"{cls}, {registers}, {layout.rows} x {layout.columns} patches"


def _parse_indices(text: str, target: str) -> tuple[int, ...]:
    indices: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise InvalidEditError(f"target {target!r}: the range {part!r} runs backwards; write {last}-{first}")
        if int(last or first) >= MOST_TOKENS:
            raise InvalidEditError(f"target {target!r}: no model has a token {last or first}; indices count from 0")
        indices.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(indices))


def _format_indices(indices: tuple[int, ...]) -> str:
    """Ascending indices with runs as ranges: (0, 1, 2, 5) is "0-2,5"."""
    runs = [[index for _, index in run] for _, run in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _positive_count(count: int, target: str) -> int:
    if count == 0:
        raise InvalidEditError(f"target {target!r} draws no patch at all; write random1 or more")
    return count


def _parse_factor(text: str, target: str) -> float:
    factor = parse_number(text)
    if factor is None or not math.isfinite(factor) or factor <= 0:
        raise InvalidEditError(f"target {target!r}: the factor must be a number above 0, not {text!r}")
    return factor
