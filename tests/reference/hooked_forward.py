"""An independent reference: the plain timm model run from pixels, with PyTorch hooks that read and replace tokens.

Nothing here comes from cachetool. State k is read (and changed) in a pre-hook of block k, the last state in a hook of
the last block. Attention is masked by a hand-written softmax in place of `scaled_dot_product_attention`; removed tokens
are really cut out of the sequence where all images lose the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """What is done to one state on its way."""

    tokens: NDArray[np.bool_]
    """Which tokens, (image, token)."""
    values: NDArray[np.floating[Any]]
    """What is put in (or added), (image, token, channel); read at the chosen tokens only."""
    added: bool = False


@dataclass(frozen=True)
class Tokens:
    """Where the token types lie in the sequence: [CLS], registers, patches."""

    registers: int
    patches: int

    @property
    def slices(self) -> dict[str, slice]:
        first = 1 + self.registers
        return {"cls": slice(0, 1), "registers": slice(1, first), "patches": slice(first, first + self.patches)}

    @property
    def count(self) -> int:
        return 1 + self.registers + self.patches


def hooked_forward(
    model: Any,
    pixels: Tensor,
    changes: Mapping[int, Change] | None = None,
    hidden: Mapping[int, NDArray[np.bool_]] | None = None,
    cut: tuple[int, NDArray[np.bool_]] | None = None,
) -> NDArray[np.float32]:
    """All states (layer, image, token, channel) of one forward pass from pixels (image, rgb, row, column).

    Parameters
    ----------
    changes
        What is put in or added, by state.
    hidden
        By block, tokens (image, token) to which no other token attends.
    cut
        First state without some tokens, and which, (token,); they are NaN in the result from that state on.
    """
    states: list[Tensor] = []
    with ExitStack() as stack:
        running = _Running()
        for number, block in enumerate(model.blocks):
            stack.callback(
                block.register_forward_pre_hook(_Reader(number, running, states, changes, cut), with_kwargs=True).remove
            )
            if cut is not None and number >= cut[0]:
                stack.enter_context(_shorter_prefix(block.attn, cut[1]))
        last = _Reader(len(model.blocks), running, states, changes, cut)
        stack.callback(
            model.blocks[-1].register_forward_hook(lambda _module, _args, output: last.change(output)).remove
        )
        if hidden:
            attention = _HandWrittenAttention(running, hidden)
            stack.enter_context(mock.patch("torch.nn.functional.scaled_dot_product_attention", attention))
        with torch.inference_mode():
            model.forward_features(pixels)
        assert not hidden or attention.masked == len(hidden), "the model did not use scaled_dot_product_attention"
    return np.stack([_with_gaps(state.numpy(), number, cut) for number, state in enumerate(states)])


def _with_gaps(
    state: NDArray[np.float32], number: int, cut: tuple[int, NDArray[np.bool_]] | None
) -> NDArray[np.float32]:
    if cut is None or number < cut[0]:
        return state
    whole = np.full((state.shape[0], len(cut[1]), state.shape[2]), np.nan, dtype=np.float32)
    whole[:, ~cut[1]] = state
    return whole


@contextmanager
def _shorter_prefix(attention: Any, gone: NDArray[np.bool_]) -> Iterator[None]:
    """Rotary attention skips the prefix ([CLS] and registers), which is shorter where some of it was cut."""
    if not hasattr(attention, "num_prefix_tokens"):
        yield
        return
    before = attention.num_prefix_tokens
    attention.num_prefix_tokens = before - int(gone[:before].sum())
    try:
        yield
    finally:
        attention.num_prefix_tokens = before


class _Running:
    """Which block is at work."""

    block = 0


class _Reader:
    """Reads state `number` after it was changed."""

    def __init__(
        self,
        number: int,
        running: _Running,
        states: list[Tensor],
        changes: Mapping[int, Change] | None,
        cut: tuple[int, NDArray[np.bool_]] | None,
    ) -> None:
        self._number, self._running, self._states, self._cut = number, running, states, cut
        self._change = (changes or {}).get(number)

    def __call__(self, block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._running.block = self._number
        if self._cut is not None and self._number >= self._cut[0] and kwargs.get("rope") is not None:
            patches = kwargs["rope"].shape[-2]
            kwargs = {**kwargs, "rope": kwargs["rope"][..., torch.from_numpy(~self._cut[1][-patches:]), :]}
        return (self.change(args[0]), *args[1:]), kwargs

    def change(self, state: Tensor) -> Tensor:
        if self._cut is not None and self._number == self._cut[0]:
            state = state[:, torch.from_numpy(~self._cut[1])]
        if self._change is not None:
            state = state.clone()
            chosen = torch.from_numpy(self._change.tokens)
            values = torch.from_numpy(np.asarray(self._change.values[self._change.tokens], dtype=np.float32))
            state[chosen] = state[chosen] + values if self._change.added else values
        self._states.append(state)
        return state


class _HandWrittenAttention:
    """Softmax attention in which hidden tokens get no weight from others."""

    def __init__(self, running: _Running, hidden: Mapping[int, NDArray[np.bool_]]) -> None:
        self._running, self._hidden = running, hidden
        self._fused = torch.nn.functional.scaled_dot_product_attention
        self.masked = 0

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._running.block not in self._hidden:
            return self._fused(query, key, value, *args, **kwargs)
        assert not args
        assert kwargs.get("attn_mask") is None
        assert not kwargs.get("is_causal")
        self.masked += 1
        scale = kwargs.get("scale") or query.shape[-1] ** -0.5
        scores = (query @ key.transpose(-2, -1)) * scale
        weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
        for image, tokens in enumerate(self._hidden[self._running.block]):
            for token in np.flatnonzero(tokens):
                own = weights[image, :, token, token].clone()
                weights[image, :, :, token] = 0
                weights[image, :, token, token] = own
        return (weights / weights.sum(dim=-1, keepdim=True)) @ value


def relative_rms(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Root mean square of the difference over that of what was expected; NaN must stand in the same places."""
    assert found.shape == expected.shape
    assert np.array_equal(np.isnan(found), np.isnan(expected)), "NaN in other places"
    difference = np.nan_to_num(found.astype(np.float64)) - np.nan_to_num(expected.astype(np.float64))
    scale = np.sqrt(np.square(np.nan_to_num(expected.astype(np.float64))).mean())
    return float(np.sqrt(np.square(difference).mean()) / scale) if scale else float(np.abs(difference).max(initial=0))
