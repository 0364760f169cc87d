"""What nnsight is asked for, in its own terms; imported only where it is installed.

A trace takes its body from the source of the file, so that each is written out here as its documentation shows it.
"""

from __future__ import annotations

from typing import Any

import nnsight
import torch


def all_states(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Every state of a batch, (image, token, channel) each."""
    wrapped = nnsight.NNsight(model)
    with torch.inference_mode(), wrapped.trace(images):
        states = nnsight.save([])
        states.append(wrapped.blocks[0].input)
        for block in wrapped.blocks:
            states.append(block.output)
    return states


def edited_forward(model: Any, images: torch.Tensor, values: dict[int, torch.Tensor], tokens: slice) -> torch.Tensor:
    """The last state of a full forward pass whose tokens are replaced at some states, by state."""
    wrapped = nnsight.NNsight(model)
    with torch.inference_mode(), wrapped.trace(images):
        for layer, value in values.items():
            wrapped.blocks[layer - 1].output[:, tokens] = value
        last = nnsight.save(wrapped.blocks[len(model.blocks) - 1].output)
    return last  # noqa: RET504  a trace is run when its body ends


def edited_from_state(
    model: Any, state: torch.Tensor, values: dict[int, torch.Tensor], tokens: slice, image_size: int
) -> torch.Tensor:
    """The same from a stored state, the first of `values`: the blocks before it are skipped, the embedding is not."""
    wrapped = nnsight.NNsight(model)
    first = min(values)
    state[:, tokens] = values[first]
    later = {layer: value for layer, value in values.items() if layer > first}
    with torch.inference_mode(), wrapped.trace(torch.zeros(len(state), 3, image_size, image_size)):
        for block in wrapped.blocks[:first]:
            block.skip(state)
        for layer, value in later.items():
            wrapped.blocks[layer - 1].output[:, tokens] = value
        last = nnsight.save(wrapped.blocks[len(model.blocks) - 1].output)
    return last  # noqa: RET504  a trace is run when its body ends
