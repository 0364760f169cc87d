"""The models with names of their own, as a table: nothing here imports torch, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDED = "tiny-reg"
"""Name of the model that is part of the package."""

DINO_IMAGE_SIZE = 224
"""Side of the input of the named DINO models, in pixels; timm's own values are 518 (DINOv2) and 256 (DINOv3)."""


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models."""

    name: str
    """The name to use."""
    timm_name: str
    """timm's name with the tag of the weights; empty for the embedded model."""
    parameters: int
    """Number of parameters without a classification head, at the default image size."""
    depth: int
    """Number of blocks."""
    channels: int
    """Width of the residual stream."""
    registers: int
    """Number of register tokens."""
    image_size: int
    """Default side of the input, in pixels."""
    description: str
    """What the model is, in a few words."""
    available_here: bool = False
    """Whether its weights are on this machine."""


_SIZES = {
    "s": ("small", "ViT-S"), "b": ("base", "ViT-B"), "l": ("large", "ViT-L"), "g": ("giant", "ViT-g"),
    "s+": ("small_plus", "ViT-S+"), "h+": ("huge_plus", "ViT-H+"), "7b": ("7b", "ViT-7B"),
}  # fmt: skip


def _dinov2(size: str, parameters: int, depth: int, channels: int, *, registers: bool) -> ModelEntry:
    long, short = _SIZES[size]
    return ModelEntry(
        name=f"dinov2-reg-{size}" if registers else f"dinov2-{size}",
        timm_name=f"vit_{long}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m",
        parameters=parameters,
        depth=depth,
        channels=channels,
        registers=4 if registers else 0,
        image_size=DINO_IMAGE_SIZE,
        description=f"DINOv2 {short}/14{' with 4 registers' if registers else ', no registers'}",
    )


def _dinov3(size: str, parameters: int, depth: int, channels: int) -> ModelEntry:
    long, short = _SIZES[size]
    return ModelEntry(
        name=f"dinov3-{size}",
        timm_name=f"vit_{long}_patch16_dinov3.lvd1689m",
        parameters=parameters,
        depth=depth,
        channels=channels,
        registers=4,
        image_size=DINO_IMAGE_SIZE,
        description=f"DINOv3 {short}/16 with 4 registers, rotary positions",
    )


NAMED_MODELS = (
    _dinov2("s", 21_628_800, 12, 384, registers=False),
    _dinov2("b", 85_724_928, 12, 768, registers=False),
    _dinov2("l", 303_227_904, 24, 1024, registers=False),
    _dinov2("g", 1_134_769_664, 40, 1536, registers=False),
    _dinov2("s", 21_629_952, 12, 384, registers=True),
    _dinov2("b", 85_727_232, 12, 768, registers=True),
    _dinov2("l", 303_230_976, 24, 1024, registers=True),
    _dinov2("g", 1_134_774_272, 40, 1536, registers=True),
    _dinov3("s", 21_586_944, 12, 384),
    _dinov3("s+", 28_683_264, 12, 384),
    _dinov3("b", 85_641_216, 12, 768),
    _dinov3("l", 303_079_424, 24, 1024),
    _dinov3("h+", 840_509_440, 32, 1280),
    _dinov3("7b", 6_716_030_976, 40, 4096),
    ModelEntry(EMBEDDED, "", 1_367_424, 12, 96, 4, 64, "embedded: a small DINO-style ViT/8 with 4 registers"),
)
"""Models with names of their own, in the order in which they are shown."""
