"""The pages under docs/how-to, carried out on the embedded model: their commands, then their Python, top to bottom."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import cachetool
from cachetool.cli import main
from tests.reference.quick import quick

EXTRAS = {"cluster": ("distributed", "distributed"), "hugging-face": ("datasets", "hf")}
"""Pages that need a package of an extra, and which."""

PAGES = sorted((Path(__file__).parents[1] / "docs" / "how-to").glob("*.md"))


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("how-to") / "activations"
    with quick():
        cache = cachetool.extract("tiny-reg", "shapes", limit=24, root=root, workers=0)
        cachetool.replay(cache, cachetool.Edit("registers", "zero", 6))
        yield root


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(
    page: Path, activations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if page.stem in EXTRAS:
        module, extra = EXTRAS[page.stem]
        pytest.importorskip(module, reason=f"the extra [{extra}] is not installed")
    shutil.copytree(activations, tmp_path / "activations")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CACHETOOL_ROOT", raising=False)
    plt.switch_backend("agg")
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```") // 2
    names: dict[str, Any] = {}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
            continue
        for line in code.splitlines():
            monkeypatch.setattr(sys, "argv", line.split())
            with pytest.raises(SystemExit) as done:
                main()
            assert not done.value.code, capsys.readouterr().err
    plt.close("all")
