"""Architectures without memory for their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timm
import torch

from cachetool.backbones.uninitialised import Uninitialised
from cachetool.embedded.architecture import build_tiny_reg

if TYPE_CHECKING:
    from cachetool.backbones.configuration import Architecture


def build(architecture: Architecture, image_size: int | None = None, classes: int | None = None) -> Any:
    """Build an architecture without memory for its weights, at timm's own image size and classes unless given."""
    with torch.device("meta"), Uninitialised():
        if not architecture.timm_name:
            model = build_tiny_reg()
            if image_size is not None:
                model.set_input_size(img_size=(image_size, image_size))
            return model
        chosen: dict[str, Any] = {"img_size": image_size, "num_classes": classes}
        arguments = {name: value for name, value in chosen.items() if value is not None}
        return timm.create_model(architecture.timm_name, pretrained=False, **architecture.arguments, **arguments)
