"""`imagenet-val` and `imagenet-train`: ImageNet-1k with the customary 1000 labels."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from cachetool.datasets.base import FileDataset, listed
from cachetool.datasets.imagefolder import find_images
from cachetool.datasets.matlab import read_variable
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

_DEVKITS = ("ILSVRC2012_devkit_t12", "devkit", ".")
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_FLAT_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")


class ImageNet(FileDataset):
    """ImageNet-1k from class directories named by WordNet id, or the flat validation images with the development kit.

    A label is the position of the class among the 1000 sorted WordNet ids, also where only some classes are there.
    The kit's ground truth counts by its own ids, which its meta.mat translates. Raises `DatasetError` naming every
    directory that is no class, or every image without ground truth.
    """

    kind = "classification"

    def __init__(self, name: str, root: Path, slug: str) -> None:
        self.name, self.root, self.family, self.slug = name, root, slug, slug
        self.class_names = wordnet_ids()
        self.image_ids = find_images(root)
        if not self.image_ids:
            raise DatasetError(
                f"{root} holds no images: expected class directories n01440764/ ..., or ILSVRC2012_val_*.JPEG"
            )
        number = {class_name: index for index, class_name in enumerate(self.class_names)}
        flat = [_FLAT_NAME.fullmatch(image_id) for image_id in self.image_ids]
        in_classes = [image_id.split("/")[0] in number for image_id in self.image_ids]
        if all(in_classes):
            self._labels = tuple(number[image_id.split("/")[0]] for image_id in self.image_ids)
        elif all(flat):
            truth = _ground_truth(root)
            serials = [int(match[1]) for match in flat if match is not None]
            if beyond := [
                i for i, serial in zip(self.image_ids, serials, strict=True) if not 1 <= serial <= len(truth)
            ]:
                raise DatasetError(
                    f"{_GROUND_TRUTH} has {len(truth)} lines, too few for these images of {root}:{listed(beyond)}"
                )
            self._labels = tuple(number[truth[serial - 1]] for serial in serials)
        else:
            strange = [
                i for i, known, match in zip(self.image_ids, in_classes, flat, strict=True) if not (known or match)
            ]
            folders = sorted({image_id.rpartition("/")[0] or image_id for image_id in strange})
            raise DatasetError(
                f"{root} is neither class directories of the 1000 WordNet ids nor flat ILSVRC2012_val_*.JPEG alone; "
                f"for another set of classes use imagefolder:{root}.{listed(folders) or ' It mixes both.'}"
            )

    @property
    def labels(self) -> tuple[int, ...]:
        """Class index of each image, 0 to 999."""
        return self._labels


@lru_cache(maxsize=1)
def wordnet_ids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids in the order of the labels, from timm's table."""
    from timm.data.imagenet_info import ImageNetInfo  # brings torch along, which listing data sets should not cost

    return tuple(ImageNetInfo("imagenet-1k").label_names())  # type: ignore[no-untyped-call]


def _ground_truth(root: Path) -> list[str]:
    """Return the WordNet id of each validation image, in the order of their numbers."""
    places = [above / kit / "data" for above in (root, root.parent) for kit in _DEVKITS]
    data = next((p for p in places if (p / "meta.mat").is_file() and (p / _GROUND_TRUTH).is_file()), None)
    if data is None:
        raise DatasetError(
            f"{root} holds flat validation images, whose labels are in the development kit: put ILSVRC2012_devkit_t12/ "
            f"(with data/meta.mat and data/{_GROUND_TRUTH}) into {root} or beside it, or sort the images into class "
            "directories"
        )
    synsets = np.atleast_1d(read_variable(data / "meta.mat", "synsets"))
    try:
        words = {int(number): str(word) for number, word in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
        truth = [int(line) for line in (data / _GROUND_TRUTH).read_text(encoding="ascii").split()]
    except (ValueError, IndexError, TypeError, OSError) as error:
        raise DatasetError(f"the development kit in {data} cannot be read: {error}") from error
    known = set(wordnet_ids())
    if unknown := sorted({number for number in truth if words.get(number) not in known}):
        raise DatasetError(
            f"{data / _GROUND_TRUTH} uses ids that meta.mat does not map to one of the 1000 classes:{listed(unknown)}"
        )
    return [words[number] for number in truth]
