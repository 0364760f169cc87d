"""Data sets that are named by their place: a folder, files, or a repository of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetool.datasets import hugging_face_rows
from cachetool.datasets.hdf5 import HDF5Images
from cachetool.datasets.hugging_face import HuggingFace
from cachetool.datasets.imagefolder import ImageFolder
from cachetool.datasets.pairs import KeypointPairs
from cachetool.datasets.roots import absolute_path
from cachetool.datasets.segmentation import Segmentation
from cachetool.datasets.webdataset import WebDataset, find_tars
from cachetool.errors import MissingDataError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from cachetool.datasets.base import Dataset, Kind
    from cachetool.datasets.decoding import Exif


@dataclass(frozen=True)
class Form:
    """A way to name data sets by their place."""

    placeholders: tuple[str, ...]
    """What stands for the place in what to type."""
    kind: Kind | None
    """The task that the sets are made for; None where that depends on the files."""
    description: str
    """What is expected there."""
    is_file: bool = False
    """Whether the place is a file."""
    package: str | None = None
    """A package of an extra that is needed."""

    def names(self, prefix: str) -> tuple[str, ...]:
        """Return what to type, capitals standing for the place."""
        return tuple(f"{prefix}:{placeholder}" for placeholder in self.placeholders)


BY_PLACE: dict[str, Form] = {
    "imagefolder": Form(("DIR",), "classification", "images of your own, in class directories or flat"),
    "segmentation": Form(("DIR",), "segmentation", "images/, masks/ (255 = ignored) and classes.txt"),
    "pairs": Form(("DIR",), "pairs", "pairs.jsonl with corresponding keypoints, and its images"),
    "hdf5": Form(("FILE",), None, "images, and label or masks, in one HDF5 file", is_file=True),
    "webdataset": Form(("TARS",), "classification", "a folder or pattern of .tar files with images and .cls labels"),
    "hf": Form(
        ("DIR", "REPO"), "classification", "a data set of Hugging Face, in a folder or on the hub (needs the extra hf)",
        package="datasets",
    ),
}  # fmt: skip
"""Forms by what stands before the colon."""


def absolute_name(name: str) -> str:
    """Return the name of a data set so that it means the same from any current folder."""
    prefix, colon, place = name.partition(":")
    if not colon or prefix not in BY_PLACE or not place.strip():
        return name
    if prefix == "hf":
        folder = hugging_face_rows.parse(name, place).folder
        front = place if absolute_path(place) == folder else place.partition("#")[0].partition("?")[0]
        return name if folder is None else f"hf:{folder}{place.removeprefix(front)}"
    return f"{prefix}:{absolute_path(place)}"


def open_by_place(name: str, prefix: str, place: str, exif: Exif) -> Dataset:
    """Open a data set of `BY_PLACE`; raises as `cachetool.datasets.open_dataset` does."""
    form = BY_PLACE[prefix]
    if not place.strip():
        raise UnknownNameError(f"{name} names no place: write {' or '.join(form.names(prefix))}")
    if prefix == "hf":
        return HuggingFace(name, hugging_face_rows.parse(name, place))
    path, split = absolute_path(place), None
    if prefix == "webdataset":
        return WebDataset(name, path, find_tars(name, path))
    # A path may itself hold a `#`: the whole is tried first.
    if not path.exists() and "#" in place:
        front, _, split = place.rpartition("#")
        path = absolute_path(front)
    if not (path.is_file() if form.is_file else path.is_dir()):
        raise MissingDataError(
            f"{name}: there is no {'file' if form.is_file else 'folder'} {path}.\n"
            f"{form.names(prefix)[0]} expects {form.description}; relative paths start at the current folder."
        )
    match prefix:
        case "imagefolder":
            return ImageFolder(name, _split_folder(name, path, split), exif=exif)
        case "segmentation":
            return Segmentation(name, path, split)
    if split is not None:
        raise UnknownNameError(f"{name}: {form.names(prefix)[0]} has no splits, so nothing may follow `#`")
    return HDF5Images(name, path) if prefix == "hdf5" else KeypointPairs(name, path)


def _split_folder(name: str, folder: Path, split: str | None) -> Path:
    if split is None:
        return folder
    splits = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if split not in splits:
        raise UnknownNameError(
            f"{name}: no folder {split!r} in {folder}; it has {', '.join(splits[:20]) or 'no folders'}"
            f"{', ...' if len(splits) > 20 else ''}"
        )
    return folder / split
