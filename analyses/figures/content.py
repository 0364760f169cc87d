"""Whose content a replacement leaves in the edited tokens: the question that distance is set against."""

from __future__ import annotations

from enum import Enum

from analyses.figures.style import BLACK, BLUE, GREEN, PURPLE, VERMILION

_NONE = ("zero", "mean", "noise", "norm-matched")
_OTHER_IMAGE = ("shuffle", "other-class-shuffle", "patch")


class Content(Enum):
    """What injected tokens say: name for the key, colour, and marker."""

    OWN = ("the image's own content, in part", BLUE, "o")
    OTHER = ("another image's content", VERMILION, "s")
    ORACLE = ("oracle: the image's label", GREEN, "D")
    NONE = ("no image's content", BLACK, "^")
    UNKNOWN = ("content not known", PURPLE, "v")

    @property
    def label(self) -> str:
        """Words for the key."""
        return self.value[0]

    @property
    def colour(self) -> str:
        """Colour of its points."""
        return self.value[1]

    @property
    def marker(self) -> str:
        """Marker of its points, so that colour is not needed to tell classes apart."""
        return self.value[2]


def content_of(replacement: str, *, oracle: bool) -> Content:
    """The class of a replacement such as `interpolate:zero:0.5`; `oracle` as the table says, which comes first."""
    kind = replacement.partition(":")[0]
    if oracle:
        return Content.ORACLE
    if kind == "interpolate":
        return Content.OWN
    if kind in _OTHER_IMAGE:
        return Content.OTHER
    return Content.NONE if kind in _NONE else Content.UNKNOWN


def dose_of(replacement: str) -> tuple[str, float] | None:
    """The other end and the dose of an interpolation, such as `("zero", 0.5)`; None for other replacements."""
    kind, _, rest = replacement.partition(":")
    other, colon, dose = rest.rpartition(":")
    return (other, float(dose)) if kind == "interpolate" and colon else None


def dose_towards(replacement: str, other: str) -> float:
    """The dose of a replacement on the way to another one: 1 for that one itself, NaN for what is not on the way."""
    if replacement == other:
        return 1.0
    dose = dose_of(replacement)
    return dose[1] if dose is not None and dose[0] == other else float("nan")
