"""The page on extending cachetool, carried out: its files, its entry points and its commands."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cachetool
from cachetool.cli import build

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package of the page as if it were installed: its modules, and entry points as an installer writes them."""
    for name, code in re.findall(r"^`(my_tokens/\w+\.py)`:\n\n```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL):
        assert len(code.splitlines()) <= 22
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    groups = tomllib.loads(toml)["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in own.items()) for group, own in groups.items()
    ]
    information = tmp_path / "my_tokens-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tokens\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("\n\n".join(lines) + "\n")
    return tmp_path


def commands() -> list[list[str]]:
    (console,) = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    return [line.split()[1:] for line in console.splitlines()]


def test_the_page_does_what_it_says(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cachetool.extract("tiny-reg", "shapes", limit=6, root=tmp_path / "root", workers=0)
    monkeypatch.syspath_prepend(package)
    monkeypatch.chdir(tmp_path)
    found = {}
    for command in commands():
        finished = CliRunner().invoke(build(), [*command, "--root", "root", "--json"], catch_exceptions=False)
        assert finished.exit_code == 0, finished.stderr
        found[command[1]] = json.loads(finished.stdout)
    rows = found["sparsity"]["rows"]
    assert len(rows) == 13 * 4
    energy = cache.registers.values.astype(np.float64) ** 2
    bound = np.quantile(energy, 0.9, axis=-1, keepdims=True)
    share = (np.where(energy >= bound, energy, 0).sum(-1) / energy.sum(-1)).mean(0)
    assert [row["value"] for row in rows] == pytest.approx(share.ravel().tolist(), rel=1e-6)
    assert found["patch-similarity"]["rows"][0]["edit"] == "registers sign-flip"
