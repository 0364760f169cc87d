"""Random views of a batch of images: a small change of geometry, a large change of colour, all images at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cachetool.embedded.architecture import MEAN, STD

_ZOOM = 1.25  # at most, in or out
_SHIFT = 0.18  # of the image side, either way
_ROTATION = math.radians(8.0)


def random_geometry(count: int, random: torch.Generator, strength: float = 1.0) -> Tensor:
    """Draw affine maps (image, 2, 3) from output to input coordinates: zoom, shift and a slight rotation.

    ``strength`` scales all three. There is no mirror among them, as it would swap what left and right mean.
    """
    zoom = (strength * math.log(_ZOOM) * torch.empty(count).uniform_(-1, 1, generator=random)).exp()
    angle = strength * _ROTATION * torch.empty(count).uniform_(-1, 1, generator=random)
    # In affine maps the picture reaches from -1 to 1, so that a share of its side counts twice.
    shift = strength * 2 * _SHIFT * torch.empty(count, 2).uniform_(-1, 1, generator=random)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    return torch.cat([linear, shift[:, :, None]], 2)


def warp(images: Tensor, geometry: Tensor, mode: str = "bilinear") -> Tensor:
    """Resample images (image, channel, row, column) by affine maps (image, 2, 3); what lies outside is mirrored in."""
    grid = functional.affine_grid(geometry, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, random: torch.Generator) -> Tensor:
    """Colour images (image, channel, row, column) with values from 0 to 1 at random, and normalise them.

    Contrast, brightness and a gain per channel always change; channels change places in half of the images; a fifth
    lose their colour.
    """
    count = len(images)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(count, channels, 1, 1).uniform_(low, high, generator=random)

    orders = torch.rand(count, 3, generator=random).argsort(1)
    swapped = torch.rand(count, generator=random) < 0.5
    orders = torch.where(swapped[:, None], orders, torch.arange(3))
    images = images.gather(1, orders[:, :, None, None].expand_as(images))
    grey = images.mean(1, keepdim=True)
    saturation = torch.where(draw(0.0, 1.0) < 0.2, 0.0, draw(0.5, 1.3))
    images = grey + (images - grey) * saturation
    middle = images.mean((1, 2, 3), keepdim=True)
    images = ((images - middle) * draw(0.65, 1.35) + middle) * draw(0.85, 1.15, 3) + draw(-0.12, 0.12)
    return normalise(images.clamp(0.0, 1.0))


def normalise(images: Tensor) -> Tensor:
    """Bring images (image, channel, row, column) with values from 0 to 1 to the scale that the model expects."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images - mean) / std


def to_float(images: Tensor) -> Tensor:
    """Turn pixels, uint8 (image, row, column, rgb), into values from 0 to 1, float32 (image, channel, row, column)."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
