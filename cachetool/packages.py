"""Packages that are not needed everywhere: where one is missing or broken, that is told before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from cachetool.errors import MissingPackageError

FIGURES = ("matplotlib.figure",)
"""What figures need, of the extra `[report]`."""
PAGES = ("jinja2", *FIGURES, "plotly.graph_objects")
"""What the page of `cachetool report` needs, of the same extra."""

OBJECTS = ("obstore",)
"""What `--root s3://...`, and reading https:// URLs, need, of the extra `[s3]`."""

CLUSTERS = ("distributed",)
"""What `--cluster` needs, of the extra `[distributed]`."""

HUGGING_FACE = ("datasets",)
"""What data sets named `hf:` need, of the extra `[hf]`."""


def require(what: str, modules: Sequence[str], extra: str, otherwise: str = "") -> None:
    """Import modules of packages that an optional extra brings.

    Parameters
    ----------
    what
        What needs them, for the message: `cachetool report`.
    modules
        Names of modules.
    extra
        The extra of cachetool that brings their packages.
    otherwise
        What to do without them.

    Raises
    ------
    MissingPackageError
        Some cannot be imported; names each with the reason, and the line that installs them.
    """
    broken = {}
    for name in modules:
        try:
            import_module(name)
        except Exception as error:  # a package that is there may be broken in any way
            broken[name.partition(".")[0]] = f"{type(error).__name__}: {error}"
    if broken:
        listing = "\n".join(f"  {package} ({reason})" for package, reason in broken.items())
        raise MissingPackageError(
            f"{what} needs packages that cannot be imported:\n{listing}\n"
            f"install them with: pip install 'cachetool[{extra}]' (with --force-reinstall where one is there but "
            "broken)" + (f", or {otherwise}" if otherwise else "")
        )
