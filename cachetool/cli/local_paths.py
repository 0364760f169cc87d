"""Options that name files of a local disk refuse a URL, of which a path would make a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from cachetool.errors import UnknownNameError

_BEGINNING = re.compile(r"[a-z][a-z0-9+.-]+:/")


def on_local_disks(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that raises `UnknownNameError` for a `Path` among its options that was given as such a URL."""

    @wraps(command)
    def checked(*arguments: Any, **options: Any) -> Any:
        for name, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, Path) and _BEGINNING.match(str(one)):
                    url = str(one).replace(":/", "://", 1)
                    raise UnknownNameError(
                        f"{name.replace('_', '-')} {url}: expected a path on a local disk; caches, runs and what is "
                        "kept beside them can lie elsewhere (--root), this cannot"
                    )
        return command(*arguments, **options)

    return checked
