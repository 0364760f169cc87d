"""`docs/reference/command-line.md`, made from the commands themselves."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from typer.main import get_command

from cachetool.cli import build

HEAD = """\
# The command line

Every command with its arguments and options; `--help` behind its name says the same. Written by
`python -m tests.documentation`.

- Lists are separated by commas, and states may be ranges: `--layers 0,6-12`. Options that name edits, tasks, models or
  tables are repeated for several.
- `--json` prints one JSON object on standard output, and nothing else there. Progress and messages go to standard
  error.
- Exit codes: 0 done; 1 `diff` found a difference; 2 the input was refused, with the reason; 130 interrupted.
- `--install-completion` makes Tab complete commands, options and names ([how](../how-to/shell-completion.md)).
"""

OWN = ("analyses", "cachetool")
"""Packages whose commands are described; plugins that are installed beside them are not."""

VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
"""What stands for a value of an option, by its type."""


def commands() -> dict[str, Any]:
    """The commands of this project by name, sorted."""
    found = get_command(build()).commands  # type: ignore[attr-defined]
    return {name: one for name, one in sorted(found.items()) if one.callback.__module__.partition(".")[0] in OWN}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name, command) for name, command in commands().items())])


def section(name: str, command: Any) -> str:
    """What a command does, how it is called, and a table of its parameters."""
    types = get_type_hints(command.callback)
    arguments = [one for one in command.params if one.opts[0] == one.name]
    options = [one for one in command.params if one not in arguments]
    usage = " ".join([name, *map(_placeholder, arguments), "[OPTIONS]"])
    rows = [f"| `{one.name.upper()}` | {_cell(one)} |" for one in arguments]
    rows += [f"| {_spelling(one, types[one.name])} | {_cell(one)} |" for one in options]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return f"## {name}\n\n    cachetool {usage}\n\n{inspect.cleandoc(command.help)}\n\n{table}\n"


def _placeholder(argument: Any) -> str:
    shown = argument.name.upper() + ("..." if argument.nargs != 1 else "")
    return shown if argument.required else f"[{shown}]"


def _spelling(option: Any, annotation: Any) -> str:
    names = [*option.opts, *option.secondary_opts]
    if option.is_flag:
        return ", ".join(f"`{name}`" for name in names)
    inner = next((one for one in get_args(annotation) if one is not NoneType), annotation)
    value = VALUES[next(iter(get_args(inner)), inner)]  # of `list[str] | None`, `str`
    return ", ".join(f"`{name} {value}`" for name in names)


def _cell(parameter: Any) -> str:
    default = parameter.default
    shown = "" if default is None or isinstance(default, (bool, list, tuple)) else f" [{default}]"
    return (parameter.help + shown).replace("|", "\\|")
