"""How many images a forward pass takes where the user names no number."""

from __future__ import annotations

import pytest
import torch

from cachetool.backbones import default_batch_size, load

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("tiny-reg", 32),  # 69 tokens: never too much
        ("timm:vit_tiny_patch16_224", 16),  # 197 tokens x 768 features x 4 bytes = 0.58 MiB an image
        ("timm:vit_small_patch14_reg4_dinov2", 8),  # at 224 pixels 261 x 1536 x 4 = 1.53 MiB
    ],
)
def test_the_widest_activation_of_a_pass_stays_in_memory_that_is_kept(name: str, images: int) -> None:
    backbone = load(name, image_size=None if name == "tiny-reg" else 224, random_weights_seed=0)
    assert default_batch_size(backbone, torch.device("cpu")) == images


def test_widest_activation_is_what_a_hook_sees() -> None:
    backbone = load("timm:vit_tiny_patch16_224", random_weights_seed=0)
    seen: list[int] = []
    for module in backbone.model.blocks[-1].modules():
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.nbytes))
    with torch.inference_mode():
        backbone.run(torch.zeros(1, 197, 192), 11, 12)
    images = default_batch_size(backbone, torch.device("cpu"))
    assert images * max(seen) <= 16 * MEBIBYTE < 2 * images * max(seen)


@pytest.mark.parametrize(
    ("device", "image_size", "images"),
    [
        ("cuda", 224, 128),  # 1.53 MiB an image: 196 MiB
        ("cuda", 518, 32),  # 1,374 tokens x 1536 x 4 = 8.05 MiB: 64 would take 515 MiB
        ("mps", 224, 32),
        ("mps", 1036, 8),  # 5,481 tokens: 32.1 MiB an image, and 16 would take 514 MiB
    ],
)
def test_other_devices_take_more(device: str, image_size: int, images: int) -> None:
    backbone = load("timm:vit_small_patch14_reg4_dinov2", image_size=image_size, random_weights_seed=0)
    assert default_batch_size(backbone, torch.device(device)) == images
