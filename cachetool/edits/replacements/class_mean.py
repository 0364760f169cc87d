"""`class-mean`: the average token over the calibration images of the image's own class; an oracle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.grammar import listed
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources
from cachetool.errors import InvalidEditError


class ClassMean(Replacement):
    """Puts in the calibration mean of the image's class: it injects the label."""

    name = "class-mean"
    description = "the calibration mean over images of the same class (oracle: it injects the label)"
    usage = "class-mean"
    oracle = True
    needs = frozenset({"calibration", "labels"})

    def check(self, sources: Sources, edit: Edit) -> None:
        """Refuse classes that the calibration has no image of, or knows by another name."""
        labels = np.asarray(sources.images.label, dtype=np.int64)
        sources.calibration.check_classes(np.unique(labels[sources.readable]))
        if sources.images.class_name is not None:
            here = dict(zip(labels.tolist(), sources.images.class_name, strict=True))
            there = sources.calibration.class_names
            differing = [
                f"{label} ({here[label]!r}, {there[label]!r})"
                for label in sorted(here.keys() & there.keys())
                if here[label] != there[label]
            ]
            if differing:
                raise InvalidEditError(
                    "class means need the same classes in the cache and in the calibration, but these have other names "
                    f"(cache, calibration): {listed(differing)}; calibrate on a data set with the same classes"
                )

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """The calibration's digest."""
        return {"calibration": sources.calibration.digest}

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """Class means, float32 (pair, channel)."""
        calibration, token_type = sources.calibration, selection.token_type
        labels = np.asarray(sources.images.label, dtype=np.int64)[images]
        calibration.check_classes(np.unique(labels))
        rows = np.searchsorted(calibration.classes, labels)
        return calibration.class_mean(layer, token_type)[rows, calibration.slots(token_type, selection.token)]
