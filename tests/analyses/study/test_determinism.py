"""Other workers or parts give the same table; another batch size gives the same draws, and nearly the same table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cachetool
from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.narrowing import narrow
from analyses.study.parts import take_apart
from analyses.study.run import run_study
from analyses.study.table import write_study
from cachetool import Edit

pytestmark = pytest.mark.slow

IMAGES, BLOCK = 44, 16
"""More images than a block holds, so that two parts share the work, and more than a batch, so that workers do."""

STUDY = Study(
    name="draws",
    calibration=CalibrationData("shapes#calibration", 40),
    models=(StudyModel("tiny-reg"),),
    data=(
        StudyData(
            "shapes#val", ("classification", "retrieval", "correspondence"), "shapes#train", IMAGES, train_limit=40
        ),
    ),
    edits=(
        EditGroup("registers", ("registers",), ("zero", "noise", "shuffle", "norm-matched"), seeds=2),
        EditGroup("patches", ("patches:random4",), ("mean",), (6,)),
        EditGroup("refitted", ("registers",), ("shuffle",), refit=True),
    ),
    resamples=300,
)

ROUNDING = 2e-3
"""Kernels round differently at another batch size. The stored states may then differ by one unit in the last place of
float16 (2**-11 of a value), which rarely moves an image across a decision: up to this share of a metric, 0.2 pp, plus
one unit that is decided otherwise."""


class Counted:
    """Events of which only the images to extract are kept."""

    def __init__(self) -> None:
        self.extracted: list[int] = []

    def start(self, phase: str, total: int) -> None:
        if phase == "extract":
            self.extracted.append(total)

    def advance(self, images: int, nbytes: int = 0) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def table_of(study: Study, root: Path, *, workers: int = 0) -> bytes:
    result = run_study(study, root=root, workers=workers)
    return write_study(result, root / "tables")["csv"].read_bytes()


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: BLOCK)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    root = tmp_path_factory.mktemp("reference")
    return root, table_of(STUDY, root)


def test_workers_change_nothing(reference: tuple[Path, bytes], tmp_path: Path) -> None:
    assert table_of(STUDY, tmp_path, workers=2) == reference[1]


def test_parts_change_nothing(reference: tuple[Path, bytes], tmp_path: Path) -> None:
    (part,) = take_apart(STUDY, root=tmp_path)
    layers = sorted({layer for held in part.evaluated.states.values() for layer in held})
    written = []
    for index in (2, 1):
        cachetool.extract(
            "tiny-reg", "shapes#val", root=tmp_path, limit=IMAGES, layers=layers, workers=0, part=(index, 2)
        )
        written.append(
            sum(
                len(list(path.rglob("*")))
                for path in (tmp_path / "shapes" / "tiny-reg.zarr").iterdir()
                if path.is_dir()
            )
        )
    assert written[0] < written[1], "each part stores something"
    assert table_of(STUDY, tmp_path) == reference[1]


def test_a_batch_size_changes_no_draw_and_metrics_by_rounding_alone(
    reference: tuple[Path, bytes], tmp_path: Path
) -> None:
    root, _ = reference
    table_of(narrow(STUDY, batch_size=7), tmp_path)
    ours, theirs = (
        {Edit(**run.attrs["key"]["edit"]): run for run in cachetool.runs(folder / "shapes" / "tiny-reg.zarr")}
        for folder in (tmp_path, root)
    )
    assert ours.keys() == theirs.keys()
    drawn = 0
    for edit, run in ours.items():
        for name in ("donor", "edited"):
            if name in run:
                drawn += 1
                np.testing.assert_array_equal(run[name].values, theirs[edit][name].values, err_msg=f"{edit} {name}")
    assert drawn > len(ours), "some runs have donors"
    here, there = pd.read_csv(tmp_path / "tables" / "table.csv"), pd.read_csv(root / "tables" / "table.csv")
    settled = ["task", "metric", "edit", "from_layer", "head", "seeds", "units", "images", "groups"]
    pd.testing.assert_frame_equal(here[settled], there[settled])
    assert ((here.value - there.value).abs() <= ROUNDING + 1 / here.units).all()
