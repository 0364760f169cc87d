"""Running the command line inside the test's process: what a user types, sees and gets as exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cachetool.cli import console, main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind for its user."""

    code: int
    out: str
    err: str


Cachetool = Callable[..., Outcome]


@pytest.fixture
def cachetool(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cachetool:
    """A function that runs `cachetool ARGUMENTS` in an empty directory, with no data sets or caches configured."""
    for name in ("CACHETOOL_ROOT", "CACHETOOL_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    # Wide enough that a line of a table or message is never broken, whatever terminal the tests run in.
    monkeypatch.setattr(console.output, "width", 400)
    monkeypatch.setattr(console.errors, "width", 400)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cachetool", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
