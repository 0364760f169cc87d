"""What packages announce through entry points: a broken one disables itself, by name, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cachetool.errors import BrokenPluginWarning


def announced(group: str) -> dict[str, EntryPoint]:
    """What is announced in a group of entry points, by name, sorted; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def load_announced(group: str, what: str, check: Callable[[Any], object]) -> dict[str, Any]:
    """Load all that is announced in a group.

    Parameters
    ----------
    group
        Name of the group.
    what
        What its members are, for messages: `replacement`.
    check
        Called with each; one for which it raises is left out, as one is that cannot be imported.

    Returns
    -------
    What could be loaded, by name of the entry point, sorted. Of the rest `BrokenPluginWarning` tells.
    """
    found = {}
    for name, point in announced(group).items():
        try:
            loaded = point.load()
            check(loaded)
        except Exception as error:  # whatever a module of somebody else does while it is imported
            warnings.warn(f"{failure(point, what, error)}; it is left out", BrokenPluginWarning, stacklevel=2)
        else:
            found[name] = loaded
    return found


def failure(point: EntryPoint, what: str, error: Exception) -> str:
    """Which plugin of which package could not be loaded, and why, in words."""
    package = f" of the package {point.dist.name}" if point.dist is not None else ""
    return f"the {what} {point.name!r}{package} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
