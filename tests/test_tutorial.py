"""The notebooks under docs/tutorial: their cells run from top to bottom on few images, and no output is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.reference.quick import quick

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "tutorial").glob("*.ipynb"))
IMAGES = 40

SMALL = """
extends = "zero-ablation"
name = "small"
resamples = 200
[[data]]
evaluate = "shapes#val"
train = "shapes#train"
tasks = ["classification"]
[[edits]]
name = "registers"
targets = ["registers"]
replacements = ["zero", "shuffle"]
refit = true
[[edits]]
name = "[CLS]"
targets = ["cls"]
replacements = ["zero", "mean", "shuffle"]
until_layers = [-2]
refit = true
"""
"""A few of its edits, and one of its tasks: others are tried by the tests of studies."""


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells that hold code."""
    return [one for one in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if one["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_stored_and_all_code_is_valid(notebook: Path) -> None:
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    for cell in cells(notebook):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        compile("".join(cell["source"]), str(notebook), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_run(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    Path("small.toml").write_text(SMALL)
    smaller = {"IMAGES = 1000": f"IMAGES = {IMAGES}", 'STUDY = "zero-ablation"': 'STUDY = "small.toml"'}
    names: dict[str, Any] = {}
    replaced = set()
    with quick():
        for cell in cells(notebook):
            code = "".join(cell["source"])
            for line in smaller.keys() & set(code.splitlines()):
                code = code.replace(line, smaller[line])
                replaced.add(line)
            exec(compile(code, f"{notebook.name}, cell {cell['id']}", "exec"), names)
    plt.close("all")
    assert replaced == set(smaller)
    assert names["cache"].sizes["image"] == IMAGES
    assert {"registers", "cls"} <= set(names["table"].target)
    assert set(names["refitted"].target) == {"registers", "cls"}
    printed = capsys.readouterr().out
    assert "zero     cosine of final patches with intact" in printed
    assert printed.count("with one fitted under the edit") == len(names["refitted"]) > 1
