"""The main job end to end on the embedded model and data, offline: what `cachetool demo` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from analyses.geometry.patch_cosine import patch_cosine
from analyses.inference import Difference, paired_difference
from analyses.tasks.classification import Classification
from cachetool.events import Events

MODEL = "tiny-reg"
REPLACEMENTS = ("none", "zero", "mean", "noise", "shuffle")
DEPTH = 12
TRAIN_IMAGES = 1500
EVALUATED_IMAGES = 800
CALIBRATION_IMAGES = 800


@dataclass(frozen=True)
class Row:
    """One edit, sustained from the first edited state on."""

    name: str
    """Which tokens, and what was put in."""
    accuracy: float
    """Top-1 of the probe that was fitted on intact features."""
    difference: Difference
    """Change against the intact arm (the unedited replay from the same state)."""
    cosine: npt.NDArray[np.float32]
    """Cosine of every final patch with its intact self, (value,)."""
    mahalanobis_percentile: float
    """Where the injected registers lie among natural ones, 0 to 100, mean over images; NaN where nothing is put in."""
    relative_error: float
    """Certificate: error of the unedited replay."""

    def to_json(self) -> dict[str, Any]:
        """The row for `--json`."""
        return {
            "edit": self.name,
            "top1": self.accuracy,
            "difference": self.difference.estimate,
            "low": self.difference.low,
            "high": self.difference.high,
            "equivalent_within_1pp": self.difference.equivalent,
            "images": self.difference.images,
            "median_patch_cosine": float(np.median(self.cosine)),
            "mahalanobis_percentile": None if np.isnan(self.mahalanobis_percentile) else self.mahalanobis_percentile,
            "certificate_relative_error": self.relative_error,
        }


def run_demo(root: Path, from_layer: int, events: Events) -> list[Row]:
    """Extract, calibrate, replay and measure; returns one row per replacement, the intact arm first."""
    train = cachetool.extract(
        MODEL, "shapes#train", root=root, layers=[DEPTH], tokens=["cls"], limit=TRAIN_IMAGES, events=events
    )
    calibrated = cachetool.extract(
        MODEL, "shapes#calibration", root=root, tokens=["cls", "registers"], limit=CALIBRATION_IMAGES, events=events
    )
    evaluated = cachetool.extract(MODEL, "shapes#val", root=root, limit=EVALUATED_IMAGES, events=events)
    # The name holds the weights, so that a calibration of other weights is never taken for this one.
    name = f"demo-{calibrated.attrs['key']['weights_sha256'][:8]}"
    calibration = Path(calibrated.attrs["cachetool_path"]).with_suffix(".calibrations") / f"{name}.zarr"
    if not calibration.exists():
        cachetool.calibrate(calibrated, name=name, events=events)

    task = Classification(strength=1.0)
    head = task.fit(train, cachetool.open_annotations(train))
    annotations = cachetool.open_annotations(evaluated)
    named = demo_edits(from_layer)
    edits = list(named.values())
    runs = cachetool.replay(evaluated, edits, calibration=calibration, no_overlap=True, events=events)
    hits = [task.measure(run, head, annotations).hit.values for run in runs]
    return [_row(name, run, runs[0], hit, hits[0]) for name, run, hit in zip(named, runs, hits, strict=True)]


def demo_edits(from_layer: int) -> dict[str, cachetool.Edit]:
    """The edits of the demo by name, the intact arm first.

    [CLS] is edited up to the last state but one: edited at the last, its read-out would be constant for any model.
    """
    registers = {f"registers {name}": cachetool.Edit("registers", name, from_layer) for name in REPLACEMENTS}
    until = max(from_layer, DEPTH - 1)
    return {
        **registers,
        f"[CLS] zero, to {until}": cachetool.Edit("cls", "zero", from_layer, until_layer=until),
        "4 random patches zero": cachetool.Edit("patches:random4", "zero", from_layer),
    }


def _row(
    name: str, run: xr.Dataset, intact: xr.Dataset, hit: npt.NDArray[np.bool_], intact_hit: npt.NDArray[np.bool_]
) -> Row:
    measured = "off_distribution_mahalanobis_percentile"
    return Row(
        name=name,
        accuracy=float(hit.mean()),
        difference=paired_difference(hit, intact_hit),
        cosine=patch_cosine(run, intact).values.ravel(),
        mahalanobis_percentile=float(run[measured].mean()) if measured in run else float("nan"),
        relative_error=float(run.attrs["facts"]["certificate"]["relative_error"]),
    )
