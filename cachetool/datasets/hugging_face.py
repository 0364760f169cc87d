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

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetool.datasets.base import Dataset, labels_of, listed, relative_id, slug_of
from cachetool.datasets.roots import absolute_path
from cachetool.errors import DatasetError, ImageError, MissingDataError, UnknownNameError
from cachetool.files import read_regular
from cachetool.packages import HUGGING_FACE, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COLUMNS = ("image", "label", "id")
"""Columns that can be named."""

_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words in the names of Parquet files, and the splits that they mean."""

MOST_CLASSES = 2**20
"""Numbers that a class without a name may have; each gets one."""

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the hub to answer at all; a machine without network should say so at once."""

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Place:
    """What stands after ``hf:``, taken apart."""

    folder: Path | None
    """The folder, for a data set on this machine."""
    repository: str
    """The repository of the hub; empty for a folder."""
    configuration: str | None
    """Configuration of the repository, where one was named."""
    columns: Mapping[str, str]
    """Columns that were named, by what they hold."""
    split: str | None
    """Split, where one was named."""


class HuggingFace(Dataset):
    """The images of one split of a data set of the package `datasets`, in the order of their ids.

    Raises `MissingPackageError` without that package, `MissingDataError` for what is not there or cannot be fetched,
    `UnknownNameError` for a split or column that does not exist, `DatasetError` naming what does not fit.
    """

    kind = "classification"

    def __init__(self, name: str, place: Place) -> None:
        require(name, HUGGING_FACE, "hf")
        self.name, self.family, self._place = name, "hf", place
        rows, split = _load(name, place)
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


def parse(name: str, place: str) -> Place:
    """Take apart what follows ``hf:``.

    Raises `UnknownNameError` for what cannot be taken apart, `MissingDataError` for a path where no folder is.
    """
    if (folder := absolute_path(place)).is_dir():  # a path may itself hold what separates the parts
        return Place(folder, "", None, {}, None)
    front, _, split = place.partition("#")
    front, _, options = front.partition("?")
    columns = dict(option.partition("=")[::2] for option in options.split("&") if option)
    if strange := [one for one, column in columns.items() if one not in COLUMNS or not column]:
        raise UnknownNameError(
            f"{name}: found {', '.join(strange)} after `?`, where columns are named: "
            "?image=COLUMN&label=COLUMN&id=COLUMN"
        )
    if (folder := absolute_path(front)).is_dir():
        return Place(folder, "", None, columns, split or None)
    if front.startswith(("/", "./", "../", "~")):
        raise MissingDataError(f"{name}: there is no folder {folder}; relative paths start at the current folder")
    repository, _, configuration = front.partition(":")
    if not _REPOSITORY.fullmatch(repository):
        raise UnknownNameError(
            f"{name} names neither a folder nor a repository of the hub; write hf:DIR or hf:OWNER/NAME, with #SPLIT "
            "where there are several"
        )
    return Place(None, repository, configuration or None, columns, split or None)


def _load(name: str, place: Place) -> tuple[Any, str]:
    """Open one split, and return its rows and its name; where there is but one split its name is empty."""
    import datasets

    with _quiet(), _refusing(name, place):
        if place.folder is None:
            _ask_for(place.repository)
            split = place.split or _only(name, datasets.get_dataset_split_names(place.repository, place.configuration))
            return datasets.load_dataset(place.repository, place.configuration, split=split), split
        if (place.folder / "state.json").is_file():
            found: Any = {"": datasets.load_from_disk(str(place.folder))}
        elif (place.folder / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(place.folder))
        else:
            files = _parquet_files(name, place.folder)
            split = _chosen(name, place.split, list(files))
            return datasets.load_dataset("parquet", data_files={"rows": files[split]}, split="rows"), split
        split = _chosen(name, place.split, list(found))
        return found[split], split


def _ask_for(repository: str) -> None:
    """Raise `OSError` where the hub has no such data set or does not answer, and `datasets` has not prepared it before.

    Asked first, because this question is not retried, while `datasets` without network tries for half a minute.
    """
    import datasets
    from huggingface_hub import HfApi

    if (Path(datasets.config.HF_DATASETS_CACHE) / repository.replace("/", "___")).is_dir():
        return
    try:
        HfApi().dataset_info(repository, timeout=CONNECT_TIMEOUT)
    except Exception as error:  # the classes of network errors differ between versions of the hub's client
        raise OSError(_first_line(error)) from error


def _parquet_files(name: str, folder: Path) -> dict[str, list[str]]:
    """Parquet files of a folder by the split that their path names, else all of them under an empty name."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise MissingDataError(
            f"{name}: {folder} holds neither what `save_to_disk` of datasets writes (dataset_info.json, state.json), "
            "nor .parquet files. A folder of images is named imagefolder:DIR, one of tar files webdataset:DIR"
        )
    splits: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", file.relative_to(folder).as_posix().lower())
        splits.setdefault(next((_SPLITS[word] for word in words if word in _SPLITS), ""), []).append(str(file))
    return splits


def _chosen(name: str, split: str | None, splits: Sequence[str]) -> str:
    if split is None:
        return _only(name, splits)
    if split in splits and split:
        return split
    there = f"are {', '.join(splits)}" if any(splits) else "is one part, not named"
    raise UnknownNameError(f"{name}: no split {split!r}; there {there}")


def _only(name: str, splits: Sequence[str]) -> str:
    if len(splits) == 1:
        return splits[0]
    raise UnknownNameError(f"{name} has several splits; name one: {', '.join(f'#{split}' for split in splits)}")


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


@contextmanager
def _refusing(name: str, place: Place) -> Iterator[None]:
    """Turn whatever the package raises into an error that names the data set and says what to do."""
    try:
        yield
    except (MissingDataError, UnknownNameError):
        raise
    except OSError as error:  # among them: no network, offline mode, no such repository, a gated one
        hint = (
            "is the folder readable?"
            if place.folder is not None
            else "connect once, and where the repository is gated or private log in with `hf auth login` or set "
            "HF_TOKEN; or write the data set with `save_to_disk` where there is a network, and name hf:FOLDER"
        )
        raise MissingDataError(f"{name} is not on this machine ({_first_line(error)})\n{hint}") from error
    except Exception as error:  # of whatever kind damaged files make pyarrow raise
        raise DatasetError(f"{name} cannot be read: {_first_line(error.__cause__ or error)}") from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars; what goes wrong is said once, by the error."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
