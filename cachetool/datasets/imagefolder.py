"""`imagefolder:DIR`: a folder of images, in class directories or flat."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cachetool.datasets.base import SPLIT_NAMES, FileDataset, listed, slug_of
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from cachetool.datasets.decoding import Exif

EXTENSIONS = (
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Endings of the files taken for images, in any case; all other files are passed over."""


MOST_FOLDERS = 100
"""Folders in each other that are looked into."""


class ImageFolder(FileDataset):
    """Images below a folder; the directories in it are the classes, sorted by name; without any, no labels.

    Hidden files and folders (a leading dot) are passed over; symbolic links are followed. Raises `DatasetError` for a
    folder without images, images beside class directories, class directories without images, and directories that are
    splits rather than classes.
    """

    kind = "classification"

    def __init__(self, name: str, root: Path, *, exif: Exif = "ignored") -> None:
        self.name, self.root, self.exif = name, root, exif
        self.family, self.slug = "imagefolder", slug_of("imagefolder", root)
        self.image_ids = find_images(root)
        self._labels: tuple[int, ...] | None = None
        classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not self.image_ids:
            raise DatasetError(f"{root} holds no images: expected files ending in {', '.join(EXTENSIONS)}")
        if not any("/" in image_id for image_id in self.image_ids):
            return
        self._check(classes)
        self.class_names = tuple(classes)
        number = {class_name: index for index, class_name in enumerate(classes)}
        self._labels = tuple(number[image_id.split("/", 1)[0]] for image_id in self.image_ids)

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Index of each image's class directory among the sorted directories; None in a flat folder."""
        return self._labels

    def _check(self, classes: list[str]) -> None:
        if splits := [class_name for class_name in classes if class_name.lower() in SPLIT_NAMES]:
            raise DatasetError(
                f"{self.root} holds splits, not classes: {', '.join(splits)}. Name one of them: "
                + " or ".join(f"imagefolder:{self.root}#{split}" for split in splits)
            )
        if loose := [image_id for image_id in self.image_ids if "/" not in image_id]:
            raise DatasetError(
                f"{self.root} holds class directories, but also images of no class: move them.{listed(loose)}"
            )
        found = {image_id.split("/", 1)[0] for image_id in self.image_ids}
        if empty := [class_name for class_name in classes if class_name not in found]:
            raise DatasetError(
                f"class directories without images in {self.root}; they would shift the labels: remove or fill them."
                f"{listed(empty)}"
            )


def find_images(root: Path) -> tuple[str, ...]:
    """Return the POSIX paths, relative to `root` and sorted, of all images below it.

    Raises `DatasetError` for names that are not valid Unicode, links that lead in a circle, and unreadable folders.
    """
    found: list[str] = []

    def visit(folder: str, prefix: str, above: frozenset[str]) -> None:
        if len(above) > MOST_FOLDERS:
            raise DatasetError(f"more than {MOST_FOLDERS} folders lie in each other at {folder}: name one of them")
        real = os.path.realpath(folder)
        if real in above:
            raise DatasetError(f"symbolic links lead in a circle at {folder}: remove the link to {real}")
        try:
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            raise DatasetError(f"cannot list the folder {folder}: {error.strerror or error}") from error
        for entry in entries:
            if entry.is_dir():
                visit(entry.path, f"{prefix}{entry.name}/", above | {real})
            elif entry.name.lower().endswith(EXTENSIONS):
                found.append(prefix + entry.name)

    visit(str(root), "", frozenset())
    if undecodable := [image_id for image_id in found if not image_id.isascii() and not is_unicode(image_id)]:
        raise DatasetError(
            f"file names below {root} that are not valid UTF-8, and so cannot name images in a store: rename them."
            f"{listed(ascii(image_id) for image_id in undecodable)}"
        )
    return tuple(sorted(found))


def is_unicode(text: str) -> bool:
    """Whether a name that the system gave is valid UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
