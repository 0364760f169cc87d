"""The README, the format and the pages under docs/how-to, carried out on the embedded model, from top to bottom."""

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
from tests.documentation.pages import command_lines, words
from tests.reference.quick import quick

pytestmark = pytest.mark.slow

EXTRAS = {"cluster": ("distributed", "distributed"), "hugging-face": ("datasets", "hf")}
"""Pages that need a package of an extra, and which."""

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "format.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]

NOT_HERE = ("dinov2", "timm:", "CACHE")
"""Commands of the README that name weights or images which are not part of the package."""
TAKE_MINUTES = ("study", "report")
"""Commands that have tests of their own, on small studies: tests/analyses/study and tests/analyses/report."""


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("how-to") / "activations"
    with quick():
        cache = cachetool.extract("tiny-reg", "shapes", limit=24, root=root, workers=0)
        cachetool.replay(cache, cachetool.Edit("registers", "zero", 6))
        yield root


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(
    page: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if page.stem in EXTRAS:
        module, extra = EXTRAS[page.stem]
        pytest.importorskip(module, reason=f"the extra [{extra}] is not installed")
    if page.stem == "object-stores":
        request.getfixturevalue("object_root")
    shutil.copytree(activations, tmp_path / "activations")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CACHETOOL_ROOT", raising=False)
    plt.switch_backend("agg")
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == len(re.findall(r"^```\w+$", text, re.MULTILINE))
    names: dict[str, Any] = {}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
            continue
        for line in code.splitlines():
            call(line.split(), monkeypatch, capsys)
    plt.close("all")


def call(typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code, capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_of_the_readme_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an empty folder, on fewer images, but for those that need what is not here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CACHETOOL_ROOT", raising=False)
    done = []
    with quick():
        for line in command_lines((ROOT / "README.md").read_text(encoding="utf-8")):
            typed = words(line)
            not_yet = typed[1] == "replay" and not done  # of a cache that names weights which are not here
            if typed[1] in TAKE_MINUTES or not_yet or any(name in line for name in NOT_HERE):
                continue
            fewer = ["--limit", "40"] if typed[1] == "extract" else []
            call([*typed, *fewer], monkeypatch, capsys)
            done.append(typed[1])
    plt.close("all")
    assert done.count("extract") == 2
    assert {"replay", "info", "evaluate", "analyze"} <= set(done)
