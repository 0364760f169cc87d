"""`hf:DIR` and `hf:REPO`: a data set of the package `datasets`, from a folder or from the Hugging Face hub.

A folder is one that ``save_to_disk`` wrote, or one with Parquet files, split by their names as the hub does. Of a
repository, what `datasets` finds is taken; none of its code is run. After the place may follow:

- ``:NAME``, for a repository with several configurations;
- ``?image=COLUMN&label=COLUMN&id=COLUMN``, where columns are not to be found by their types: the one of images, the one
  of classes, and one that gives ids; otherwise 00000000, 00000001, ... are the rows;
- ``#SPLIT``, where there are several.

Rows are read from the files that `datasets` maps into memory, one image at a time, encoded as they are.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetool.datasets.base import Dataset, labels_of, listed, relative_id, slug_of
from cachetool.datasets.hugging_face_rows import Place, open_rows
from cachetool.errors import DatasetError, ImageError, UnknownNameError
from cachetool.files import read_regular
from cachetool.packages import HUGGING_FACE, require

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CLASSES = 2**20
"""Numbers that a class without a name may have; each gets one."""


class HuggingFace(Dataset):
    """The images of one split of a data set of the package `datasets`, in the order of their ids.

    Raises `MissingPackageError` without that package, `MissingDataError` for what is not there or cannot be fetched,
    `UnknownNameError` for a split or column that does not exist, `DatasetError` naming what does not fit.
    """

    kind = "classification"

    def __init__(self, name: str, place: Place) -> None:
        require(name, HUGGING_FACE, "hf")
        self.name, self.family, self._place = name, "hf", place
        rows, split = open_rows(name, place)
        where = place.folder or Path(place.repository, place.configuration or "")
        self.slug = slug_of("hf", where, split)
        image = _image_column(name, rows, place.columns.get("image"))
        label = _label_column(name, rows, place.columns.get("label"))
        ids = [f"{row:08d}" for row in range(len(rows))]
        if "id" in place.columns:
            ids = [str(value) for value in _values(name, rows, place.columns["id"])]
            if problems := _id_problems(ids):
                raise DatasetError(f"{name}: column {place.columns['id']!r} gives no ids:{listed(problems)}")
        if not ids:
            raise DatasetError(f"{name} holds no images")
        self._order = sorted(range(len(ids)), key=ids.__getitem__)
        self.image_ids = tuple(ids[row] for row in self._order)
        self._labels: tuple[int, ...] | None = None
        if label is not None:
            labels, self.class_names = _classes(name, rows, label)
            self._labels = tuple(labels[row] for row in self._order)
        self._images = rows.select_columns([image]).with_format("arrow")

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Class index of each image, -1 where a data set withholds it; None where there is no column of classes."""
        return self._labels

    def read_bytes(self, index: int) -> bytes:
        """Return the encoded image. Raises `ImageError` naming the row."""
        try:
            value = self._images[self._order[index]].column(0)[0].as_py()
        except Exception as error:  # of whatever kind a damaged file makes pyarrow raise
            raise ImageError(f"cannot read {self.describe(index)}: {error}") from error
        data, path = (value or {}).get("bytes"), (value or {}).get("path")
        if data is not None:
            return bytes(data)
        if path is None:
            raise ImageError(f"{self.describe(index)} is empty")
        file = Path(path)
        if not any(file.resolve().is_relative_to(root.resolve()) for root in self._roots()):
            raise ImageError(
                f"{self.describe(index)} lies in another file, {path}, which is not part of the data set; save it with "
                "its images inside (`save_to_disk` does so)"
            )
        try:
            return read_regular(file)
        except OSError as error:
            raise ImageError(f"cannot read {self.describe(index)}, {path}: {error.strerror or error}") from error

    def _roots(self) -> tuple[Path, ...]:
        """Folders that files of the data set may lie in."""
        if self._place.folder is not None:
            return (self._place.folder,)
        import datasets
        from huggingface_hub import constants

        return (Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE))


def _image_column(name: str, rows: Any, wanted: str | None) -> str:
    import datasets

    found = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if wanted is not None and wanted not in found:
        raise UnknownNameError(f"{name}: {wanted!r} is no column of images; these are: {', '.join(found) or 'none'}")
    if not found:
        columns = listed(f"{column}: {type(feature).__name__}" for column, feature in rows.features.items())
        raise DatasetError(f"{name} has no column of images (type Image of datasets), only{columns}")
    return wanted or _single(name, "image", found)


def _label_column(name: str, rows: Any, wanted: str | None) -> str | None:
    import datasets

    if wanted is not None:
        if wanted not in rows.features:
            raise UnknownNameError(f"{name} has no column {wanted!r}; there are {', '.join(rows.features)}")
        return wanted
    found = [column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    return _single(name, "label", found) if found else None


def _single(name: str, kind: str, found: Sequence[str]) -> str:
    """The only column, or the one of several that is called as what it holds."""
    if len(found) > 1 and kind not in found:
        choices = " or ".join(f"?{kind}={column}" for column in found)
        raise UnknownNameError(f"{name} has several columns of {kind}s; name one: {choices}")
    return kind if len(found) > 1 else found[0]


def _classes(name: str, rows: Any, column: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Class of each row and the names of the classes, from a column of ClassLabel, integers or strings."""
    values = _values(name, rows, column)
    if values and all(isinstance(value, str) for value in values):
        return labels_of(values)
    names = tuple(getattr(rows.features[column], "names", None) or ())
    limit = len(names) or MOST_CLASSES
    wrong = [
        f"row {row}: {value!r}"
        for row, value in enumerate(values)
        if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < limit
    ]
    if wrong:
        raise DatasetError(
            f"{name}: column {column!r} was expected to hold classes, -1 (withheld) to {limit - 1}:{listed(wrong)}"
        )
    return tuple(values), names or tuple(f"class {number}" for number in range(max(values, default=-1) + 1))


def _values(name: str, rows: Any, column: str) -> list[Any]:
    if column not in rows.features:
        raise UnknownNameError(f"{name} has no column {column!r}; there are {', '.join(rows.features)}")
    values: list[Any] = rows.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    return values


def _id_problems(ids: Sequence[str]) -> list[str]:
    problems = [f"{text!r} is no plain relative path" for text in ids if relative_id(text) != text]
    return problems + [f"{text!r} is given {count} times" for text, count in Counter(ids).items() if count > 1]
