"""`shuffle`: the token of another image."""

from __future__ import annotations

from cachetool.edits.shuffling import ShuffleReplacement


class Shuffle(ShuffleReplacement):
    """Puts in the same token of another image."""

    name = "shuffle"
    description = "the same token of another image (a derangement over the data set)"
    usage = "shuffle"
    rule = "any"
