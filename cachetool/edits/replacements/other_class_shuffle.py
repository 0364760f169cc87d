"""`other-class-shuffle`: the token of an image of another class."""

from __future__ import annotations

from cachetool.edits.shuffling import ShuffleReplacement


class OtherClassShuffle(ShuffleReplacement):
    """Puts in the same token of an image of another class: no donor can help with the label."""

    name = "other-class-shuffle"
    description = "the same token of an image of another class"
    usage = "other-class-shuffle"
    rule = "other-class"
    needs = frozenset({"labels", "stored-states"})
