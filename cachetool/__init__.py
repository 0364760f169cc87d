"""cachetool: store all token activations of a vision transformer once, edit tokens at a layer, replay the rest.

import cachetool

cache = cachetool.extract("dinov2-reg-s", "imagefolder:photos")
cache.registers.sel(layer=6).mean("image").compute()
run = cachetool.replay(cache, cachetool.Edit("registers", "shuffle", from_layer=6))
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachetool import datasets
    from cachetool.annotations import open_annotations
    from cachetool.api import calibrate, export_hdf5, extract, import_hdf5, models, replay
    from cachetool.attending import attention
    from cachetool.classifying import classify
    from cachetool.differing import diff
    from cachetool.edits import Edit
    from cachetool.errors import CachetoolError
    from cachetool.query import normalize, open_runs, runs
    from cachetool.query import open_store as open  # noqa: A004 - `cachetool.open` reads as `xarray.open_zarr` does
    from cachetool.samples import features
    from cachetool.streaming import Activations
    from cachetool.tree import open_tree
    from cachetool.verifying import verify

__all__ = [
    "Activations",
    "CachetoolError",
    "Edit",
    "attention",
    "calibrate",
    "classify",
    "datasets",
    "diff",
    "export_hdf5",
    "extract",
    "features",
    "import_hdf5",
    "models",
    "normalize",
    "open",
    "open_annotations",
    "open_runs",
    "open_tree",
    "replay",
    "runs",
    "verify",
]

# Importing torch takes seconds: names are loaded when they are first used, so that `cachetool --help` answers at once.
_HOMES = {
    "Activations": ("cachetool.streaming", "Activations"),
    "CachetoolError": ("cachetool.errors", "CachetoolError"),
    "Edit": ("cachetool.edits", "Edit"),
    "attention": ("cachetool.attending", "attention"),
    "open_annotations": ("cachetool.annotations", "open_annotations"),
    "calibrate": ("cachetool.api", "calibrate"),
    "classify": ("cachetool.classifying", "classify"),
    "diff": ("cachetool.differing", "diff"),
    "export_hdf5": ("cachetool.api", "export_hdf5"),
    "extract": ("cachetool.api", "extract"),
    "features": ("cachetool.samples", "features"),
    "import_hdf5": ("cachetool.api", "import_hdf5"),
    "models": ("cachetool.api", "models"),
    "normalize": ("cachetool.query", "normalize"),
    "open": ("cachetool.query", "open_store"),
    "open_runs": ("cachetool.query", "open_runs"),
    "open_tree": ("cachetool.tree", "open_tree"),
    "replay": ("cachetool.api", "replay"),
    "runs": ("cachetool.query", "runs"),
    "verify": ("cachetool.verifying", "verify"),
}


def _register_accessor() -> None:
    """Make `Dataset.cachetool` known to xarray, where that is loaded: importing it takes most of a second."""
    if "xarray" in sys.modules:
        import_module("cachetool.accessor")


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name == "datasets":  # a package that can be called
        return import_module("cachetool.datasets")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    found = getattr(import_module(module), attribute)
    _register_accessor()
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)


_register_accessor()
