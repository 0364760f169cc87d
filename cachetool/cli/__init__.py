"""The command line: thin commands, one file each, discovered; errors meant for the user end with exit code 2."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any, TextIO

import typer
from typer.main import get_command

from cachetool.cli import commands
from cachetool.cli.completion import COMPLETING
from cachetool.cli.console import errors, plain
from cachetool.cli.local_paths import on_local_disks
from cachetool.errors import BrokenPluginWarning, CachetoolError
from cachetool.plugins import load_announced

COMMAND_ENTRY_POINTS = "cachetool.commands"
"""Entry-point group in which other packages (such as `analyses`) add commands: functions with Typer's annotations."""

PROGRAM = "cachetool"

EXIT_BAD_INPUT = 2

OWN = ("", "analyses", "cachetool")
"""Packages whose import fails through a defect alone; the first is one that is not known."""


def build() -> typer.Typer:
    """The application with all commands: modules of `cachetool.cli.commands`, then those of other packages."""
    app = typer.Typer(
        name=PROGRAM,
        help="Store all token activations of a vision transformer once; edit tokens at a layer; replay only the rest.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    for module in pkgutil.iter_modules(commands.__path__):
        loaded = importlib.import_module(f"{commands.__name__}.{module.name}")
        app.command(name=module.name)(on_local_disks(loaded.command))
    for name, function in load_announced(COMMAND_ENTRY_POINTS, "command", _check_command).items():
        app.command(name=name)(on_local_disks(function))
    return app


def main() -> None:
    """Run the command line; the console script `cachetool`."""
    # Names of files may be of any bytes: they are printed as they are, so that another program finds them.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    # Pillow warns about metadata that the rules of decoding never use.
    warnings.filterwarnings("ignore", module="PIL")
    # Whatever a shell is told on standard error would stand in the line that somebody is typing.
    with redirect_stderr(io.StringIO()) if COMPLETING in os.environ else nullcontext():
        _run()


def _run() -> None:
    """Run the command, and end with what a user can make use of."""
    try:
        with _told_plainly():
            build()(prog_name=PROGRAM)
    except CachetoolError as error:
        _refuse(str(error))
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN:
            raise
        _refuse(
            f"this command needs the package {package}, which cannot be imported ({error}); commands without it go on "
            "working. All that cachetool needs comes with: pip install cachetool (with --force-reinstall where one is "
            "there but broken)"
        )
    except MemoryError as error:
        _refuse(f"memory ran out ({error}); finished work is kept. Free some, then run the same command again")
    except OSError as error:
        # A disk that fails while something is read, or a folder that goes away: the system's own words say it best.
        _refuse(f"{error}; finished work is kept. Once this is mended, run the same command again")


def _check_command(function: Callable[..., Any]) -> None:
    """Raise whatever Typer raises for what is no command, before it is one among others."""
    alone = typer.Typer(add_completion=False)
    alone.command()(function)
    get_command(alone)


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Show warnings about plugins as what they are: messages for the user, not places in the code."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, BrokenPluginWarning):
                errors.print(plain(f"warning: {message}"), markup=False, highlight=False, soft_wrap=True)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _refuse(text: str) -> None:
    errors.print(plain(f"error: {text}"), markup=False, highlight=False, soft_wrap=True)
    sys.exit(EXIT_BAD_INPUT)
