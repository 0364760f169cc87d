"""The names of data sets, and opening one by its name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cachetool.datasets.ade20k import ADE20K
from cachetool.datasets.by_place import BY_PLACE, open_by_place
from cachetool.datasets.imagenet import ImageNet
from cachetool.datasets.pf_willow import open_pf_willow
from cachetool.datasets.roots import find_root, require_root
from cachetool.datasets.shapes import SHAPES_SPLITS, Shapes
from cachetool.datasets.spair import SPair
from cachetool.datasets.voc import VOC
from cachetool.errors import DatasetError, UnknownNameError
from cachetool.files import expanded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachetool.datasets.base import Dataset, Kind
    from cachetool.datasets.decoding import Exif


@dataclass(frozen=True)
class DatasetEntry:
    """One line of the list of data sets."""

    name: str
    """What to type; capitals stand for a place."""
    kind: Kind | None
    """The task the set was made for; None where that depends on the files."""
    description: str
    splits: tuple[str, ...]
    """What may follow ``#``, the default first; empty where a set has one part, or where its folders decide."""
    root: Path | None
    """The folder of a named set, where it was found."""
    looked: tuple[str, ...]
    """The places that were looked at for a named set, the last one being `root` where it was found."""
    available: bool
    """Whether it can be opened here; for names with a place, whether the package that they need is installed."""


@dataclass(frozen=True)
class _Named:
    kind: Kind
    description: str
    layout: str
    splits: tuple[str, ...]
    open: Callable[[str, Path, str, str], Dataset]  # name, root, split, slug


_NAMED: dict[str, _Named] = {
    "imagenet-val": _Named(
        "classification",
        "ImageNet-1k validation: 50 000 photographs, 1000 classes",
        "class directories n01440764/ ..., or ILSVRC2012_val_*.JPEG with the development kit ILSVRC2012_devkit_t12/",
        (),
        lambda name, root, _, slug: ImageNet(name, root, slug),
    ),
    "imagenet-train": _Named(
        "classification",
        "ImageNet-1k training: 1.28 million photographs, 1000 classes",
        "class directories n01440764/ ...",
        (),
        lambda name, root, _, slug: ImageNet(name, root, slug),
    ),
    "ade20k": _Named(
        "segmentation",
        "ADE20K (scene parsing 2016): 20 210 + 2000 photographs, 150 classes",
        "ADEChallengeData2016 with images/ and annotations/, each with training/ and validation/",
        ("val", "train"),
        ADE20K,
    ),
    "voc2012": _Named(
        "segmentation",
        "PASCAL VOC 2012: 1464 + 1449 segmented photographs, 20 classes and background",
        "VOCdevkit/VOC2012 with JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/",
        ("val", "train", "trainval"),
        VOC,
    ),
    "spair-71k": _Named(
        "pairs",
        "SPair-71k: 1800 photographs, 70 958 pairs with keypoints, 18 categories",
        "SPair-71k with JPEGImages/, PairAnnotation/ and Layout/",
        ("test", "val", "trn"),
        SPair,
    ),
    "pf-willow": _Named(
        "pairs",
        "PF-WILLOW: 100 photographs, 900 pairs with 10 keypoints, 10 categories",
        "pairs.jsonl with its images, or PF-dataset-WILLOW as published (car(G)/ ... with .png and .mat files)",
        (),
        lambda name, root, _, slug: open_pf_willow(name, root, slug),
    ),
}

_SHAPES_DESCRIPTION = "embedded: drawn scenes, 10 classes, exact masks and keypoints; no files needed"


def catalogue() -> list[DatasetEntry]:
    """Return all names of data sets, with what is available here. Raises `DatasetError` for an unusable TOML file."""
    entries = [
        DatasetEntry("shapes", "classification", _SHAPES_DESCRIPTION, tuple(SHAPES_SPLITS), None, (), available=True)
    ]
    for name, named in _NAMED.items():
        root, looked = find_root(name, _NAMED)
        entries.append(
            DatasetEntry(name, named.kind, named.description, named.splits, root, looked, available=root is not None)
        )
    for prefix, form in BY_PLACE.items():
        for name in form.names(prefix):
            available = form.package is None or find_spec(form.package) is not None
            entries.append(DatasetEntry(name, form.kind, form.description, (), None, (), available=available))
    return entries


def open_dataset(name: str, *, exif: Exif = "ignored") -> Dataset:
    """Open a data set by name: ``imagenet-val``, ``ade20k#train``, ``imagefolder:DIR``, ``hf:REPO``, ``shapes``, ...

    `exif` = ``applied`` turns the images of an ``imagefolder:`` by their EXIF orientation. Raises `UnknownNameError`
    for a name or split that does not exist, `MissingDataError` for files that are not there, and `DatasetError` for
    files that contradict their layout.
    """
    prefix, colon, place = name.partition(":")
    if exif == "applied" and prefix != "imagefolder":
        raise DatasetError(
            f"{name}: only images of imagefolder:DIR can be turned by their EXIF orientation; "
            "the annotations of other data sets refer to stored pixels"
        )
    if colon and prefix in BY_PLACE:
        return open_by_place(name, prefix, place, exif)
    base, _, split = name.partition("#")
    if base == "shapes":
        split = _choose(name, split, tuple(SHAPES_SPLITS))
        return Shapes(name, split, _slug(base, split, tuple(SHAPES_SPLITS)))
    if base not in _NAMED:
        raise UnknownNameError(_unknown(name, base))
    named = _NAMED[base]
    split = _choose(name, split, named.splits)
    return named.open(name, require_root(base, _NAMED, named.layout), split, _slug(base, split, named.splits))


def _choose(name: str, split: str, splits: tuple[str, ...]) -> str:
    """Return the split that was typed, or the default; the empty string where a set has none."""
    if not splits and (split or name.endswith("#")):
        raise UnknownNameError(f"{name}: this data set has no splits, so nothing may follow `#`")
    if name.endswith("#"):
        raise UnknownNameError(f"{name}: no split follows the `#`; there are {', '.join(splits)} (default {splits[0]})")
    if not split:
        return splits[0] if splits else ""
    if split not in splits:
        raise UnknownNameError(f"{name}: no split {split!r}; there are {', '.join(splits)} (default {splits[0]})")
    return split


def _slug(base: str, split: str, splits: tuple[str, ...]) -> str:
    return base if not splits or split == splits[0] else f"{base}-{split}"


def _unknown(name: str, base: str) -> str:
    names = [entry.name for entry in catalogue()]
    if expanded(name).exists():
        hint = f" A folder of images is named imagefolder:{name}."
    else:
        close = difflib.get_close_matches(base.partition(":")[0].lower(), [n.partition(":")[0] for n in names], 1)
        hint = f" Did you mean {close[0]}?" if close else ""
    return f"no data set {name!r}; there are {', '.join(names)}.{hint}"
