"""What a terminal is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import Progress

from cachetool.cli.console import ProgressEvents, plain


def test_a_phase_that_begins_again_keeps_its_bar() -> None:
    progress = Progress()
    events = ProgressEvents(progress)
    for phase, total in (("calibrate", 5), ("cka", 10), ("cka", 20)):
        events.start(phase, total)
        events.advance(4)
    assert [(task.description, task.completed, task.total) for task in progress.tasks] == [
        ("calibrate", 4, 5),
        ("cka", 4, 20),
    ]


def test_names_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb\u202e\ud800\r\nc\té") == "a\\x1b[2Jb\\u202e\\ud800\\r\nc\té"


def test_brackets_in_names_are_no_markup(cachetool: Any, extracted: Path) -> None:
    """A table would take what follows the first for the end of bold text."""
    root = Path("a[", "b]")
    root.parent.mkdir()
    extracted.rename(root)
    listed = cachetool("info", "--root", root)
    assert (listed.code, listed.err) == (0, "")
    assert "a[/b]/shapes/tiny-reg.zarr" in listed.out
    planned = cachetool("extract", "tiny-reg", "shapes", "--limit", "4", "--dry-run", "--root", root)
    assert planned.code == 0, planned.err
    assert "a[/b]/shapes/tiny-reg.zarr" in planned.out
