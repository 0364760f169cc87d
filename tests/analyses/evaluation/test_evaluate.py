from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import analyses.evaluation.outcomes
import cachetool
from analyses.evaluation.evaluate import evaluate, sequences
from analyses.evaluation.rows import Row, as_frame
from analyses.tasks.classification import Classification
from cachetool import Edit
from cachetool.cli import build, console
from cachetool.errors import DatasetError, MissingDataError, UnknownNameError
from tests.analyses.conftest import EVALUATED, Small


class Listening:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.phases: list[str] = []

    def start(self, phase: str, total: int) -> None:
        self.phases.append(phase)

    def advance(self, images: int, nbytes: int = 0) -> None:
        pass

    def message(self, text: str) -> None:
        self.messages.append(text)


def copied(small: Small, folder: Path) -> Small:
    """The same caches elsewhere, so that a test may change them."""
    root = folder / "root"
    shutil.copytree(small.root, root)
    paths = {name: root / getattr(small, name).relative_to(small.root) for name in ("cache", "train", "calibration")}
    runs = tuple(root / path.relative_to(small.root) for path in small.runs)
    return Small(root, paths["cache"], paths["train"], paths["calibration"], runs)


@pytest.fixture(scope="module")
def heard() -> Listening:
    return Listening()


@pytest.fixture(scope="module", autouse=True)
def one_strength() -> Iterator[None]:
    """Segmentation's head is fitted once instead of once per strength."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analyses.tasks.soft_probe.GRID", (0.01,))
        yield


@pytest.fixture(scope="module")
def rows(small: Small, heard: Listening) -> list[Row]:
    return evaluate(
        small.cache, small.train, refit=[Edit("registers", "mean", 6)], resamples=500, events=heard,
        calibration=small.calibration,
    )  # fmt: skip


@pytest.mark.slow
def test_all_tasks_that_apply_are_measured(rows: list[Row], heard: Listening) -> None:
    assert list(dict.fromkeys(row.task for row in rows)) == [
        "classification", "retrieval", "segmentation", "correspondence",
    ]  # fmt: skip
    assert any(message.startswith("head is left out: ") for message in heard.messages)
    assert {row.train for row in rows if row.task in ("classification", "segmentation")} == {"shapes#train"}


def test_values_are_those_of_the_task(small: Small, rows: list[Row]) -> None:
    task, train = Classification(), cachetool.open(small.train)
    head = task.fit(train, cachetool.open_annotations(train))
    for run in small.opened():
        expected = task.measure(run, head, cachetool.open_annotations(small.cache)).hit.values.mean()
        edit = Edit(**run.attrs["key"]["edit"])
        found = [
            row
            for row in rows
            if (row.task, row.metric, row.head) == ("classification", "top1", "intact")
            and (row.replacement, row.until_layer)
            == (edit.replacement, 6 if edit.replacement == "none" else edit.until_layer or 12)
            and row.seeds == 1
        ]
        if edit.replacement != "shuffle":
            assert found[0].value == expected


def test_a_refitted_head_is_fitted_under_the_edit(small: Small, rows: list[Row]) -> None:
    refitted = [row for row in rows if row.head == "refit"]
    assert {(row.task, row.edit) for row in refitted} == {
        ("classification", "registers mean"),
        ("segmentation", "registers mean"),
    }
    (train,) = cachetool.runs(small.train)  # one replay serves both heads
    assert Edit(**train.attrs["key"]["edit"]) == Edit("registers", "mean", 6)
    assert train.attrs["key"]["keep_tokens"] == ["cls", "patches"]
    task = Classification()
    head = task.fit(train, cachetool.open_annotations(small.train))
    expected = task.measure(small.opened()[1], head, cachetool.open_annotations(small.cache)).hit.values.mean()
    (found,) = (row for row in refitted if row.metric == "top1")
    assert found.value == expected


def test_measuring_again_reads_outcomes_from_disk(
    small: Small, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(analyses.evaluation.outcomes, "write_netcdf", forbidden)
    monkeypatch.setattr(Classification, "fit", forbidden)
    again = evaluate(
        small.cache, small.train, refit=[Edit("registers", "mean", 6)], resamples=500, calibration=small.calibration
    )
    assert as_frame(again).equals(as_frame(rows))


def test_a_missing_intact_arm_is_replayed(small: Small, tmp_path: Path) -> None:
    own = copied(small, tmp_path)
    shutil.rmtree(own.runs[0])
    found = evaluate(own.cache, tasks=["retrieval"], resamples=100)
    assert found[0].edit == "intact"
    assert sum(row.metric == "recall@1" for row in found) == 5
    assert sum(run.attrs["key"]["edit"]["replacement"] == "none" for run in cachetool.runs(own.cache)) == 1


def test_runs_of_fewer_images_are_left_out(small: Small, tmp_path: Path) -> None:
    own, heard = copied(small, tmp_path), Listening()
    cachetool.extract("tiny-reg", "shapes#val", root=own.root, limit=EVALUATED + 10)
    found = evaluate(own.cache, tasks=["retrieval"], resamples=100, events=heard)
    assert [row.edit for row in found] == ["intact"] * 3
    assert f"6 of 6 runs are left out, because the cache has grown to {EVALUATED + 10} images" in heard.messages[0]


def test_a_cache_without_runs_is_measured_itself(small: Small) -> None:
    unreplayed = small.calibration.parent.with_name("tiny-reg.zarr")
    top1, *_ = evaluate(unreplayed, small.train, ["classification"], resamples=100)
    assert (top1.edit, top1.from_layer, top1.seeds) == ("intact", 12, 1)
    assert np.isnan(top1.certificate)
    assert top1.value > 0.5


def test_states_that_no_run_holds_are_read_from_the_cache(small: Small) -> None:
    heard = Listening()
    top1, *_ = evaluate(small.cache, small.train, ["classification:cls@6"], resamples=100, events=heard)
    assert (top1.task, top1.edit, top1.seeds) == ("classification:cls@6", "intact", 1)
    assert any("left out for 6 runs" in text and "state 6 is needed" in text for text in heard.messages)


def test_what_cannot_be_measured_is_said(small: Small) -> None:
    with pytest.raises(MissingDataError) as refused:
        evaluate(small.cache, tasks=["classification", "head"])
    assert "classification is left out: it fits a head: name a training cache with --train" in str(refused.value)
    assert "head is left out" in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(", UnknownNameError, "no regular expression"),
        ("val", UnknownNameError, "expected one group in parentheses, found 0"),
        ("(a)(b)", UnknownNameError, "found 2"),
        ("(1)$", DatasetError, "2 of 3 image ids: val/2, val/3"),
    ],
)
def test_bad_sequences(pattern: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace("(", r"\(")):
        sequences(["val/1", "val/2", "val/3"], pattern)


def test_sequences_by_a_group() -> None:
    assert sequences(["a/1", "a/2", "b/1"], "^(.)/").tolist() == ["a", "a", "b"]  # type: ignore[union-attr]
    assert sequences(["a/1"], None) is None


def test_the_command(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.output, "width", 200)
    arguments = ["evaluate", str(small.cache), "--task", "retrieval", "--resamples", "100"]
    shown = CliRunner().invoke(build(), [*arguments, "--output", str(tmp_path / "tables")])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "tables" / "table.csv").is_file()
    assert (tmp_path / "tables" / "table.nc").is_file()
    assert f"retrieval: recall@1, {EVALUATED} images" in shown.stdout
    assert "registers shuffle" in shown.stdout
    document = json.loads(CliRunner().invoke(build(), [*arguments, "--json"]).stdout)
    expected = evaluate(small.cache, tasks=["retrieval"], resamples=100)
    assert document["rows"] == [row.to_json() for row in expected]
