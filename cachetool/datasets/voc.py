"""`voc2012`: the segmented part of PASCAL VOC 2012."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetool.datasets.annotated import MaskedDataset
from cachetool.datasets.base import listed
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Names of the mask values from 0; the value 255 marks object borders and pixels hard to tell."""


class VOC(MaskedDataset):
    """Images listed in ImageSets/Segmentation/<split>.txt with their palette masks in SegmentationClass.

    `root` is the folder that holds JPEGImages, or one above it (VOCdevkit, or what holds that). Raises `DatasetError`
    naming every listed image or mask that is not there.
    """

    mask_names = CLASS_NAMES

    def __init__(self, name: str, root: Path, split: str, slug: str) -> None:
        self.name, self.family, self.slug = name, slug, slug
        places = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
        listing = f"ImageSets/Segmentation/{split}.txt"
        self.root = next((place for place in places if (place / listing).is_file()), root)
        try:
            stems = sorted((self.root / listing).read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{root} lacks {listing} of VOCdevkit/VOC2012: {error}") from error
        self.image_ids = tuple(f"JPEGImages/{stem}.jpg" for stem in stems)
        if not stems:
            raise DatasetError(f"{self.root / listing} names no images")
        files = [*self.image_ids, *(f"SegmentationClass/{stem}.png" for stem in stems)]
        if missing := [file for file in files if not (self.root / file).is_file()]:
            raise DatasetError(f"{listing} names images whose files are not in {self.root}:{listed(missing)}")

    def mask_path(self, index: int) -> Path:
        """Return the mask file of an image."""
        return self.root / "SegmentationClass" / f"{self.path(index).stem}.png"
