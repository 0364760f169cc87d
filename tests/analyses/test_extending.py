"""The page on extending cachetool, carried out: its files, its entry points and its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool
from tests.reference.quick import quick

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


EVERY_COMMAND = """
import json, sys
from cachetool.cli import build
application = build()
for arguments in json.loads(sys.argv[1]):
    application(arguments, standalone_mode=False)
"""
"""One process, since the imports of each would take longer than the commands."""


def documents(text: str) -> list[Any]:
    """JSON documents that follow each other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.slow
def test_the_page_does_what_it_says(package: Path, tmp_path: Path) -> None:
    with quick():
        cache = cachetool.extract("tiny-reg", "shapes", limit=6, root=tmp_path / "root", workers=0)
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    calls = [[*command, "--root", "root", "--json"] for command in commands()]
    finished = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND, json.dumps(calls)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    found = {command[1]: document for command, document in zip(calls, documents(finished.stdout), strict=True)}
    rows = found["sparsity"]["rows"]
    assert len(rows) == 13 * 4
    energy = cache.registers.values.astype(np.float64) ** 2
    bound = np.quantile(energy, 0.9, axis=-1, keepdims=True)
    share = (np.where(energy >= bound, energy, 0).sum(-1) / energy.sum(-1)).mean(0)
    assert [row["value"] for row in rows] == pytest.approx(share.ravel().tolist(), rel=1e-6)
    assert found["patch-similarity"]["rows"][0]["edit"] == "registers sign-flip"
