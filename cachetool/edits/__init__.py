"""Edits of stored states: which tokens (targets), what is put in (replacements), and how far off it lies (meter)."""

from cachetool.edits.base import Replacement
from cachetool.edits.calibration import Calibration
from cachetool.edits.edit import Edit
from cachetool.edits.registry import parse_replacement, replacements
from cachetool.edits.selection import Selection, select
from cachetool.edits.sources import Images, Sources
from cachetool.edits.targets import Target

__all__ = [
    "Calibration",
    "Edit",
    "Images",
    "Replacement",
    "Selection",
    "Sources",
    "Target",
    "parse_replacement",
    "replacements",
    "select",
]
