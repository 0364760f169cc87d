"""From a cache to runs: edits of a stored state, carried through the remaining blocks only."""

from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.certificate import certify
from cachetool.replaying.replay import Run, open_backbone, repeated, replay_edits, require_cache
from cachetool.replaying.replay_again import RecordedRun

__all__ = [
    "Calibrations",
    "RecordedRun",
    "Run",
    "certify",
    "open_backbone",
    "repeated",
    "replay_edits",
    "require_cache",
]
