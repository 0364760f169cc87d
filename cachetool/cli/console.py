"""What the commands share: where text goes, progress bars over `Events`, and options that mean the same everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import humanize
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cachetool.cli.interrupts import interrupted_once
from cachetool.errors import UnknownNameError

WIDTH = 150
"""Columns where output goes into a file or pipe: rich would take 80, and break tables of results."""

output = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)
"""Results. Brackets in names, also in tables, are no markup: `[/x]` would end the command."""
errors = Console(stderr=True, markup=False, emoji=False, width=None if sys.stderr.isatty() else WIDTH)
"""Progress, messages and errors: standard output stays clean for `--json` and pipes."""

EXIT_INTERRUPTED = 130

MOST_NUMBERS = 2**20
"""Numbers that a range may stand for: a slip of the keyboard must not fill the memory."""

RootOption = Annotated[
    str | None,
    typer.Option("--root", help="Directory or s3://BUCKET/PREFIX of all caches [CACHETOOL_ROOT, else `activations`]."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps [CUDA where there is one, else cpu].")]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Weights file (.safetensors, .pth) under timm, Facebook or Hugging Face key names.")
]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Images per forward pass [128 on CUDA, else 32; fewer of large models].")
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="Dask cluster that computes: tcp://HOST:PORT, a scheduler file, or local:N."),
]


class ProgressEvents:
    """Events as a progress bar with images/s, bytes and time left, on standard error."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._bytes = 0

    def start(self, phase: str, total: int) -> None:
        """Begin a new bar; a phase that begins again keeps its own, since an analysis begins with every run."""
        self._bytes = 0
        if self._task is not None and self._progress.tasks[self._task].description == phase:
            self._progress.reset(self._task, total=total, rate="", size="")
        else:
            self._task = self._progress.add_task(phase, total=total, rate="", size="")

    def advance(self, images: int, nbytes: int = 0) -> None:
        """Move the bar."""
        if self._task is None:
            return
        self._bytes += nbytes
        self._progress.advance(self._task, images)
        speed = self._progress.tasks[self._task].speed
        self._progress.update(
            self._task,
            rate=f"{speed:,.0f} images/s" if speed else "",
            size=humanize.naturalsize(self._bytes) if self._bytes else "",
        )

    def message(self, text: str) -> None:
        """Show a message above the bar."""
        self._progress.console.print(plain(text), markup=False, highlight=False)


@contextmanager
def progress() -> Iterator[ProgressEvents]:
    """A progress display for the time of a block of work."""
    try:
        with interrupted_once(), _display() as display:
            yield ProgressEvents(display)
    except KeyboardInterrupt:
        errors.print("interrupted: finished blocks are kept; the same command goes on from there", markup=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _display() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[size]}"),
        TimeRemainingColumn(),
        console=errors,
    )


def plain(text: object) -> str:
    """Text for a terminal: control characters, which names from anybody may hold, as escapes that do nothing."""
    harmless = (one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in str(text))
    return "".join(harmless)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    output.print(json.dumps(document, allow_nan=False), markup=False, highlight=False, soft_wrap=True)


def integers(text: str | None, option: str) -> list[int] | None:
    """Read a comma-separated list of integers and ranges such as `0,3-5`.

    Raises
    ------
    UnknownNameError
        A part is neither; names the option and every such part.
    """
    if text is None:
        return None
    found: list[int] = []
    wrong: list[str] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        known = all(number.isdecimal() and len(number) < 10 for number in numbers)
        if known and int(numbers[0]) <= int(numbers[-1]) < int(numbers[0]) + MOST_NUMBERS:
            found.extend(range(int(first), int(last or first) + 1))
        else:
            wrong.append(part)
    if wrong:
        raise UnknownNameError(
            f"{option} {text}: expected numbers such as 9,12 or 0-12, found {', '.join(map(repr, wrong))}"
        )
    return found


def words(text: str | None) -> list[str] | None:
    """Read a comma-separated list of names."""
    return None if text is None else [part.strip() for part in text.split(",")]
