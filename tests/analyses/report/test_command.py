"""`cachetool report` on the command line: what it finds by itself, what it prints, and bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cachetool.cli import build
from cachetool.errors import CachetoolError
from tests.analyses.report.conftest import Reported

pytestmark = pytest.mark.slow

RUNNER = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def _no_static_figures() -> Iterator[None]:
    """The page of `reported` has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analyses.report.model_section.FIGURES", {})
        yield


def run(*arguments: str) -> str:
    found = RUNNER.invoke(build(), ["report", *arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_caches_are_those_of_the_tables(reported: Reported, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "report.html"
    arguments = ["--root", str(reported.root / "activations"), "--table", str(reported.table), "--images", "3"]
    document = json.loads(run(*arguments, "--output", str(page), "--json"))
    assert document["report"] == str(page)
    assert document["bytes"] == page.stat().st_size
    assert [one["target"] for one in document["findings"]] == ["registers", "cls"]
    text = page.read_text(encoding="utf-8")
    # The training cache lies under the same root, but no row was measured on it.
    assert "tiny-reg on shapes#val" in text
    assert "tiny-reg on shapes#train" not in text
    assert text.count('<details class="example"') == 1


def test_tables_of_studies_are_found_where_studies_write_them(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    (folder / "table.csv").write_bytes(reported.table.read_bytes())
    monkeypatch.chdir(tmp_path)
    shown = run(str(reported.cache), "--images", "0")
    assert shown.startswith("report.html (")
    assert "studies/mine/table.csv" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "absent.csv"], "no table at absent.csv"),
        (["CACHE", "--images", "0,x"], "--images 0,x: expected numbers"),
        (["CACHE", "--images", "40"], "images: expected positions from 0 to 39, found 40"),
        (["CACHE", "--run", "nowhere"], "found nowhere"),
        ([], "nothing to report"),
        (["nothing/here"], "no cache at nothing/here"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(reported.cache) if argument == "CACHE" else argument for argument in arguments]
    with pytest.raises(CachetoolError, match=message):
        RUNNER.invoke(build(), ["report", *given, "--root", str(tmp_path)], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
