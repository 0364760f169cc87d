"""A small cache of the embedded model with runs, shared by the tests that compare runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr

import cachetool
from cachetool import Edit
from tests.reference.quick import quick

EVALUATED, TRAINING, CALIBRATED = 40, 100, 40

EDITS = (
    Edit("registers", "none", 6),
    Edit("registers", "mean", 6),
    Edit("registers", "shuffle", 6, seed=0),
    Edit("registers", "shuffle", 6, seed=1),
    Edit("cls", "zero", 6),
    Edit("cls", "zero", 6, until_layer=11),
)


@dataclass(frozen=True)
class Small:
    """Paths of small caches, and the runs of the evaluated one in the order of `EDITS`."""

    root: Path
    cache: Path
    train: Path
    calibration: Path
    runs: tuple[Path, ...]

    def opened(self) -> list[xr.Dataset]:
        """The runs."""
        return [cachetool.open(path) for path in self.runs]


def path_of(store: xr.Dataset) -> Path:
    return Path(store.attrs["cachetool_path"])


@pytest.fixture(scope="session", autouse=True)
def _quick_session() -> Iterator[None]:
    """From the first test below on, all load the embedded model once, and do not wait for the disk."""
    with quick():
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Tests read it, and may add outcomes, but must not remove anything."""
    root = tmp_path_factory.mktemp("small")
    with quick():
        cache = cachetool.extract("tiny-reg", "shapes#val", root=root, limit=EVALUATED, workers=0)
        train = cachetool.extract("tiny-reg", "shapes#train", root=root, limit=TRAINING, layers=[6, 12], workers=0)
        calibrated = cachetool.extract("tiny-reg", "shapes#calibration", root=root, limit=CALIBRATED, workers=0)
        calibration = path_of(cachetool.calibrate(calibrated, name="other"))
        runs = cachetool.replay(cache, list(EDITS), calibration=calibration, no_overlap=True)
    return Small(root, path_of(cache), path_of(train), calibration, tuple(path_of(run) for run in runs))
