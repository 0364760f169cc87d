"""Cells, hovers and the listing hold the numbers of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analyses.report.effects import Effects, effects_of, read_table
from analyses.report.heat_map import heat_map, listing
from cachetool.errors import DatasetError, MissingDataError
from tests.analyses.figures.synthetic import study_frame


@pytest.fixture(scope="module")
def effects() -> Effects:
    (only,) = effects_of(study_frame(), Path("table.csv"))
    return only


def cells(trace: Any, what: str) -> dict[tuple[str, str], Any]:
    """Values of a heat map by names of its row and column."""
    return {
        (row, column.split("<br>")[0]): trace[what][down][across]
        for down, row in enumerate(trace["y"])
        for across, column in enumerate(trace["x"])
    }


def row_of(frame: pd.DataFrame, edit: str, task: str, head: str = "intact") -> Any:
    metric = {"classification": "top1", "segmentation": "miou"}[task]
    wanted = frame[(frame["edit"] == edit) & (frame["task"] == task) & (frame["metric"] == metric)]
    wanted = wanted[wanted["head"] == head]
    return wanted[wanted["from_layer"] == wanted["from_layer"].min()].iloc[0]


def test_changes_and_values_are_the_tables(effects: Effects) -> None:
    frame, chart = study_frame(), heat_map(effects, "model0")
    assert [control.options[:2] for control in chart.controls] == [
        ("change (pp)", "value (%)"), ("earliest of each edit", "state 1"),
    ]  # fmt: skip
    change, value = (cells(chart.views[index, 0].traces[0], "z") for index in (0, 1))
    for edit in ("registers zero", "registers:1 zero", "[CLS] mean, to 11"):
        row = row_of(frame, edit, "segmentation")
        assert change[edit, "segmentation"] == row["difference_pp"]
        assert value[edit, "segmentation"] == pytest.approx(100 * row["value"])
    assert value["intact", "classification"] == pytest.approx(90)
    assert change["intact", "classification"] == 0


def test_what_follows_by_construction_is_written_but_not_coloured(effects: Effects) -> None:
    trace = heat_map(effects, "model0").views[0, 0].traces[0]
    assert cells(trace, "z")["[CLS] zero", "classification"] is None
    assert cells(trace, "text")["[CLS] zero", "classification"].endswith("*")
    assert cells(trace, "text")["registers mean", "classification"].endswith("=")


def test_a_choice_of_state_shows_the_edits_that_begin_there(effects: Effects) -> None:
    chart = heat_map(effects, "model0")
    state = chart.controls[1].options.index("state 9")
    names = set(chart.views[0, state].traces[0]["y"])
    frame = study_frame()
    assert {name.split(", from")[0].removesuffix(" (oracle)") for name in names - {"intact"}} == set(
        frame[(frame["from_layer"] == 9) & (frame["target"] != "")]["edit"]
    )


def test_hovers_give_interval_number_and_refitted_head(effects: Effects) -> None:
    frame = study_frame()
    trace = heat_map(effects, "model0").views[0, 0].traces[0]
    hover = cells(trace, "customdata")["registers zero", "classification"]
    row, again = (row_of(frame, "registers zero", "classification", head) for head in ("intact", "refit"))
    for number in (row["low_pp"], row["high_pp"], again["difference_pp"]):
        assert f"{number:+.1f}".replace("-", "\u2212") in hover
    assert "n = 1,000" in hover
    assert "head refitted under the edit" in hover


def test_the_listing_has_every_arm(effects: Effects) -> None:
    rows = listing(effects)
    frame = study_frame()
    assert len(rows) == len(effects.arms)
    first = next(row for row in rows if row["edit"] == "registers zero" and row["states"] == "1 to 12")
    assert first["value"] == f"{100 * row_of(frame, 'registers zero', 'classification')['value']:.1f} %"
    assert first["refit"] != ""


def test_data_sets_are_named_where_a_task_was_measured_on_several() -> None:
    frame = pd.concat([study_frame(), study_frame(dataset="photos")], ignore_index=True)
    (both,) = effects_of(frame, Path("table.csv"))
    assert "segmentation on photos: mIoU" in both.columns
    assert len(both.columns) == 8


def test_a_table_is_read_from_a_file_or_its_directory(tmp_path: Path) -> None:
    study_frame().to_csv(tmp_path / "table.csv", index=False)
    assert len(read_table(tmp_path)) == len(read_table(tmp_path / "table.csv")) == len(study_frame())
    with pytest.raises(MissingDataError, match=r"no table at .*absent\.csv; make one with `cachetool study`"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"other\.csv: the table lacks the columns model"):
        read_table(tmp_path / "other.csv")
    (tmp_path / "none.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"none\.csv is no table"):
        read_table(tmp_path / "none.csv")
