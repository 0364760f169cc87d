"""What a verification found and did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cachetool.objects import Place

Part = Literal["block", "flags", "document", "table", "cache", "calibration"]
"""What is wrong: a block of images; its flags; an array's document; a small array; a run's cache or calibration."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    part: Part
    where: str
    """Name of the array, or `block N`."""
    text: str
    """What was expected and what was found."""
    block: int | None = None
    images: tuple[int, int] | None = None
    """First and last image of the block, by position."""


@dataclass(frozen=True)
class Compared:
    """One image computed again from its file (of a run: from the stored state), beside what is stored."""

    image: int
    """Position in the store."""
    image_id: str
    problem: str = ""
    """Why it is not what is stored; empty where it is."""
    token_type: str = ""
    """Where the error is largest, measured by what rounding allows."""
    layer: int = -1
    """State of the largest error."""
    relative_rms: float = 0.0
    """Root mean square of the difference there, over that of what is stored."""
    allowed: float = 0.0
    """Largest difference of one value over what rounding allows it; at most 1 where nothing is wrong."""
    bit_equal: float = 1.0
    """Share of values that are equal to the bit, all states and token types together."""


@dataclass(frozen=True)
class Repair:
    """One thing that was mended, or that could not be."""

    where: str
    """Name of the array, or `block N`."""
    done: bool
    text: str
    """What was done; where nothing was, why, and what to do."""
    images: tuple[int, int] | None = None
    """First and last image that was computed again, by position."""
    same_bytes: bool | None = None
    """Of a block: whether its bytes are those that were there before the damage; None where nobody knows."""


@dataclass
class Report:
    """All that `verify` has to say about one store."""

    path: Place
    kind: str
    """`cache`, `run` or `calibration`."""
    blocks: int = 0
    """Blocks that were read as a whole."""
    problems: list[Problem] = field(default_factory=list)
    """What was wrong before any repair."""
    seed: int = 0
    """Seed by which images were drawn to be computed again."""
    recomputed: list[Compared] = field(default_factory=list)
    """The images that were drawn."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""
    repairs: list[Repair] = field(default_factory=list)

    @property
    def differing(self) -> list[Compared]:
        """Images that are not what is stored."""
        return [one for one in self.recomputed if one.problem]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, or not any more."""
        mended = all(repair.done for repair in self.repairs) and bool(self.repairs)
        return not self.differing and (not self.problems or mended)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        fields = {name: value for name, value in vars(self).items() if name not in ("path", "problems", "recomputed")}
        return {
            "path": str(self.path),
            **fields,
            "sound": self.sound,
            "problems": [asdict(problem) for problem in self.problems],
            "recomputed": [asdict(one) for one in self.recomputed],
            "repairs": [asdict(repair) for repair in self.repairs],
        }
