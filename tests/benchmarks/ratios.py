"""Two ways of doing the same, timed in turns, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Comparison:
    """What one benchmark found."""

    what: str
    """What was measured."""
    against: str
    """What it was measured against."""
    ratio: float
    """Of medians; `unit` says of what."""
    unit: str
    """`times the time` (less is better) or `of its speed` (more is better)."""
    reach: float
    """What is aimed for, in the same unit."""
    seconds: tuple[float, float]
    """Medians: ours, the other's."""
    counts: dict[str, str] = field(default_factory=dict)
    """What was moved or run, by name."""

    @property
    def reached(self) -> bool:
        """Whether the aim was met in this run."""
        return self.ratio <= self.reach if self.unit == "times the time" else self.ratio >= self.reach


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(
    *works: Callable[[], object],
    repeats: int,
    warm: bool = True,
    before: Callable[[], object] = lambda: None,
    check: Callable[[], object] = lambda: None,
) -> tuple[float, ...]:
    """Median seconds of each, timed in turns (first, second, ..., first, ...), after an untimed call of each if `warm`.

    `before` is called before every call, untimed: to drop caches of the system, or files of the last call. `check` is
    called after the first turn: to compare what they gave.
    """
    found: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + warm):
        for side, work in zip(found, works, strict=True):
            before()
            seconds = timed(work)
            if turn >= warm:
                side.append(seconds)
        if turn == 0:
            check()
    return tuple(statistics.median(side) for side in found)


def slower(
    what: str, against: str, seconds: tuple[float, float], reach: float, counts: dict[str, str] | None = None
) -> Comparison:
    """A comparison of times: how many times the other's time ours is."""
    return Comparison(what, against, seconds[0] / seconds[1], "times the time", reach, seconds, counts or {})


def speed(
    what: str, against: str, seconds: tuple[float, float], reach: float, counts: dict[str, str] | None = None
) -> Comparison:
    """A comparison of speeds at the same work: which share, or which multiple, of the other's speed ours is."""
    return Comparison(what, against, seconds[1] / seconds[0], "of its speed", reach, seconds, counts or {})
