"""`remove`: the tokens leave the sequence."""

from __future__ import annotations

from cachetool.edits.base import AttentionReplacement


class Remove(AttentionReplacement):
    """From state k on, no other token attends to the selected ones, and they are absent (NaN) in what is stored.

    Attention is the only place where tokens of a vision transformer meet, so this equals running the shorter sequence.
    """

    name = "remove"
    description = "the tokens leave the sequence from that state on"
    usage = "remove"
