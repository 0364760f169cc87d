"""`segmentation:DIR`: images/<split>, masks/<split> with the same file names, and classes.txt."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from cachetool.datasets.annotated import MaskedDataset
from cachetool.datasets.base import IGNORE, listed, slug_of
from cachetool.datasets.imagefolder import find_images
from cachetool.errors import DatasetError, UnknownNameError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path


class Segmentation(MaskedDataset):
    """Images with masks: images/<split>/NAME.* has masks/<split>/NAME.png; line n of classes.txt names value n, from 0.

    Without splits, images/ and masks/ hold the files themselves. Where there are several splits and none is named, it
    is ``val``. Raises `UnknownNameError` for a split that is not there and `DatasetError`, naming every file, where
    images and masks do not go together.
    """

    def __init__(self, name: str, root: Path, split: str | None) -> None:
        self.name, self.root = name, root
        if missing := [part for part in ("images", "masks", "classes.txt") if not (root / part).exists()]:
            raise DatasetError(
                f"{root} lacks {' and '.join(missing)}: expected images/<split>, masks/<split> and classes.txt"
            )
        self.mask_names = _read_classes(root / "classes.txt")
        split = _choose_split(name, root, split)
        self.family, self.slug = "segmentation", slug_of("segmentation", root, split)
        below = f"{split}/" if split else ""
        self.image_ids = tuple(f"images/{below}{path}" for path in find_images(root / "images" / below))
        if not self.image_ids:
            raise DatasetError(f"{root / 'images' / below} holds no images")
        self._check_files(f"masks/{below}")

    def mask_path(self, index: int) -> Path:
        """Return the mask file of an image."""
        return self.root / _mask_of(self.image_ids[index])

    def _check_files(self, masks: str) -> None:
        wanted = [_mask_of(image_id) for image_id in self.image_ids]
        present = (
            {f"{masks}{path}" for path in find_images(self.root / masks)} if (self.root / masks).is_dir() else set()
        )
        problems = [
            f"{image_id}: no mask {mask}"
            for image_id, mask in zip(self.image_ids, wanted, strict=True)
            if mask not in present
        ]
        problems += [f"{mask}: no image" for mask in sorted(present - set(wanted))]
        problems += [f"{mask}: belongs to several images" for mask, count in Counter(wanted).items() if count > 1]
        if problems:
            raise DatasetError(f"images and masks in {self.root} do not go together:{listed(problems)}")


def _mask_of(image_id: str) -> str:
    path = PurePosixPath(image_id).with_suffix(".png")
    return str(PurePosixPath("masks", *path.parts[1:]))


def _read_classes(file: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in read_regular(file).decode("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {file}: {error}") from error
    if not 1 <= len(names) <= IGNORE:
        raise DatasetError(f"{file} names {len(names)} classes; expected 1 to {IGNORE}, one a line")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DatasetError(f"{file} names classes more than once:{listed(twice)}")
    return names


def _choose_split(name: str, root: Path, split: str | None) -> str | None:
    splits = sorted(entry.name for entry in (root / "images").iterdir() if entry.is_dir() and entry.name[0] != ".")
    if split is None and len(splits) <= 1:
        return splits[0] if splits else None
    if split is None and "val" in splits:
        return "val"
    if split not in splits:
        found = ", ".join(splits) or "no splits"
        raise UnknownNameError(f"{name}: no split {split or 'val'!r} in {root / 'images'}; it has {found}: add #SPLIT")
    return split
