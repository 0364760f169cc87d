"""`hdf5:FILE`: images, and labels or masks, in one HDF5 file.

- ``images``: pixels (image, row, column, rgb) uint8, or encoded files (JPEG, PNG, ...) as (image,) of variable-length
  uint8.
- ``image_id``, optional: (image,) strings, each once, plain relative paths; otherwise 00000000, 00000001, ...
- ``label``, optional: (image,) integers, the class of each image.
- ``class_names``, optional: (class,) strings, names of the labels, or of the mask values where there is no ``label``.
- ``masks``, optional: classes (image, row, column) uint8 with 255 = ignored, or encoded 8-bit PNG as (image,) of
  variable-length uint8.

Images are put in the order of their ids. The content digest of unencoded pixels is that of their binary PPM file.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from cachetool.datasets.annotated import check_mask, mask_values
from cachetool.datasets.base import IGNORE, Dataset, listed, relative_id, slug_of
from cachetool.datasets.decoding import encode_rgb
from cachetool.errors import DatasetError, ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


_NAMES = ("images", "image_id", "label", "class_names", "masks")
_COLUMNS = ("image_id", "label", "class_names")

_LARGEST_CHUNK = 2**30
"""Bytes of a chunk, all of which are unpacked to read one image."""

_MOST_PACKED, _MOST_UNWRITTEN = 2000, 2**24
"""How many times the file its arrays may be, as compression allows about 1000, and bytes that may be unwritten."""


class HDF5Images(Dataset):
    """The images of one HDF5 file; a segmentation set where it has ``masks`` and no ``label``.

    Raises `DatasetError` naming every data set of the file that does not fit the layout.
    """

    def __init__(self, name: str, file: Path) -> None:
        self.name, self.file, self.family, self.slug = name, file, "hdf5", slug_of("hdf5", file)
        self._handles: dict[int, Any] = {}
        try:
            contents = self._open()
            problems = _foreign_problems(contents) or _layout_problems(contents) or _size_problems(contents, file)
            columns = {} if problems else {name: contents[name][()] for name in _COLUMNS if name in contents}
        except Exception as error:  # h5py raises whatever a damaged file makes it stumble over
            raise DatasetError(f"{file} cannot be read as HDF5: {error}") from error
        if problems:
            raise DatasetError(f"{file} does not have the layout of hdf5:FILE:{listed(problems)}")
        count = len(contents["images"])
        ids = _strings(columns["image_id"]) if "image_id" in columns else [f"{i:08d}" for i in range(count)]
        names = tuple(_strings(columns["class_names"])) if "class_names" in columns else None
        labels = columns["label"].astype(np.int64) if "label" in columns else None
        if problems := _content_problems(ids, names, labels):
            raise DatasetError(f"{file} contradicts itself:{listed(problems)}")
        self._rows = sorted(range(count), key=lambda row: ids[row])
        self.image_ids = tuple(ids[row] for row in self._rows)
        self._labels = None if labels is None else tuple(int(labels[row]) for row in self._rows)
        self.kind = "segmentation" if "masks" in contents and labels is None else "classification"
        if labels is not None:
            self.class_names = names or tuple(f"class {number}" for number in range(int(labels.max()) + 1))
        if "masks" in contents:
            own = names if labels is None else None
            self.mask_names = own or tuple(f"class {number}" for number in range(IGNORE))

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Class index of each image, or None where the file has none."""
        return self._labels

    def read_bytes(self, index: int) -> bytes:
        """Return the encoded image, or its pixels as binary PPM."""
        value = self._row("images", index)
        return value.tobytes() if value.ndim == 1 else encode_rgb(value)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Class of every pixel, (row, column), 255 = not annotated. Raises `DatasetError` where it does not fit."""
        if self.mask_names is None:
            return super().mask(index)
        values, source = self._row("masks", index), f"of {self.describe(index)}"
        if values.ndim == 1:
            values = mask_values(values.tobytes(), source)
        check_mask(values, source, self.mask_names, self.describe(index), self.size(index))
        return values

    def _row(self, name: str, index: int) -> NDArray[np.uint8]:
        try:
            value: NDArray[np.uint8] = np.asarray(self._open()[name][self._rows[index]], dtype=np.uint8)
        except Exception as error:  # as above
            raise ImageError(f"cannot read {name} of {self.describe(index)} in {self.file}: {error}") from error
        return value

    def _open(self) -> Any:
        import h5py

        # An open HDF5 file must not be shared with a forked process: each process opens its own.
        if (process := os.getpid()) not in self._handles:
            self._handles = {process: h5py.File(self.file, "r")}
        return self._handles[process]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}


def _foreign_problems(contents: Any) -> list[str]:
    """Data sets whose values lie in other files, which somebody else's file could have us read."""
    import h5py

    linked = [name for name in _NAMES if not isinstance(contents.get(name, getlink=True), h5py.HardLink | None)]
    problems = [f"`{name}` is a link, expected a data set" for name in linked]
    for name in set(_NAMES) - set(linked):
        array = contents.get(name)
        if isinstance(array, h5py.Dataset) and (array.is_virtual or array.external):
            problems.append(f"`{name}` lies in other files; copy its values into this one")
    return problems


def _size_problems(contents: Any, file: Path) -> list[str]:
    """Data sets that claim more than a file of this size can hold: memory would be taken for nothing."""
    limit = _MOST_PACKED * file.stat().st_size + _MOST_UNWRITTEN
    problems = []
    for name in (name for name in _NAMES if name in contents):
        array = contents[name]
        if array.nbytes > limit:
            problems.append(f"`{name}` claims {array.nbytes:,} bytes, more than the file can hold")
        if math.prod(array.chunks or (0,)) * array.dtype.itemsize > _LARGEST_CHUNK:
            problems.append(
                f"`{name}` has chunks of {array.chunks}, more than {_LARGEST_CHUNK:,} bytes; use smaller ones"
            )
        if name in ("images", "masks") and len(array.shape) > 1 and array.shape[1] * array.shape[2] > _most_pixels():
            problems.append(
                f"`{name}` has images of {array.shape[2]} x {array.shape[1]} pixels, too many to read safely"
            )
    return problems


def _most_pixels() -> float:
    from PIL import Image

    return math.inf if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS


def _layout_problems(contents: Any) -> list[str]:
    import h5py

    if "images" not in contents:
        return [f"there is no data set `images`, only {', '.join(map(repr, contents)) or 'nothing'}"]
    if groups := [name for name in _NAMES if name in contents and not isinstance(contents[name], h5py.Dataset)]:
        return [f"`{name}` is a group, expected a data set" for name in groups]
    count = len(contents["images"]) if contents["images"].shape else 0
    problems = []
    for name, rank in (("images", 4), ("masks", 3)):
        if name in contents and not _is_bytes(contents[name]):
            array = contents[name]
            if array.dtype != np.uint8 or len(array.shape) != rank or (rank == 4 and array.shape[3] != 3):
                shape = "(image, row, column, rgb)" if rank == 4 else "(image, row, column)"
                problems.append(
                    f"`{name}` must be uint8 {shape} or variable-length uint8 (image,), "
                    f"found {array.dtype} {tuple(array.shape)}"
                )
    if count == 0:
        problems.append("`images` is empty")
    if "label" in contents and (contents["label"].dtype.kind not in "iu" or len(contents["label"].shape) != 1):
        problems.append(f"`label` must be integers (image,), found {contents['label'].dtype} {contents['label'].shape}")
    problems += [
        f"`{name}` must be strings of one dimension, found {contents[name].dtype} {tuple(contents[name].shape)}"
        for name in ("image_id", "class_names")
        if name in contents
        and (h5py.check_string_dtype(contents[name].dtype) is None or len(contents[name].shape) != 1)
    ]
    problems += [
        f"`{name}` has {len(contents[name])} entries for {count} images"
        for name in ("label", "image_id", "masks")
        if name in contents and contents[name].shape and len(contents[name]) != count
    ]
    return problems


def _content_problems(ids: list[str], names: tuple[str, ...] | None, labels: NDArray[np.int64] | None) -> list[str]:
    problems = [f"image_id {text!r} is not a plain relative path" for text in ids if relative_id(text) != text]
    problems += [f"image_id {text!r} is given {count} times" for text, count in Counter(ids).items() if count > 1]
    if names is not None and len(set(names)) < len(names):
        problems.append("class_names holds a name twice")
    if labels is not None:
        limit = len(names) if names is not None else np.iinfo(np.int32).max
        problems += [
            f"label {labels[row]} of image {ids[row]!r} is not in 0 .. {limit - 1}"
            for row in np.flatnonzero((labels < 0) | (labels >= limit))
        ]
    return problems


def _is_bytes(array: Any) -> bool:
    import h5py

    return h5py.check_vlen_dtype(array.dtype) == np.uint8 and len(array.shape) == 1


def _strings(array: Any) -> list[str]:
    # What is not UTF-8 becomes an escape that is still readable and still unique.
    return [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value) for value in array]
