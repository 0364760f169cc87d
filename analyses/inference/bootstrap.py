"""One bootstrap for all arms of a family: every arm sees the same resamples.

Metrics are functions of weighted sums of per-unit columns (`analyses.tasks.base.Metric`), so a resample is a vector of
weights w, and the metric of an arm in it is `combine(w @ columns)`. The columns of all arms and seeds are put side by
side and multiplied at once; a column that occurs twice (the intact arm, annotated pixels, a column of ones) is
multiplied once.

Seeds are averaged before images are resampled: the value of an arm in a resample is the mean over its seeds of the
metric in that resample. For a mean over units this equals the metric of the outcomes averaged over seeds; for a ratio
of sums such as mIoU it is the mean of the seeds' mIoU, not the mIoU of pooled pixels. The interval therefore tells how
the mean over *these* seeds would vary with other images; it does not contain the variation between seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from analyses.inference.design import Design
from cachetool.errors import DatasetError, UnknownNameError

Columns = npt.NDArray[np.float64]
"""Per-unit numbers of one arm, float64 (unit, column)."""
Combine = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Weighted sums (..., column) to values (...)."""

RESAMPLES = 10_000
"""Resamples of a bootstrap unless another number is asked for."""


TRACE = 1e-9
"""Share of the whole sample in a resample that keeps absent parts: no digit of a reported value, and well above the
rounding of sums in float64."""


@dataclass(frozen=True)
class Arm:
    """The columns of one edit, once per seed, and those of the intact arm that it is compared with."""

    edited: Sequence[Columns]
    """(unit, column) of each seed."""
    intact: Columns
    """(unit, column), of the same units in the same order."""


@dataclass(frozen=True)
class Replicates:
    """Values of every arm on the sample and in every resample; NaN where a resample leaves a metric undefined."""

    edited: npt.NDArray[np.float64]
    """Mean over seeds on the sample, (arm,)."""
    intact: npt.NDArray[np.float64]
    """The intact arms on the sample, (arm,)."""
    edited_resampled: npt.NDArray[np.float64]
    """Mean over seeds in each resample, (arm, resample)."""
    intact_resampled: npt.NDArray[np.float64]
    """The intact arms in each resample, (arm, resample)."""


def check_resamples(resamples: int) -> None:
    """Raise `UnknownNameError` for fewer than one."""
    if resamples < 1:
        raise UnknownNameError(f"--resamples {resamples}: expected at least 1")


def bootstrap(
    arms: Sequence[Arm],
    combine: Combine,
    design: Design,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    keep_absent: bool = False,
) -> Replicates:
    """Resample what the design says and evaluate every arm in every resample, in bounded memory.

    With `keep_absent` a resample holds a trace of the whole sample, so that a part of a metric (a class of mIoU) of
    which it holds no unit has there the value that it has in the sample, and counts in the mean as it does there.

    Raises
    ------
    DatasetError
        Columns of an arm do not fit the design or each other, or hold numbers that are not finite.
    UnknownNameError
        Fewer than one resample is asked for.
    """
    check_resamples(resamples)
    if not arms:
        none = np.empty(0), np.empty((0, resamples))
        return Replicates(none[0], none[0], none[1], none[1])
    _check(arms, design)
    stack = _Stack()
    edited = [[stack.add(columns) for columns in arm.edited] for arm in arms]
    intact = [stack.add(arm.intact) for arm in arms]
    matrix = stack.matrix()

    def evaluate(sums: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Values of the edited and the intact arms, (arm, resample) each, of sums (resample, distinct column)."""
        values: dict[tuple[int, ...], npt.NDArray[np.float64]] = {}
        # A resample may hold no pair or no annotated pixel: 0 / 0 is then NaN on purpose, left out by its readers.
        with np.errstate(invalid="ignore", divide="ignore"):
            for chosen in {*intact, *(chosen for seeds in edited for chosen in seeds)}:
                values[chosen] = combine(sums[:, chosen])
        return (
            np.stack([np.mean([values[chosen] for chosen in seeds], axis=0) for seeds in edited]),
            np.stack([values[chosen] for chosen in intact]),
        )

    whole = evaluate(matrix.sum(axis=0, keepdims=True))
    trace = TRACE * matrix.sum(axis=0) if keep_absent else 0.0
    parts = [evaluate(weights @ matrix + trace) for weights in design.weights(resamples, seed)]
    return Replicates(
        edited=whole[0][:, 0],
        intact=whole[1][:, 0],
        edited_resampled=np.concatenate([part[0] for part in parts], axis=1),
        intact_resampled=np.concatenate([part[1] for part in parts], axis=1),
    )


class _Stack:
    """Distinct columns side by side, told apart by their bytes."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._columns: list[npt.NDArray[np.float64]] = []
        self._known: dict[int, tuple[int, ...]] = {}

    def add(self, columns: Columns) -> tuple[int, ...]:
        """Places of the columns in the matrix; arrays that arms share are looked at once."""
        if id(columns) not in self._known:
            self._known[id(columns)] = tuple(self._place(column) for column in np.asarray(columns, dtype=np.float64).T)
        return self._known[id(columns)]

    def matrix(self) -> npt.NDArray[np.float64]:
        """All distinct columns, (unit, distinct column)."""
        return np.stack(self._columns, axis=1)

    def _place(self, column: npt.NDArray[np.float64]) -> int:
        contiguous = np.ascontiguousarray(column)
        digest = blake2b(contiguous.data, digest_size=16).digest()
        if digest not in self._places:
            self._places[digest] = len(self._columns)
            self._columns.append(contiguous)
        return self._places[digest]


def _check(arms: Iterable[Arm], design: Design) -> None:
    problems = []
    for number, arm in enumerate(arms):
        if not arm.edited:
            problems.append(f"arm {number} has no seed")
        for name, columns in (
            *((f"seed {index}", seed) for index, seed in enumerate(arm.edited)),
            ("intact", arm.intact),
        ):
            if columns.ndim != 2 or columns.shape != (design.units, arm.intact.shape[-1]):
                problems.append(
                    f"arm {number}, {name} has the shape {columns.shape}, expected "
                    f"({design.units} units, {arm.intact.shape[-1]} columns)"
                )
            elif not np.isfinite(columns).all():
                faulty = np.flatnonzero(~np.isfinite(columns).all(axis=1))
                problems.append(
                    f"arm {number}, {name} is not finite for {len(faulty)} units, first {faulty[:5].tolist()}"
                )
    if problems:
        raise DatasetError(
            "arms can only be compared on the same units, all of them measured: "
            + "; ".join(problems)
            + "; leave units out of all arms alike"
        )
