"""Carry an edit out on a running state: put values in, add them, mask attention.

The only part of `cachetool.edits` that works on PyTorch tensors. Nothing is changed in place unless that is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cachetool.edits.selection import Selection

Places = tuple[Tensor, Tensor]
"""Image and position of tokens, int64, each (pair,), as they index a state (image, token, channel), on its device."""


def replace_tokens(state: Tensor, where: Places, values: Tensor, *, in_place: bool = False) -> Tensor:
    """`state` (image, token, channel), or a copy of it, with `values` (pair, channel), on its device, at tokens."""
    return _put(state, where, values, in_place, accumulate=False)


def add_tokens(state: Tensor, where: Places, values: Tensor, *, in_place: bool = False) -> Tensor:
    """`state` (image, token, channel), or a copy of it, with `values` (pair, channel), on its device, added."""
    return _put(state, where, values, in_place, accumulate=True)


def attention_mask(selection: Selection, tokens: int, device: torch.device | str = "cpu") -> Tensor:
    """Who may attend to whom under `remove` and `knockout`, bool (image, 1, query, key), True where allowed.

    The selected tokens are no keys for any other token, the other selected ones included. Each may attend to itself,
    so that no query is left without a key.
    """
    return hide_keys(torch.from_numpy(selection.mask(tokens)).to(device))


def hide_keys(selected: Tensor) -> Tensor:
    """As `attention_mask`, from which tokens are selected, bool (image, token)."""
    itself = torch.eye(selected.shape[1], dtype=torch.bool, device=selected.device)
    return (~selected[:, None, :] | itself)[:, None]


def _put(state: Tensor, where: Places, values: Tensor, in_place: bool, *, accumulate: bool) -> Tensor:
    changed = state if in_place else state.clone()
    return changed.index_put_(where, values.to(state.dtype), accumulate=accumulate)
