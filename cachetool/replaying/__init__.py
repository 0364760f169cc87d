"""From a cache to runs: edits of a stored state, carried through the remaining blocks only."""

from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.certificate import certify
from cachetool.replaying.checks import require_cache
from cachetool.replaying.model import open_backbone
from cachetool.replaying.replay import repeated, replay_edits, replay_here
from cachetool.replaying.replay_again import RecordedRun
from cachetool.replaying.runs import Run

__all__ = [
    "Calibrations",
    "RecordedRun",
    "Run",
    "certify",
    "open_backbone",
    "repeated",
    "replay_edits",
    "replay_here",
    "require_cache",
]
