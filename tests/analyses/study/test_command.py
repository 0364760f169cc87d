from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analyses.study.loading import load_study
from cachetool.cli import console, main
from cachetool.errors import DatasetError
from tests.analyses.study.conftest import SMALL, Finished

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `cachetool study ARGUMENTS` in an empty directory; returns exit code, output and errors."""
    monkeypatch.delenv("CACHETOOL_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.output, "width", 400)
    monkeypatch.setattr(console.errors, "width", 400)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cachetool", "study", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("name", ["zero-ablation", "zero-ablation-dino"])
def test_a_printed_study_is_the_same_study(study: Run, tmp_path: Path, name: str) -> None:
    code, out, _ = study(name, "--print")
    assert code == 0
    copy = tmp_path / "mine.toml"
    copy.write_text(out)
    assert load_study(str(copy)) == load_study(name)
    assert study("mine.toml", "--print") == (0, out, "")


def test_options_are_no_part_of_what_is_printed(study: Run) -> None:
    code, out, err = study("--print", "--limit", "3", "--task", "retrieval")
    assert (code, out) == (2, "")
    assert "without options (tasks, limit)" in err


def test_built_in_studies_are_listed(study: Run) -> None:
    code, out, _ = study("--list", "--json")
    names = [entry["name"] for entry in json.loads(out)["studies"]]
    assert (code, names) == (0, ["zero-ablation", "zero-ablation-dino"])
    code, out, _ = study("--list")
    assert code == 0
    assert all(name in out for name in (*names, "tiny-reg", "imagenet-val"))


def test_a_dry_run_writes_nothing(study: Run, definition: Path, tmp_path: Path) -> None:
    code, out, err = study(definition, "--dry-run")
    assert code == 0
    assert "evaluated: shapes#val" in out
    assert "0 of 9 replays" in out
    assert "0 of 38 measurements" in out
    assert "calibrate" in out
    assert err == ""
    code, out, _ = study(definition, "--dry-run", "--limit", "20", "--task", "retrieval", "--json")
    (part,) = json.loads(out)["parts"]
    assert (part["tasks"], part["measurements"], part["caches"][0]["images"]) == (["retrieval"], 9, 20)
    assert not any(tmp_path.iterdir())


def test_all_that_is_wrong_with_a_file_is_said_with_exit_code_2(study: Run, tmp_path: Path) -> None:
    text = SMALL.replace("resamples = 200", 'resampels = 200\nseed = "three"').replace("seed = 3\n", "")
    (tmp_path / "wrong.toml").write_text(text.replace('targets = ["cls"]', 'targets = "cls"'))
    code, out, err = study("wrong.toml")
    assert (code, out) == (2, "")
    for words in ("wrong.toml is no study", "resampels", "seed: expected a whole number", "edits[3].targets"):
        assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.toml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no study 'nothing'"),
        (["absent.toml"], "there is no file absent.toml"),
        (["--weights", "x.pth", "--model", "tiny-reg", "--train", "shapes#train"], "--train goes with --data"),
        (["--data", "imagefolder:absent", "--task", "retrieval"], "absent"),
    ],
)
def test_wrong_names_end_with_exit_code_2(study: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    code, out, err = study(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert not any(tmp_path.iterdir())


def test_a_finished_study_names_its_files(finished: Finished) -> None:
    files = finished.document["files"]
    assert {Path(file) for file in files.values()} >= {
        finished.directory / "table.csv",
        finished.directory / "table.nc",
    }
    assert all(Path(file).is_file() for file in files.values())
    assert finished.document["study"] == "small"
    assert finished.document["notes"] == []


def test_a_finished_study_is_summed_up_for_people(study: Run, finished: Finished, tmp_path: Path) -> None:
    code, out, err = study(finished.file, "--root", finished.root, "--workers", "0")
    assert code == 0
    table = tmp_path / "studies" / "small" / "table.csv"
    assert table.read_bytes() == (finished.directory / "table.csv").read_bytes()
    assert str(table.relative_to(tmp_path)) in out
    for words in ("9 of 9 replays", "tiny-reg on shapes#val", "registers shuffle", "correspondence, pck@0.1"):
        assert words in err


def test_figures_lie_beside_the_tables(
    study: Run, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def write_figures(table: pd.DataFrame, directory: Path) -> list[Path]:
        drawn.append(len(table))
        return [directory / "heat-map.svg"]

    monkeypatch.setattr("analyses.figures.write_figures", write_figures)
    arguments = (finished.file, "--root", finished.root, "--workers", "0", "--json")
    code, out, _ = study(*arguments)
    document = json.loads(out)
    assert (code, drawn) == (0, [len(document["rows"])])
    assert document["figures"] == ["studies/small/figures/heat-map.svg"]

    def refuse(table: pd.DataFrame, directory: Path) -> list[Path]:
        raise DatasetError("two rows for one arm")

    monkeypatch.setattr("analyses.figures.write_figures", refuse)
    code, out, err = study(*arguments)
    assert (code, json.loads(out)["figures"]) == (0, [])
    assert "no figures: two rows for one arm" in err
    assert (tmp_path / "studies" / "small" / "table.csv").is_file()
