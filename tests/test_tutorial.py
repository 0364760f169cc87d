"""The notebooks under docs/tutorial: their cells run from top to bottom on few images, and no output is stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "tutorial").glob("*.ipynb"))
IMAGES = 24


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
    names: dict[str, Any] = {}
    replaced = 0
    for cell in cells(notebook):
        code, found = re.subn(r"^IMAGES = \d+$", f"IMAGES = {IMAGES}", "".join(cell["source"]), flags=re.MULTILINE)
        replaced += found
        exec(compile(code, f"{notebook.name}, cell {cell['id']}", "exec"), names)
    plt.close("all")
    assert replaced == 1
    assert names["cache"].sizes["image"] == IMAGES
    assert {"registers", "cls"} <= set(names["table"].target)
    assert set(names["refitted"].target) == {"registers", "cls"}
    printed = capsys.readouterr().out
    assert "zero     cosine of final patches with intact" in printed
    assert printed.count("with one fitted under the edit") == len(names["refitted"]) > 1
