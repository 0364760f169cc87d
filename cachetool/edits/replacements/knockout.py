"""`knockout`: the tokens stay, but no other token may attend to them."""

from __future__ import annotations

from cachetool.edits.base import AttentionReplacement


class Knockout(AttentionReplacement):
    """No other token attends to the selected ones in the blocks of the edited states; they go on attending themselves.

    With `until_layer` m the mask acts in blocks k up to and including m; with `sustained=False` in block k alone.
    """

    name = "knockout"
    description = "the tokens stay, but no other token may attend to them"
    usage = "knockout"
