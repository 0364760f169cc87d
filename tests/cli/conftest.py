"""Running the command line inside the test's process: what a user types, sees and gets as exit code."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import cachetool as package
from cachetool.cli import console, main
from tests.reference.quick import quick


@dataclass(frozen=True)
class Outcome:
    """What a command left behind for its user."""

    code: int
    out: str
    err: str


Cachetool = Callable[..., Outcome]


@pytest.fixture(scope="package", autouse=True)
def _quick_package() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture(scope="session")
def of_six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the cache that `extract tiny-reg shapes --limit 6` makes."""
    root = tmp_path_factory.mktemp("of-six") / "activations"
    with quick():
        package.extract("tiny-reg", "shapes", limit=6, root=root, workers=0)
    return root


@pytest.fixture
def extracted(of_six: Path, tmp_path: Path) -> Path:
    """That cache where the command line looks for it, to be changed at will."""
    return Path(shutil.copytree(of_six, tmp_path / "activations"))


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
