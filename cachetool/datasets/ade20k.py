"""`ade20k`: the scene parsing benchmark of 2016, ADEChallengeData2016."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cachetool.datasets.annotated import MaskedDataset
from cachetool.datasets.base import IGNORE, listed
from cachetool.datasets.imagefolder import find_images
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = 150
_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(MaskedDataset):
    """Images in images/<training|validation> with masks in annotations/: 0 = other, 1 to 150 = the classes.

    Other becomes 255 (ignored) and the classes become 0 to 149, as the benchmark scores them. Class names come from
    objectInfo150.txt where it is there. `root` is ADEChallengeData2016 or the folder above it. Raises `DatasetError`
    naming every image without a mask.
    """

    def __init__(self, name: str, root: Path, split: str, slug: str) -> None:
        self.name, self.family, self.slug = name, slug, slug
        self.root = root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root
        folder = _FOLDERS[split]
        for part in ("images", "annotations"):
            if not (self.root / part / folder).is_dir():
                raise DatasetError(f"{self.root} lacks {part}/{folder} of ADEChallengeData2016")
        self.image_ids = tuple(f"images/{folder}/{path}" for path in find_images(self.root / "images" / folder))
        if not self.image_ids:
            raise DatasetError(f"{self.root / 'images' / folder} holds no images")
        paths = [self.mask_path(index) for index in range(len(self))]
        if missing := [path for path in paths if not path.is_file()]:
            raise DatasetError(f"images of {self.root} without a mask:{listed(missing)}")
        self.mask_names = _class_names(self.root / "objectInfo150.txt")

    def mask_path(self, index: int) -> Path:
        """Return the mask file of an image."""
        image = self.path(index)
        return self.root / "annotations" / image.parent.name / f"{image.stem}.png"

    def classes_of(self, stored: NDArray[np.uint8], source: str) -> NDArray[np.uint8]:
        """Turn 1 to 150 into 0 to 149, and 0 (other) into 255. Raises `DatasetError` for values beyond."""
        if beyond := [int(value) for value in np.unique(stored) if value > CLASSES]:
            raise DatasetError(
                f"mask {source} holds values {', '.join(map(str, beyond))}; expected 0 (other) and 1 to {CLASSES}"
            )
        return np.where(stored == 0, np.uint8(IGNORE), stored - np.uint8(1))


def _class_names(file: Path) -> tuple[str, ...]:
    """Read the last column of objectInfo150.txt (the first of several names), or number the classes."""
    if not file.is_file():
        return tuple(f"class {number}" for number in range(1, CLASSES + 1))
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    names = tuple(row[-1].split(",")[0].strip() for row in rows)
    if len(names) != CLASSES:
        raise DatasetError(f"{file} names {len(names)} classes, expected {CLASSES} after a line of titles")
    return names
