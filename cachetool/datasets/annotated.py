"""What the segmentation sets share: a mask file beside each image, read and checked against image and classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from cachetool.datasets.base import IGNORE, FileDataset
from cachetool.datasets.decoding import open_image, refusing
from cachetool.errors import DatasetError, ImageError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class MaskedDataset(FileDataset):
    """A data set whose images have an 8-bit mask file each."""

    kind = "segmentation"
    mask_names: tuple[str, ...]

    @abstractmethod
    def mask_path(self, index: int) -> Path:
        """Return the mask file of an image."""

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """File of each image's mask, (image,)."""
        return tuple(self.mask_path(index) for index in range(len(self)))

    def classes_of(self, stored: NDArray[np.uint8], source: str) -> NDArray[np.uint8]:
        """Turn stored mask values into classes from 0 and 255 for ignored; most sets store them so already."""
        return stored

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Class of every pixel, (row, column) at the image's own size, 255 = not annotated.

        Raises `ImageError` for a mask that cannot be read, `DatasetError` for one that does not fit image or classes.
        """
        path = self.mask_path(index)
        try:
            data = read_regular(path)
        except OSError as error:
            raise ImageError(f"cannot read mask {path}: {error.strerror or error}") from error
        values = self.classes_of(mask_values(data, str(path)), str(path))
        check_mask(values, str(path), self.mask_names, self.describe(index), self.size(index))
        return values


def mask_values(data: bytes, source: str) -> NDArray[np.uint8]:
    """Read the values (row, column) of an 8-bit greyscale or palette image; the colours of a palette are not applied.

    Raises `ImageError` where it cannot be read and `DatasetError` where it holds colours; both name `source`.
    """
    with refusing(f"mask {source}"):
        image = open_image(data, f"mask {source}")
        values, mode = np.array(image), image.mode
    if mode not in ("L", "P"):
        raise DatasetError(
            f"mask {source} has pixels of mode {mode}; expected 8-bit class indices (greyscale or palette), not colours"
        )
    return values


def check_mask(
    values: NDArray[np.uint8], mask: str, mask_names: tuple[str, ...], image: str, size: tuple[int, int]
) -> None:
    """Raise `DatasetError` where a mask (row, column) differs in size from its image or holds unknown classes."""
    height, width = values.shape
    if (width, height) != size:
        raise DatasetError(
            f"mask {mask} is {width} x {height} pixels, but its image {image} {size[0]} x {size[1]}: "
            "both must have the same size"
        )
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if beyond := [int(value) for value in present if value >= len(mask_names) and value != IGNORE]:
        raise DatasetError(
            f"mask {mask} holds values {', '.join(map(str, beyond))}; there are {len(mask_names)} classes "
            f"(0 to {len(mask_names) - 1}) and {IGNORE} for pixels to ignore"
        )
