"""`cachetool analyze` on the command line: the list, a result, its figures, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

from analyses.analysis import analyses
from cachetool.cli import build
from cachetool.errors import CachetoolError, UnknownNameError
from tests.analyses.conftest import EVALUATED, Small

RUNNER = CliRunner()


def test_the_list_names_all_with_their_options() -> None:
    found = RUNNER.invoke(build(), ["analyze"], catch_exceptions=False)
    assert found.exit_code == 0
    for name, analysis in analyses().items():
        assert name in found.stdout
        assert all(f"{option}=" in found.stdout for option in analysis.options)
    document = json.loads(RUNNER.invoke(build(), ["analyze", "--json"], catch_exceptions=False).stdout)
    assert [entry["name"] for entry in document["analyses"]] == list(analyses())


@pytest.mark.slow
def test_a_result_is_printed_written_and_drawn(small: Small, tmp_path: Path) -> None:
    file = tmp_path / "norms.nc"
    arguments = ["analyze", "token-norms", str(small.cache), "-o", "threshold=3", "--layers", "0,6-12", "--figures"]
    shown = RUNNER.invoke(build(), [*arguments, "--output", str(file)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "median_patch_norm" in shown.stdout
    with xr.open_dataset(file, engine="h5netcdf") as found:
        assert found.sizes["layer"] == 8
        assert json.loads(found.attrs["options"]) == {"threshold": 3}
        assert found.attrs["cache"] == str(small.cache)
    drawn = sorted(path.name for path in (tmp_path / "figures").glob("*.svg"))
    assert "token-norms-register-norm.svg" in drawn
    document = json.loads(
        RUNNER.invoke(build(), [*arguments, "--output", str(file), "--json"], catch_exceptions=False).stdout
    )
    rows = [row for row in document["rows"] if row["variable"] == "cls_norm"]
    assert [row["layer"] for row in rows] == [0, 6, 7, 8, 9, 10, 11, 12]
    assert {row["images"] for row in rows} == {EVALUATED}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert len(document["figures"]) == 2 * len(drawn)


def test_runs_are_compared_by_edit(small: Small, tmp_path: Path) -> None:
    arguments = ["analyze", "patch-similarity", str(small.cache), "--output", str(tmp_path / "a.nc"), "--json"]
    rows = json.loads(RUNNER.invoke(build(), arguments, catch_exceptions=False).stdout)["rows"]
    edits = [row["edit"] for row in rows if row["variable"] == "cosine" and row["from_layer"] == 6]
    assert edits.count("registers shuffle") == 1  # two seeds are one edit
    assert {"registers mean", "[CLS] zero, to 11"} <= set(edits)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "unknown analysis 'nonsense'; there are attention-divergence"),
        (["token-norms", "-o", "threshold"], "--option: expected NAME=VALUE, found 'threshold'"),
        (["token-norms", "-o", "size=3"], "token-norms has no option size; its options are: threshold=5.0"),
        (["effective-rank", "-o", "centre=3"], "found centre=3 (as True)"),
        (["token-norms", "--layers", "a"], "--layers a: expected numbers"),
    ],
)
def test_bad_input_is_named(small: Small, arguments: list[str], words: str) -> None:
    name, *options = arguments
    with pytest.raises(CachetoolError) as refused:
        RUNNER.invoke(build(), ["analyze", name, str(small.cache), *options], catch_exceptions=False)
    assert words in str(refused.value)


def test_the_default_place_is_beside_the_cache_and_goes_with_it(small: Small) -> None:
    arguments = ["analyze", "register-cosine", str(small.root / "shapes-calibration" / "tiny-reg.zarr"), "--json"]
    file = Path(json.loads(RUNNER.invoke(build(), arguments, catch_exceptions=False).stdout)["file"])
    assert file == small.root / "shapes-calibration" / "tiny-reg.analyses" / "register-cosine.nc"
    assert file.is_file()
    with pytest.raises(UnknownNameError):
        RUNNER.invoke(build(), ["analyze", "zero"], catch_exceptions=False)
