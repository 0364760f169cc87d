"""Whether the data sets of a file lie in it, and hold what their shapes promise.

No external or soft links, no external or virtual storage, nothing compressed, nothing promised that is not allocated:
so the size of a file bounds what reading it can take.
"""

from __future__ import annotations

import math
from typing import Any

import h5py

from cachetool.interchange.names import EMPTY_DIMENSION
from cachetool.tokens import TOKEN_TYPES


def contained(handle: Any, problems: list[str]) -> dict[str, Any]:
    """The data sets at the root of the file; what could lead elsewhere or take more than it holds is a problem."""
    found: dict[str, Any] = {}
    for name in handle:
        if not isinstance(handle.get(name, getlink=True), h5py.HardLink):
            problems.append(f"{name} is a link to elsewhere; every data set must lie in the file itself")
            continue
        dataset = handle[name]
        if not isinstance(dataset, h5py.Dataset):
            problems.append(f"{name} is no data set")
        elif dataset.shape is None:
            problems.append(f"{name} has no values")
        elif dataset.is_virtual or dataset.external:
            problems.append(f"{name} keeps its values in other files; every data set must hold them itself")
        elif _filters(dataset) - {h5py.h5z.FILTER_FLETCHER32}:
            problems.append(f"{name} is compressed; unpack the file with `h5repack -f NONE`")
        elif dataset.dtype.kind not in "biufS":
            problems.append(f"{name} is of dtype {dataset.dtype}; expected numbers, or text of fixed length")
        elif not _of_dimension(dataset) and name not in TOKEN_TYPES and not _allocated(dataset):
            problems.append(f"{name} has the shape {dataset.shape}, but less is stored than that")
        else:
            found[name] = dataset
    return {name: dataset for name, dataset in found.items() if not _of_dimension(dataset)}


def _filters(dataset: Any) -> set[int]:
    plist = dataset.id.get_create_plist()
    return {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}


def _of_dimension(dataset: Any) -> bool:
    """Whether a data set only stands for a dimension; nothing is read from it."""
    name = dataset.attrs.get("NAME")
    return isinstance(name, bytes) and name.startswith(EMPTY_DIMENSION.encode())


def _allocated(dataset: Any) -> bool:
    """Whether all values are stored, and chunks are no larger than the whole."""
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunks = dataset.chunks or ()
    return bool(dataset.id.get_storage_size() >= size and math.prod(chunks) <= max(dataset.size, 1))
