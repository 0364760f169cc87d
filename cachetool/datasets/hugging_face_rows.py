"""Rows of a data set of the package `datasets`: where its name says they are, and how they are opened."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetool.datasets.roots import absolute_path
from cachetool.errors import DatasetError, MissingDataError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COLUMNS = ("image", "label", "id")
"""Columns that can be named."""

_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words in the names of Parquet files, and the splits that they mean."""

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


def open_rows(name: str, place: Place) -> tuple[Any, str]:
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
