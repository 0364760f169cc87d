"""`same-class-shuffle`: the token of another image of the same class; an oracle."""

from __future__ import annotations

from cachetool.edits.shuffling import ShuffleReplacement


class SameClassShuffle(ShuffleReplacement):
    """Puts in the same token of another image of the same class: it injects the label."""

    name = "same-class-shuffle"
    description = "the same token of another image of the same class (oracle: it injects the label)"
    usage = "same-class-shuffle"
    rule = "same-class"
    oracle = True
    needs = frozenset({"labels", "stored-states"})
