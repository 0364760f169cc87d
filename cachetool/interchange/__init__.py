"""Caches and runs as single HDF5 files, to send and to read without Zarr, and back."""

from __future__ import annotations

from cachetool.interchange.exporting import Exported, export_file
from cachetool.interchange.importing import Imported, import_file

__all__ = ["Exported", "Imported", "export_file", "import_file"]
