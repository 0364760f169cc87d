"""How long it takes to prepare edits: to select tokens, to draw or read what is put in, to measure how far it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cachetool.calibrating import calibrate
from cachetool.edits import Calibration, Edit
from cachetool.edits.meter import Meter
from cachetool.plan.measuring import timed
from cachetool.replaying.arm import EditInHand
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.checks import draws
from cachetool.replaying.sources import CacheSources
from cachetool.store import StoreReader


def preparing_seconds(
    reader: StoreReader,
    calibrations: Calibrations,
    edits: Sequence[Edit],
    state: npt.NDArray[np.float32],
    last_layer: int,
) -> float:
    """Time to prepare all edits on one image, measured on the first images of a cache.

    Where a calibration would have to be made first, one of these images alone takes its place. Edits that differ by
    their seed are measured once. Raises what keeps a replacement from its values, as a replay does.

    Parameters
    ----------
    state
        Intact state of the images, (image, token, channel).
    last_layer
        The last state that is computed.
    """
    counts = Counter(replace(edit, seed=0) for edit in edits)
    return sum(count * _seconds(reader, calibrations, edit, state, last_layer) for edit, count in counts.items())


def _seconds(
    reader: StoreReader, calibrations: Calibrations, edit: Edit, state: npt.NDArray[np.float32], last_layer: int
) -> float:
    images = len(state)
    if not reader.readable[:images].any():
        return 0.0
    if draws(edit):
        calibration = calibrations.at_hand(edit) or _of_first_images(reader, edit, images)
        meter = Meter(calibration)
        arm = EditInHand(edit, CacheSources(reader, lambda: calibration), lambda: meter)
    else:
        arm = EditInHand(edit, CacheSources(reader, calibrations.maker(edit)), lambda: calibrations.meter(edit))
    ids = reader.spec.images.image_id[:images]
    arm.prepare(state[:1], 0, ids[:1], last_layer)  # donors are drawn, and the meter is fitted, once for all images
    return timed(lambda: arm.prepare(state, 0, ids, last_layer)) / images


def _of_first_images(reader: StoreReader, edit: Edit, images: int) -> Calibration:
    drawn_from = "calibration" in edit.build().needs
    layers = edit.edited_layers(reader.spec.layers[-1]) if drawn_from else [edit.from_layer]
    return calibrate(reader, layers=layers, token_types=(edit.parsed_target().token_type,), images=range(images))
