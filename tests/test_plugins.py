"""A package whose analysis, replacement or command is broken: it is named and left out, and everything else works."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from analyses.analysis import analyses, find_analysis
from cachetool.cli import main
from cachetool.edits import replacements
from cachetool.errors import BrokenPluginWarning, UnknownNameError

SOUND = """
def twice(store):
    "Twice the norm."
    return store

def nothing():
    "Takes no store."

def hello(name: str = "you") -> None:
    "Say hello."
    print("hello", name)

def impossible(what: int | str) -> None:
    "Has a parameter that no command line can have."
"""
ANNOUNCED = """
[cachetool.analyses]
sound = strange_tokens.sound:twice
broken-analysis = strange_tokens.broken:twice
no-store = strange_tokens.sound:nothing

[cachetool.replacements]
broken-edit = strange_tokens.broken:Edit
no-edit = strange_tokens.sound:twice

[cachetool.commands]
hello = strange_tokens.sound:hello
broken-command = strange_tokens.broken:command
impossible = strange_tokens.sound:impossible
"""


@pytest.fixture
def _strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package as it would be installed, with sound and broken entry points."""
    package, information = tmp_path / "strange_tokens", tmp_path / "strange_tokens-1.0.dist-info"
    for folder in (package, information):
        folder.mkdir()
    (package / "__init__.py").write_text("")
    (package / "broken.py").write_text("raise RuntimeError('made for another version')\n")
    (package / "sound.py").write_text(SOUND)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-tokens\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ANNOUNCED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    replacements.cache_clear()
    yield
    replacements.cache_clear()
    for name in [name for name in sys.modules if name.startswith("strange_tokens")]:
        del sys.modules[name]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cachetool", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def told(what: str, name: str, place: str, reason: str) -> str:
    return f"the {what} '{name}' of the package strange-tokens (strange_tokens.{place}) cannot be loaded: {reason}"


BROKEN_COMMAND = told("command", "broken-command", "broken:command", "RuntimeError: made for another version")


@pytest.mark.usefixtures("_strange")
@pytest.mark.filterwarnings("default::cachetool.errors.BrokenPluginWarning")
def test_a_broken_command_is_named_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "hello", "--name", "all") == 0
    shown = capfd.readouterr()
    assert shown.out == "hello all\n"
    assert f"warning: {BROKEN_COMMAND}; it is left out\n" in shown.err
    assert "warning: the command 'impossible' of the package strange-tokens" in shown.err
    assert "Traceback" not in shown.err
    assert shown.err.count("\n") == 2
    assert run(monkeypatch, "datasets", "--json") == 0
    assert "datasets" in json.loads(capfd.readouterr().out)
    assert run(monkeypatch, "broken-command") == 2
    assert "No such command" in capfd.readouterr().err


@pytest.mark.usefixtures("_strange")
def test_a_broken_analysis_is_named_and_the_others_are_listed() -> None:
    with pytest.warns(BrokenPluginWarning) as caught:
        found = analyses()
    assert {"sound", "token-norms"} <= set(found)
    assert not {"broken-analysis", "no-store"} & set(found)
    reason = told("analysis", "broken-analysis", "broken:twice", "RuntimeError: made for another version")
    assert [str(one.message) for one in caught] == [
        f"{reason}; it is left out",
        f"{told('analysis', 'no-store', 'sound:nothing', 'TypeError: it must be a function of an opened store')}"
        "; it is left out",
    ]
    with pytest.raises(UnknownNameError) as refused:
        find_analysis("broken-analysis")
    assert str(refused.value) == f"{reason}; mend its package, or choose another analysis"
    assert find_analysis("sound").description == "Twice the norm."


@pytest.mark.usefixtures("_strange")
def test_a_broken_replacement_is_named_and_the_others_replay() -> None:
    with pytest.warns(BrokenPluginWarning) as caught:
        found = replacements()
    assert {"zero", "shuffle"} <= set(found)
    assert [str(one.message).partition(" of ")[0] for one in caught] == [
        "the replacement 'broken-edit'",
        "the replacement 'no-edit'",
    ]
