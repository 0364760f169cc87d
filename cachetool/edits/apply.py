"""Carry an edit out on a running state: put values in, add them, mask attention, mark tokens as absent.

The only part of the package that works on PyTorch tensors. Nothing is changed in place: callers keep intact states.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cachetool.edits.selection import Selection


def replace_tokens(state: Tensor, selection: Selection, values: NDArray[np.float32]) -> Tensor:
    """A copy of `state` (image, token, channel) with `values` (pair, channel) at the selected tokens."""
    image, position = _pairs(state, selection)
    return state.index_put((image, position), _as_state(state, values))


def add_tokens(state: Tensor, selection: Selection, values: NDArray[np.float32]) -> Tensor:
    """A copy of `state` (image, token, channel) with `values` (pair, channel) added to the selected tokens."""
    image, position = _pairs(state, selection)
    return state.index_put((image, position), _as_state(state, values), accumulate=True)


def mark_absent(state: Tensor, selection: Selection) -> Tensor:
    """A copy of `state` (image, token, channel) with NaN at the selected tokens: how removed tokens are stored."""
    image, position = _pairs(state, selection)
    return state.index_put((image, position), torch.tensor(torch.nan, dtype=state.dtype, device=state.device))


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


def _pairs(state: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(selection.image).to(state.device), torch.from_numpy(selection.position).to(state.device)


def _as_state(state: Tensor, values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device=state.device, dtype=state.dtype)
