"""`docs/reference/python.md`, made from the public names of `cachetool`."""

from __future__ import annotations

import inspect
from typing import Any

import cachetool

HEAD = """\
# Python

The public names of `cachetool`, and how they are called. Docstrings say more: `help(cachetool.extract)`. What is
refused is raised as one of the [errors](errors.md). Written by `python -m tests.documentation`.

Opened caches and runs are `xarray.Dataset`s with the accessor `.cachetool` ([how](../how-to/xarray.md));
`cachetool.edits` has what [extensions](../extending.md) need.
"""


def page() -> str:
    """The whole page."""
    names = sorted(cachetool.__all__, key=str.lower)
    return "\n".join([HEAD, *(section(name, getattr(cachetool, name)) for name in names)])


def section(name: str, member: Any) -> str:
    """What a name is for, and how it is called."""
    if inspect.ismodule(member):  # `cachetool.datasets`, which can be called
        member = member.__call__
    what, _, _ = inspect.cleandoc(member.__doc__).partition("\n\n")
    call = "" if inspect.isclass(member) and issubclass(member, Exception) else f"\n{_call(name, member)}\n"
    return f"## {name}\n{call}\n{what}\n"


def _call(name: str, member: Any) -> str:
    """The signature, a parameter a line where it is long."""
    signature = inspect.signature(member)
    parts = []
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if one.default is one.empty else f" = {one.default!r}"
        parts.append(f"{one.name}: {one.annotation}{default}")
    made = inspect.isclass(member) or signature.return_annotation is signature.empty
    arrow = "" if made else f" -> {signature.return_annotation}"
    line = f"    cachetool.{name}({', '.join(parts)}){arrow}"
    if len(line) <= 120:
        return line
    listing = "".join(f"        {part},\n" for part in parts)
    return f"    cachetool.{name}(\n{listing}    ){arrow}"
