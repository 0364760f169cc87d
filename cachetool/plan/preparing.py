"""How long it takes to prepare edits: to select tokens, to draw or read what is put in, to measure how far it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cachetool.calibrating import calibrate
from cachetool.edits import Calibration, Edit
from cachetool.edits.meter import Meter
from cachetool.plan.measuring import timed
from cachetool.replaying.arm import EditInHand
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.checks import draws
from cachetool.replaying.sources import CacheSources
from cachetool.store import StoreReader


class Preparing:
    """Prepares edits of the first images of a cache, as a replay does, to tell how long that takes.

    Where a calibration would have to be made first, one of these images alone takes its place.
    """

    def __init__(self, reader: StoreReader, calibrations: Calibrations) -> None:
        """Nothing is read yet, and nothing will be written."""
        self._reader = reader
        self._calibrations = calibrations
        self._drawn_from: dict[tuple[str, tuple[int, ...], int], _DrawnFrom] = {}

    def seconds(self, edits: Sequence[Edit], state: npt.NDArray[np.float32], last_layer: int) -> float:
        """Time to prepare all edits on one image, on one thread; those that differ by their seed are measured once.

        Parameters
        ----------
        edits
            Edits from one state.
        state
            Their intact state of the first images, (image, token, channel).
        last_layer
            The last state that is computed.

        Raises
        ------
        InvalidEditError
            An edit does not fit the cache, as far as that is known without the calibration that is to be made.
        """
        counts = Counter(replace(edit, seed=0) for edit in edits)
        with threadpool_limits(limits=1):  # as the thread of a replay that prepares
            return sum(count * self._seconds(edit, state, last_layer) for edit, count in counts.items())

    def _seconds(self, edit: Edit, state: npt.NDArray[np.float32], last_layer: int) -> float:
        reader, images = self._reader, len(state)
        readable = np.flatnonzero(reader.readable[:images])
        if len(readable) == 0:
            return 0.0
        if draws(edit):
            found = self._draw_from(edit, images)
            sources = CacheSources(reader, lambda: found.calibration)
            # That of the first images alone knows few classes.
            if found.substitute and "calibration" in edit.build().needs:
                edit.check_without_calibration(sources)
            else:
                edit.check(sources)
            arm = EditInHand(edit, sources, lambda: found.meter)
        else:
            sources = CacheSources(reader, _nothing)
            edit.check(sources)
            arm = EditInHand(edit, sources, _nothing)
        ids, one = reader.spec.images.image_id, int(readable[0])
        # Donors are drawn, and the meter is fitted, once for all images.
        arm.prepare(state[one : one + 1], one, ids[one : one + 1], last_layer)
        return timed(lambda: arm.prepare(state, 0, ids[:images], last_layer)) / images

    def _draw_from(self, edit: Edit, images: int) -> _DrawnFrom:
        """The same for all edits of the same tokens at the same states, as in a replay."""
        drawn = "calibration" in edit.build().needs
        layers = edit.edited_layers(self._reader.spec.layers[-1]) if drawn else [edit.from_layer]
        kind = (edit.parsed_target().token_type, tuple(layers), images)
        if kind not in self._drawn_from:
            found = self._calibrations.at_hand(edit)
            made = found or calibrate(self._reader, layers=layers, token_types=kind[:1], images=range(images))
            self._drawn_from[kind] = _DrawnFrom(made, Meter(made), substitute=found is None)
        return self._drawn_from[kind]


@dataclass(frozen=True)
class _DrawnFrom:
    calibration: Calibration
    meter: Meter
    substitute: bool
    """Whether it is of the first images alone, in place of one that is to be made."""


def _nothing() -> NoReturn:
    raise AssertionError("an edit that puts nothing in asks for no calibration")
