"""Content digests of all images, read once by several threads."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cachetool.datasets.base import listed
from cachetool.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachetool.datasets.base import Dataset

_PER_TASK = 32  # images a task: a million tasks of one image each would cost a gigabyte of bookkeeping


def hash_images(
    dataset: Dataset,
    count: int | None = None,
    workers: int = 8,
    progress: Callable[[int], object] | None = None,
) -> tuple[str, ...]:
    """Return the SHA-256 (hexadecimal) of the encoded bytes of the first `count` images, in their order.

    `progress` is called in this thread with the number of images newly done. Raises `ImageError` naming all
    images that could not be read.
    """
    total = len(dataset) if count is None else min(count, len(dataset))
    tasks = [range(first, min(first + _PER_TASK, total)) for first in range(0, total, _PER_TASK)]
    digests: list[str] = []
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="hash") as pool:
        for task, (some_digests, some_problems) in zip(
            tasks, pool.map(lambda task: _hash_some(dataset, task), tasks), strict=True
        ):
            digests += some_digests
            problems += some_problems
            if progress is not None:
                progress(len(task))
    if problems:
        raise ImageError(f"{len(problems)} of {total} images of {dataset.name} cannot be read:{listed(problems)}")
    return tuple(digests)


def _hash_some(dataset: Dataset, indices: Sequence[int]) -> tuple[list[str], list[str]]:
    digests, problems = [], []
    for index in indices:
        try:
            digests.append(hashlib.sha256(dataset.read_bytes(index)).hexdigest())
        except ImageError as error:
            problems.append(str(error))
    return digests, problems
