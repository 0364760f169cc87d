"""The architecture of ``tiny-reg`` and the constants of its input, shared by training and by the loader."""

from __future__ import annotations

from typing import Final

from timm.models.vision_transformer import VisionTransformer

SCENE_SIZE: Final = 128
"""Side of a scene of ``shapes`` before it is resized (Pillow, bicubic) for the model, in pixels."""

IMAGE_SIZE: Final = 64
"""Side of the model's input, in pixels."""

PATCH_SIZE: Final = 8
"""Side of a patch, in pixels of the model's input."""

MEAN: Final = (0.5, 0.5, 0.5)
"""Mean per colour channel that the input is normalised with, for values from 0 to 1."""

STD: Final = (0.25, 0.25, 0.25)
"""Standard deviation per colour channel that the input is normalised with, for values from 0 to 1."""


def build_tiny_reg() -> VisionTransformer:
    """Build the untrained model: normalised images (image, rgb, row, column) to final [CLS] tokens (image, channel).

    It has 12 blocks, 96 channels, 3 heads, a [CLS] token, 4 registers and 8 x 8 patches; only patches have positions.
    """
    return VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=96,
        depth=12,
        num_heads=3,
        mlp_ratio=4.0,
        qkv_bias=True,
        class_token=True,
        reg_tokens=4,
        no_embed_class=True,
        num_classes=0,
        global_pool="token",
    )
