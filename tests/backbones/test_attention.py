from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import ParallelThingsBlock

from cachetool.errors import UnsupportedModelError


def softmax(scores):
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def capture(module, run):
    """What goes into a module during a run."""
    inputs = []
    handle = module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.inference_mode():
        run()
    handle.remove()
    return inputs[0]


def random_mask(tokens):
    mask = torch.rand(2, 1, tokens, tokens, generator=torch.Generator().manual_seed(4)) < 0.7
    return mask | torch.eye(tokens, dtype=torch.bool)


@pytest.mark.parametrize("masked", [False, True])
def test_probabilities_equal_those_of_the_unfused_model(any_model, wrap, masked):
    backbone = wrap(any_model)
    block = any_model.blocks[1]
    inner = getattr(block, "attn", block)
    if isinstance(block, ParallelThingsBlock) or type(inner).__name__ == "DiffAttention":
        with pytest.raises(UnsupportedModelError, match=type(inner).__name__):
            backbone.attention(torch.randn(2, backbone.layout.tokens, 48), 1)
        return
    state = torch.randn(2, backbone.layout.tokens, 48, generator=torch.Generator().manual_seed(3))
    mask = random_mask(backbone.layout.tokens) if masked else None
    with torch.inference_mode():
        probabilities = backbone.attention(state, 1, attention_mask=mask)
        inner.fused_attn = False
        expected = capture(inner.attn_drop, lambda: backbone.run(state, 1, 2, attention_mask=mask))
    assert probabilities.shape == (2, backbone.heads, backbone.layout.tokens, backbone.layout.tokens)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-6)
    if mask is not None:
        assert not probabilities[~mask.expand_as(probabilities)].any()


def test_probabilities_equal_numpy_in_float64(small_model, wrap):
    backbone = wrap(small_model("vit: registers"))
    state = torch.randn(2, 21, 48)
    attention = backbone.model.blocks[2].attn
    projected = []
    handle = attention.qkv.register_forward_hook(lambda _, __, out: projected.append(out))
    with torch.inference_mode():
        backbone.model.blocks[2](state)
        handle.remove()
        probabilities = backbone.attention(state, 2)
    query, key, _ = projected[0].numpy().astype(np.float64).reshape(2, 21, 3, 3, 16).transpose(2, 0, 3, 1, 4)
    expected = softmax(np.einsum("ihqc,ihkc->ihqk", query, key) / np.sqrt(16))
    np.testing.assert_allclose(probabilities.numpy(), expected, rtol=0, atol=1e-6)


def rotate_dinov3(vectors, rows, columns):
    """Rotary positions as the DINOv3 report states them, in float64; vectors are (image, head, patch, channel)."""
    quarter = vectors.shape[-1] // 4
    periods = 100.0 ** (np.arange(quarter) / quarter)
    centres = [2 * (np.arange(n) + 0.5) / n - 1 for n in (rows, columns)]
    row, column = (axis.ravel() for axis in np.meshgrid(*centres, indexing="ij"))
    angles = 2 * np.pi * np.concatenate([row[:, None] / periods, column[:, None] / periods], axis=1)
    first, second = np.split(vectors, 2, axis=-1)
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)], axis=-1
    )


def test_rotated_probabilities_equal_numpy_in_float64(small_model, wrap):
    backbone = wrap(small_model("eva: dinov3 with biases"))
    state = torch.randn(2, 21, 48)
    block = backbone.model.blocks[1]
    tokens = capture(block.attn, lambda: backbone.run(state, 1, 2)).numpy().astype(np.float64)
    weight = block.attn.qkv.weight.detach().numpy().astype(np.float64)
    bias = np.concatenate([block.attn.q_bias.detach(), np.zeros(48), block.attn.v_bias.detach()])
    query, key, _ = (tokens @ weight.T + bias).reshape(2, 21, 3, 3, 16).transpose(2, 0, 3, 1, 4)
    query, key = (
        np.concatenate([part[:, :, :5], rotate_dinov3(part[:, :, 5:], 4, 4)], axis=2) for part in (query, key)
    )
    expected = softmax(np.einsum("ihqc,ihkc->ihqk", query, key) / np.sqrt(16))
    with torch.inference_mode():
        np.testing.assert_allclose(backbone.attention(state, 1).numpy(), expected, rtol=0, atol=1e-6)
