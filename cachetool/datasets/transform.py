"""From a decoded image to the model's input, and where each pixel of it came from.

Pixels equal those of torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` (which timm composes) bit for
bit. Positions are in centre coordinates: the centre of the top left pixel is (0, 0), and x runs to the right.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image

from cachetool.errors import ImageError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Crop = Literal["center", "none"]
"""``center``: shorter side to ``floor(size / crop_fraction)``, then the central square; ``none``: all to ``size``."""

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Affine:
    """An exact map between pixels of the decoded image and pixels of the transformed one: ``scale * xy + offset``."""

    scale: tuple[float, float]
    """Transformed pixels per original pixel, along x and y."""
    offset: tuple[float, float]
    """Transformed position (x, y) of the centre of the original's top left pixel."""

    def forward(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map original positions (..., xy) to transformed ones."""
        return np.asarray(points, dtype=np.float64) * self.scale + self.offset

    def inverse(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map transformed positions (..., xy) to original ones."""
        return (np.asarray(points, dtype=np.float64) - self.offset) / self.scale


@dataclass(frozen=True)
class Transform:
    """Resizing, cropping and normalising, as it enters the key of a cache."""

    size: int
    """Side of the square input, pixels."""
    crop: Crop
    crop_fraction: float
    """Share of the resized image's shorter side that the central square keeps, in (0, 1]; unused without a crop."""
    interpolation: str
    """One of Pillow's filters by name; all but ``nearest`` widen with the reduction (antialiasing)."""
    mean: tuple[float, float, float]
    """Mean of each colour, of values from 0 to 1, that is subtracted."""
    std: tuple[float, float, float]
    """Standard deviation of each colour, of values from 0 to 1, that divides the difference."""

    def __post_init__(self) -> None:
        problems = []
        if self.size < 1:
            problems.append(f"size is at least 1 pixel, got {self.size}")
        if self.crop not in ("center", "none"):
            problems.append(f"crop is 'center' or 'none', got {self.crop!r}")
        if not 0.0 < self.crop_fraction <= 1.0:
            problems.append(f"crop_fraction lies above 0 and is at most 1, got {self.crop_fraction}")
        if self.interpolation not in _FILTERS:
            problems.append(f"interpolation is one of {', '.join(_FILTERS)}, got {self.interpolation!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std, default=0.0) <= 0.0:
            problems.append(f"mean and std have 3 values and std is positive, got {self.mean} and {self.std}")
        if problems:
            raise UnknownNameError(f"cannot build the image transform: {'; '.join(problems)}")

    def to_json(self) -> dict[str, Any]:
        """Return everything that decides the pixels, for the key of a cache."""
        fields = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if self.crop == "none":  # without a crop the fraction changes nothing and must not split a cache in two
            del fields["crop_fraction"]
        return fields

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the normalised input (rgb, row, column), float32, of an RGB image of any size."""
        resized, (left, top) = self._resized_size(*image.size), self._crop_origin(*image.size)
        if resized != image.size:
            image = image.resize(resized, _FILTERS[self.interpolation])
        pixels = np.asarray(image)[top : top + self.size, left : left + self.size]
        return np.stack([np.take(self._values[colour], pixels[:, :, colour]) for colour in range(3)])

    def check(self, width: int, height: int, source: str) -> None:
        """Raise `ImageError` naming `source` where resizing a `width` x `height` image would exhaust the memory."""
        resized, limit = self._resized_size(width, height), Image.MAX_IMAGE_PIXELS
        if limit is not None and resized[0] * resized[1] > limit:
            raise ImageError(
                f"{source} is too elongated: its {width} x {height} pixels would be resized to "
                f"{resized[0]} x {resized[1]} before the crop; crop it first"
            )

    def geometry(self, width: int, height: int) -> Affine:
        """Return where the pixels of a `width` x `height` image go."""
        resized, origin = self._resized_size(width, height), self._crop_origin(width, height)
        scale_x, scale_y = resized[0] / width, resized[1] / height
        # Pillow maps edges to edges, so half a pixel is added before scaling and taken off after it.
        return Affine((scale_x, scale_y), (0.5 * scale_x - 0.5 - origin[0], 0.5 * scale_y - 0.5 - origin[1]))

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        if self.crop == "none":
            return self.size, self.size
        shorter = math.floor(self.size / self.crop_fraction)
        longer = int(shorter * max(width, height) / min(width, height))
        return (shorter, longer) if width <= height else (longer, shorter)

    def _crop_origin(self, width: int, height: int) -> tuple[int, int]:
        resized = self._resized_size(width, height)
        # torchvision rounds half pixels to even, as Python's `round` does.
        return cast("tuple[int, int]", tuple(round((side - self.size) / 2.0) for side in resized))

    @cached_property
    def _values(self) -> NDArray[np.float32]:
        """Input for each colour and each of the 256 byte values, (rgb, 256): the same divisions, done once."""
        levels = np.arange(256, dtype=np.float32) / np.float32(255.0)
        mean, std = np.asarray(self.mean, dtype=np.float32), np.asarray(self.std, dtype=np.float32)
        return cast("NDArray[np.float32]", (levels[None, :] - mean[:, None]) / std[:, None])
