"""What every data set offers: images in a fixed order, and the annotations that it has."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from cachetool.datasets.decoding import DECODING_RULES, Exif, decode_image, image_size
from cachetool.errors import DatasetError, ImageError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Kind = Literal["classification", "segmentation", "pairs"]
"""The task that a data set was made for; it decides the default crop."""

IGNORE = 255
"""Value of a mask where the class is not annotated; such pixels are neither trained on nor scored."""


@dataclass(frozen=True, eq=False)
class KeypointPair:
    """Two images of one category with the points that correspond to each other."""

    source: int
    """Index of the source image in the data set."""
    target: int
    """Index of the target image in the data set."""
    source_keypoints: NDArray[np.float64]
    """(keypoint, xy) in pixels of the source; the centre of the top left pixel is (0, 0)."""
    target_keypoints: NDArray[np.float64]
    """(keypoint, xy) in pixels of the target, in the order of `source_keypoints`."""
    category: str
    """What both images show."""
    source_box: tuple[float, float, float, float] | None
    """x0, y0, x1, y1 of the object in pixels of the source, where annotated."""
    target_box: tuple[float, float, float, float] | None
    """x0, y0, x1, y1 of the object in pixels of the target, where annotated: the yardstick of PCK."""
    source_size: tuple[int, int]
    """Width and height of the source in pixels."""
    target_size: tuple[int, int]
    """Width and height of the target in pixels."""


class Dataset(ABC):
    """Images in the order of the store, sorted by id, with the labels, masks and keypoint pairs that the set has.

    Opening one lists its files and checks that they fit together; pixels are read by `read_bytes`, `decode` and
    `mask` alone. A data set can be pickled and used from several threads and processes.
    """

    name: str
    """The name as it was typed, e.g. ``imagefolder:photos#val``."""
    slug: str
    """The name as a folder name: no separators, and never shared by two data sets."""
    family: str
    """What stands for the set in the key of a cache: the slug of a named set, or the scheme such as ``imagefolder``.

    Not the place: the images of a set found by its place are identified by their ids and contents alone.
    """
    kind: Kind
    image_ids: tuple[str, ...]
    """POSIX path of each image relative to the data set's root, sorted."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes of `labels`; None where there are no labels."""
    mask_names: tuple[str, ...] | None = None
    """Names of the mask values from 0; None where the set has no masks."""
    exif: Exif = "ignored"
    """Whether the EXIF orientation turns the image. Labels, masks and keypoints refer to the image after it."""

    decodes_in_threads: bool = True
    """Whether threads of one process decode images at the same time; not where Python code draws them."""

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Class index of each image into `class_names`, or None where images have no single class."""
        return None

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """Annotated pairs of images; empty where the set has none."""
        return ()

    @property
    def has_masks(self) -> bool:
        """Whether `mask` gives the class of every pixel."""
        return self.mask_names is not None

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """File of each image's mask, (image,); empty where masks are no files of their own."""
        return ()

    @property
    def default_crop(self) -> Literal["center", "none"]:
        """``center`` for classification; ``none`` where a crop would cut off annotated pixels or keypoints."""
        return "center" if self.kind == "classification" and not self.has_masks else "none"

    @property
    def decoding(self) -> dict[str, str | int]:
        """How bytes become pixels, for the key of a cache: the version of the decoding rules and the use of EXIF."""
        return {"decoding_rules": DECODING_RULES, "exif": self.exif}

    @abstractmethod
    def read_bytes(self, index: int) -> bytes:
        """Return the encoded image, of which the content SHA-256 is taken. Raises `ImageError` naming the file."""

    def decode_bytes(self, data: bytes, index: int) -> Image.Image:
        """Decode bytes from `read_bytes` to RGB; `index` only names the image in an `ImageError`."""
        return decode_image(data, self.describe(index), exif=self.exif)

    def decode(self, index: int) -> Image.Image:
        """Read and decode one image to RGB at its own size. Raises `ImageError` naming the file."""
        return self.decode_bytes(self.read_bytes(index), index)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels of the image as `decode` gives it, from the header of the file alone."""
        return image_size(self.read_bytes(index), self.describe(index), exif=self.exif)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Class of every pixel, (row, column) at the image's own size, 255 = not annotated.

        Raises `DatasetError` where the set has no masks, or where the mask does not fit its image or its classes.
        """
        raise DatasetError(
            f"{self.name} has no masks, so image {self.image_ids[index]} cannot be segmented: "
            "choose a data set with masks, such as segmentation:DIR"
        )

    def describe(self, index: int) -> str:
        """Where an image lies, for messages."""
        return f"{self.name} image {self.image_ids[index]}"

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self)} images>"


class FileDataset(Dataset):
    """A data set whose images are files below one root folder."""

    root: Path

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self.root / self.image_ids[index]

    def read_bytes(self, index: int) -> bytes:
        """Return the file's bytes. Raises `ImageError` naming the file."""
        path = self.path(index)
        try:
            return read_regular(path)
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror or error}") from error

    def describe(self, index: int) -> str:
        """Return the file's path."""
        return str(self.path(index))


def relative_id(text: str) -> str | None:
    """Return a POSIX path relative to a root in its plain form, or None where it leaves the root or is empty."""
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        return None
    return path.as_posix()


def slug_of(kind: str, location: Path, split: str | None = None) -> str:
    """Return a folder name for a data set found by its place: readable, with a digest of kind, place and split."""
    parts = [part for part in location.parts if part != location.anchor]
    # A folder called `val` says nothing without the one it lies in.
    readable = parts[-2:] if len(parts) > 1 and parts[-1].lower() in SPLIT_NAMES else parts[-1:]
    words = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([*readable, *([split] if split else [])])).strip("-.")
    digest = hashlib.sha256("\0".join([kind, location.as_posix(), split or ""]).encode("utf-8", "surrogateescape"))
    return "-".join(filter(None, [words[:60], digest.hexdigest()[:8]]))


SPLIT_NAMES = frozenset({"train", "training", "trn", "val", "valid", "validation", "test", "testing", "trainval"})
"""Folder names that mean a part of a data set rather than a class or the set itself."""


def listed(offenders: Iterable[object], limit: int = 20) -> str:
    """Return offenders as text, one a line, the first `limit` of them and how many more there are."""
    texts = [str(offender) for offender in offenders]
    more = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return "".join(f"\n  {text}" for text in [*texts[:limit], *more])


def labels_of(categories: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Turn one category an image into labels and their class names, sorted."""
    names = sorted(set(categories))
    number = {name: index for index, name in enumerate(names)}
    return tuple(number[category] for category in categories), tuple(names)
