"""The command line: thin commands, one file each, discovered; errors meant for the user end with exit code 2."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from importlib.metadata import entry_points

import typer

from cachetool.cli import commands
from cachetool.cli.console import errors, plain
from cachetool.errors import CachetoolError

COMMAND_ENTRY_POINTS = "cachetool.commands"
"""Entry-point group in which other packages (such as `analyses`) add commands: functions with Typer's annotations."""

EXIT_BAD_INPUT = 2


def build() -> typer.Typer:
    """The application with all commands: modules of `cachetool.cli.commands`, then those of other packages."""
    app = typer.Typer(
        name="cachetool",
        help="Store all token activations of a vision transformer once; edit tokens at a layer; replay only the rest.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        add_completion=False,
    )
    for module in pkgutil.iter_modules(commands.__path__):
        loaded = importlib.import_module(f"{commands.__name__}.{module.name}")
        app.command(name=module.name)(loaded.command)
    for entry in sorted(entry_points(group=COMMAND_ENTRY_POINTS), key=lambda entry: entry.name):
        app.command(name=entry.name)(entry.load())
    return app


def main() -> None:
    """Run the command line; the console script `cachetool`."""
    # Pillow warns about metadata that the rules of decoding never use.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        build()()
    except CachetoolError as error:
        _refuse(str(error))
    except MemoryError as error:
        _refuse(f"memory ran out ({error}); finished work is kept. Free some, then run the same command again")
    except OSError as error:
        # A disk that fails while something is read, or a folder that goes away: the system's own words say it best.
        _refuse(f"{error}; finished work is kept. Once this is mended, run the same command again")


def _refuse(text: str) -> None:
    errors.print(plain(f"error: {text}"), markup=False, highlight=False, soft_wrap=True)
    sys.exit(EXIT_BAD_INPUT)
