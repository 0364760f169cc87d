"""What of a study is on disk already, so that a plan can say what is left to do; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

import numpy as np
import xarray as xr

import cachetool
from analyses.evaluation.outcomes import task_folder
from analyses.study.parts import CacheUse, Part
from analyses.study.run import calibration_path
from cachetool import Edit
from cachetool.objects import Place, place, zarr_store
from cachetool.places import outcomes_directory


def stored_images(use: CacheUse) -> int:
    """How many of the images asked for a cache holds at all states asked for, from its record of finished blocks."""
    if not (use.path / "zarr.json").is_file():
        return 0
    with xr.open_zarr(zarr_store(use.path)) as store:
        types, block = store.token_type.values.tolist(), int(store.attrs["cachetool"]["block"])
        if not set(use.states) <= set(types):
            return 0
        finished = np.ones(store.sizes["block"], dtype=np.bool_)
        for name, layers in use.states.items():
            held = store.complete.sel(token_type=name, layer=list(layers))
            finished &= held.all("layer").values
        first = np.arange(store.sizes["block"]) * block
        images = np.clip(np.minimum(store.sizes["image"], use.images) - first, 0, block)
        return int(images[finished].sum())


def finished_calibration(part: Part) -> Place | None:
    """The calibration, where cache and calibration are there."""
    use = part.calibration
    if not use.states or stored_images(use) < use.images:
        return None
    path = calibration_path(use, cachetool.open(use.path))
    return path if (path / "zarr.json").is_file() else None


def finished_replays(part: Part, calibration: Place | None) -> dict[Edit, Place]:
    """The edits that are replayed already, on the same images, for the same tokens and with the same calibration."""
    use = part.evaluated
    if stored_images(use) < use.images:
        return {}
    wanted = {planned.edit for planned in part.edits}
    found: dict[Edit, Place] = {}
    for run in cachetool.runs(use.path):
        key, used = run.attrs["key"], run.attrs["facts"].get("calibration")
        edit = Edit(**key["edit"])
        same = run.sizes["image"] == use.images and key["keep"] == [part.depth] and key["keep_tokens"] == [*part.tokens]
        # The name of a calibration tells it from others; its place may be written in several ways.
        if (
            edit in wanted
            and same
            and (used is None or (calibration and PurePath(used["path"]).name == calibration.name))
        ):
            found[edit] = place(run.attrs["cachetool_path"])
    return found


def count_measurements(part: Part, runs: Iterable[Place]) -> int:
    """Files of the tasks' outcomes that bear the names of these runs; their keys are compared when they are read."""
    folders = [outcomes_directory(part.evaluated.path) / task_folder(task) for task in part.tasks]
    names = [path.name for folder in folders for path in folder.glob("*.nc")]
    return sum(name.startswith(f"{run.stem}.") for run in runs for name in names)
