"""`webdataset:TARS`: images in tar files, grouped into samples as WebDataset has it.

The files of a sample follow each other and share their path up to the first dot of the file name: ``cat/7.jpg`` and
``cat/7.cls`` are the sample ``cat/7``. One file of a sample is its image, by its ending; ``.cls`` holds the number of
its class, or else ``.json`` an object with an integer ``label``; other files are passed over. Ids are TAR/SAMPLE.

The headers of all tars are read once; an image is then read from its place in the tar, by any thread or process.
Nothing is ever unpacked, so that a path in a tar is only a name.
"""

from __future__ import annotations

import glob
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cachetool.datasets.base import Dataset, listed, relative_id, slug_of
from cachetool.datasets.imagefolder import EXTENSIONS, is_unicode
from cachetool.errors import DatasetError, ImageError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

MOST_HEADER = 2**20
"""Bytes of one header (long names), and of a file with a label: more is no name and no number."""

MOST_CLASSES = 2**20
"""Numbers that a class may have; each gets a name."""

MOST_PROBLEMS = 20
"""Problems of a tar that are named; the rest of it is not looked at."""

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How files begin that gzip, bzip2, xz and zstd make."""


class WebDataset(Dataset):
    """The images of some tar files, sorted by id; labels where every image has one.

    Raises `DatasetError` naming every tar that is compressed, damaged or cut off, and every member that is no plain
    file, leaves the tar, is given twice or contradicts the others of its sample.
    """

    kind = "classification"

    def __init__(self, name: str, place: Path, tars: Sequence[Path]) -> None:
        self.name, self.family, self.slug = name, "webdataset", slug_of("webdataset", place)
        self.tars = tuple(sorted(tars))
        root = Path(os.path.commonpath([tar.parent for tar in self.tars]))
        found: list[tuple[str, int, int, int, int]] = []
        unlabelled: list[str] = []
        problems: list[str] = []
        for number, tar in enumerate(self.tars):
            prefix = tar.relative_to(root).as_posix()
            samples = _Samples(tar)
            problems += [f"{prefix}: {problem}" for problem in samples.problems]
            for key, image, size, label in samples.images:
                found.append((f"{prefix}/{key}", number, image, size, -1 if label is None else label))
                unlabelled += [] if label is not None else [f"{prefix}/{key}"]
        if problems:
            raise DatasetError(f"{name} does not have the layout of webdataset:TARS:{listed(problems)}")
        if not found:
            raise DatasetError(f"{name} holds no images: expected files ending in {', '.join(EXTENSIONS)}")
        if unlabelled and len(unlabelled) < len(found):
            raise DatasetError(
                f"{len(unlabelled)} of {len(found)} images of {name} have no label (.cls, or `label` of .json), the "
                f"others have: give all one, or none.{listed(unlabelled)}"
            )
        found.sort()
        self.image_ids = tuple(row[0] for row in found)
        self._places: NDArray[np.int64] = np.array([row[1:4] for row in found], dtype=np.int64)
        self._labels = None if unlabelled else tuple(row[4] for row in found)
        if self._labels is not None:
            self.class_names = tuple(f"class {label}" for label in range(max(self._labels) + 1))

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Class index of each image, or None where the tars have none."""
        return self._labels

    def read_bytes(self, index: int) -> bytes:
        """Return the encoded image. Raises `ImageError` naming the tar and the sample."""
        number, offset, size = (int(value) for value in self._places[index])
        try:
            _check_regular(self.tars[number])
            with self.tars[number].open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise ImageError(f"cannot read {self.describe(index)}: {error.strerror or error}") from error
        if len(data) < size:
            raise ImageError(f"cannot read {self.describe(index)}: the tar is shorter than it was when it was opened")
        return data


def find_tars(name: str, place: Path) -> tuple[Path, ...]:
    """Return the tar files of a folder, of a pattern such as ``train-*.tar``, or the one that is named.

    Raises `MissingDataError` where there are none.
    """
    if place.is_dir():
        found = sorted(place.glob("*.tar"))
    else:
        found = [place] if place.exists() else sorted(map(Path, glob.glob(str(place))))  # noqa: PTH207 (an absolute one)
    if not found:
        braces = "; write * in place of {...}" if "{" in str(place) else ""
        raise MissingDataError(
            f"{name}: there is no tar file {place / '*.tar' if place.is_dir() else place}{braces}.\n"
            "webdataset:TARS expects a folder of .tar files, a pattern with * or one file; relative paths start at the "
            "current folder."
        )
    return tuple(found)


class _Samples:
    """What one tar holds: its images with their labels, and what is wrong with it."""

    def __init__(self, tar: Path) -> None:
        self.images: list[tuple[str, int, int, int | None]] = []
        """Key, offset and size in bytes, and label of each image."""
        self.problems: list[str] = []
        self._keys: set[str] = set()
        self._key = ""
        self._members: dict[str, tarfile.TarInfo] = {}
        """The sample in hand, by endings."""
        try:
            _check_regular(tar)
            with _Headers(tar) as file:
                for member in _members(file):
                    self._add(member, file)
                    if len(self.problems) >= MOST_PROBLEMS:
                        return
                self._close(file)
        except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
            self.problems.append(f"is no tar, or damaged or cut off: {error}")

    def _add(self, member: tarfile.TarInfo, file: _Headers) -> None:
        if member.isdir():
            return
        path = relative_id(member.name) if is_unicode(member.name) else None
        if path is None:
            self.problems.append(f"{member.name!a} is no plain relative path")
            return
        if not member.isreg() or member.issparse():
            self.problems.append(f"{path!r} is {_kind(member)}, expected a plain file")
            return
        folder, slash, name = path.rpartition("/")
        stem, dot, ending = name.partition(".")
        if not stem or not dot:  # hidden files, and files without an ending, belong to no sample
            return
        if f"{folder}{slash}{stem}" != self._key:
            self._close(file)
            self._key = f"{folder}{slash}{stem}"
        if ending.lower() in self._members:
            self.problems.append(f"{path!r} is there twice")
        self._members[ending.lower()] = member

    def _close(self, file: _Headers) -> None:
        """Finish the sample in hand."""
        key, members, self._members = self._key, self._members, {}
        endings = [ending for ending in members if f".{ending}" in EXTENSIONS]
        if not endings:
            return
        if len(endings) > 1:
            self.problems.append(f"{key!r} has several images: {', '.join(endings)}")
        elif key in self._keys:
            self.problems.append(f"{key!r} is there twice")
        else:
            image = members[endings[0]]
            self.images.append((key, image.offset_data, image.size, self._label(members, file)))
        self._keys.add(key)

    def _label(self, members: dict[str, tarfile.TarInfo], file: _Headers) -> int | None:
        ending = next((one for one in ("cls", "json") if one in members), None)
        if ending is None:
            return None
        member = members[ending]
        file.seek(member.offset_data)
        try:
            text = file.read(member.size)
            value: Any = int(text) if ending == "cls" else json.loads(text)
        except (tarfile.ReadError, ValueError, RecursionError) as error:
            self.problems.append(f"{member.name!r} cannot be read as a label: {error}")
            return None
        if ending == "json":
            value = value.get("label") if isinstance(value, dict) else None
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_CLASSES):
            return value
        self.problems.append(f"{member.name!r} gives the class {value!r}, expected an integer from 0")
        return None


class _Headers(io.FileIO):
    """A tar of which headers are read, and small files: `tarfile` reads a long name at once, however long it claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes from the current place. Raises `tarfile.ReadError` for more than a header has."""
        if size is None or not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"{size} bytes are claimed, where at most {MOST_HEADER:,} are expected")
        return super().read(size) or b""


def _members(file: _Headers) -> Iterator[tarfile.TarInfo]:
    """All members of a tar. Raises `tarfile.ReadError` where it does not end as a tar does; `tarfile` itself stops."""
    if file.read(6).startswith(COMPRESSED):
        raise tarfile.ReadError("it is compressed, so that its images cannot be read one by one; unpack it to a .tar")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would grow with the tar
            if archive.offset <= member.offset:
                raise tarfile.ReadError(f"the header at byte {member.offset:,} claims a negative size")
            yield member
        file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError(f"byte {archive.offset:,} is neither a header nor the end of a tar")
    while rest := file.read(MOST_HEADER):
        if any(rest):
            raise tarfile.ReadError(f"something follows its end at byte {archive.offset:,}, as where tars were joined")


def _check_regular(path: Path) -> None:
    # Looked at first, since opening a pipe waits until somebody writes into it.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("expected a file, found a folder, pipe or device")


def _kind(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file"
    return "a link" if member.islnk() or member.issym() else "a device, pipe or other special file"
