"""Without initial weights, a model is built as it is with them."""

from __future__ import annotations

import pytest
import timm
import torch

from cachetool.backbones.uninitialised import Uninitialised


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3.lvd1689m"])
def test_the_architecture_is_the_same(architecture: str) -> None:
    with torch.device("meta"):
        expected = timm.create_model(architecture, pretrained=False)
        with Uninitialised():
            found = timm.create_model(architecture, pretrained=False)
    assert repr(found) == repr(expected)
    for (name, one), (other_name, other) in zip(
        [*found.named_parameters(), *found.named_buffers()],
        [*expected.named_parameters(), *expected.named_buffers()],
        strict=True,
    ):
        assert (name, one.shape, one.dtype, one.is_meta) == (other_name, other.shape, other.dtype, other.is_meta)


def test_tensors_with_values_are_filled_as_ever() -> None:
    with Uninitialised():
        assert torch.empty(3).fill_(2).tolist() == [2, 2, 2]
        assert torch.ones(2).mul_(3).add_(1).tolist() == [4, 4]
