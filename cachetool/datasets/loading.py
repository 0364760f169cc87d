"""Batches of model inputs, decoded ahead by worker processes, in the order asked for.

Two kinds of trouble are told apart. Bytes that cannot be decoded are a property of the data set: that image becomes
NaN and the work goes on. Bytes that changed or vanished since they were hashed would make the cache contradict its
key: that stops the work.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cachetool.datasets.base import listed
from cachetool.errors import CachetoolError, DatasetError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from cachetool.datasets.base import Dataset
    from cachetool.datasets.transform import Transform


@dataclass(frozen=True, eq=False)
class Batch:
    """Model inputs of some images."""

    indices: tuple[int, ...]
    """Index of each image in the data set."""
    images: torch.Tensor
    """(image, rgb, row, column), float32, normalised; NaN where the image could not be decoded."""
    failures: dict[int, str] = field(default_factory=dict)
    """Message for each image, by its index in the data set, that could not be decoded; it names the file."""
    changed: tuple[str, ...] = ()
    """Messages for images whose bytes are not those that were hashed; always empty in what `load_batches` yields."""


def load_batches(
    dataset: Dataset,
    transform: Transform,
    batches: Iterable[Sequence[int]],
    *,
    sha256: Sequence[str],
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield one `Batch` for each sequence of image indices, in that order, whatever the number of workers.

    `sha256` holds the content digest of the images from index 0 (from `hash_images`); the bytes decoded must match it.
    With `workers` = 0 this process decodes, each batch when it is asked for, on all processors: ahead of time on the
    processors that run the blocks, it would take from one of their threads while the others wait. Raises
    `DatasetError` naming all images of a batch that changed since they were hashed, and `CachetoolError` where a worker
    process died.
    """
    stream = (
        _in_processes(dataset, transform, batches, sha256, workers)
        if workers
        else _in_threads(dataset, transform, batches, sha256)
    )
    for batch in stream:
        yield unchanged(batch, dataset)


def processors_for_decoding() -> int:
    """Processors that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def _in_threads(
    dataset: Dataset, transform: Transform, batches: Iterable[Sequence[int]], sha256: Sequence[str]
) -> Iterator[Batch]:
    decoder = BatchDecoder(dataset, transform, sha256)
    with ThreadPoolExecutor(processors_for_decoding(), thread_name_prefix="cachetool-decoder") as pool:
        for indices in batches:
            yield decoder.decode(indices, pool.map)


def _in_processes(
    dataset: Dataset, transform: Transform, batches: Iterable[Sequence[int]], sha256: Sequence[str], workers: int
) -> Iterator[Batch]:
    # Importing torch takes seconds, which listing data sets should not cost.
    import torch
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        # More workers than cores are a sensible choice where storage is slow.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Batch] = DataLoader(
            BatchDecoder(dataset, transform, sha256),  # type: ignore[arg-type]
            sampler=batches,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_settle_in,
            generator=torch.Generator(),  # otherwise every call would draw from the user's random numbers
            # Other start methods run the user's script again in each worker unless it is guarded by `__main__`.
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )
        iterator = iter(loader)
    while True:
        try:
            with worker_deaths(dataset, workers):
                batch = next(iterator)
        except StopIteration:
            return
        yield batch


def unchanged(batch: Batch, dataset: Dataset) -> Batch:
    """The batch. Raises `DatasetError` naming all of its images that changed since they were hashed."""
    if batch.changed:
        raise DatasetError(
            f"images of {dataset.name} changed since they were hashed, so the cache would contradict its key; "
            f"leave the files alone while they are read, and start again:{listed(batch.changed)}"
        )
    return batch


@contextmanager
def worker_deaths(dataset: Dataset, workers: int) -> Iterator[None]:
    """Turn torch's report of a dead worker process into a `CachetoolError` that says what to do.

    torch learns of the death by a signal and raises wherever the main thread is: in `load_batches`, or in what its
    caller does with a batch.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not text.startswith("DataLoader worker (pid") and "shared memory" not in text:
            raise  # a defect, which should show where it happened
        raise CachetoolError(
            f"a process that decodes images of {dataset.name} died ({text.strip().splitlines()[-1]}). Most often "
            f"memory or shared memory (/dev/shm) ran out: use fewer workers ({workers} now) or smaller batches. "
            "Finished work is kept; the same command goes on from there"
        ) from error


@dataclass(frozen=True)
class _Trouble:
    """Why an image is not there."""

    text: str
    changed: bool
    """Whether its bytes are not those that were hashed; otherwise they cannot be decoded."""


class BatchDecoder:
    """Decodes the images of one batch, where it is asked to: a map-style data set for the workers of a `DataLoader`."""

    def __init__(self, dataset: Dataset, transform: Transform, sha256: Sequence[str]) -> None:
        self._dataset, self._transform, self._sha256 = dataset, transform, sha256

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """The batch; images that changed since they were hashed are among its `changed`."""
        return self.decode(indices, map)

    def decode(self, indices: Sequence[int], over: Callable[..., Iterable[_Trouble | None]]) -> Batch:
        """One batch; `over` calls a function on several sequences in step, as `map` does, perhaps in threads."""
        import torch
        from torch.utils.data import get_worker_info

        size = self._transform.size
        tensor = torch.full((len(indices), 3, size, size), torch.nan, dtype=torch.float32)
        if get_worker_info() is not None:
            # Here a lack of shared memory is an error; when torch shares the tensor later, it would hang the parent.
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        numbers = tuple(int(index) for index in indices)
        found = list(over(self._fill, numbers, tensor.numpy()))
        failures = {index: one.text for index, one in zip(numbers, found, strict=True) if one and not one.changed}
        return Batch(numbers, tensor, failures, tuple(one.text for one in found if one and one.changed))

    def _fill(self, index: int, image: NDArray[np.float32]) -> _Trouble | None:
        """Decode one image into its place (rgb, row, column)."""
        try:
            data = self._dataset.read_bytes(index)
        except ImageError as error:
            return _Trouble(str(error), changed=True)
        if (found := hashlib.sha256(data).hexdigest()) != self._sha256[index]:
            text = (
                f"{self._dataset.describe(index)}: SHA-256 {self._sha256[index][:12]}... was hashed, "
                f"{found[:12]}... is there now"
            )
            return _Trouble(text, changed=True)
        try:
            decoded = self._dataset.decode_bytes(data, index)
            self._transform.check(*decoded.size, self._dataset.describe(index))
        except ImageError as error:
            return _Trouble(str(error), changed=False)
        image[...] = self._transform.apply(decoded)
        return None


def _as_it_is(batch: Any) -> Any:
    return batch


def _settle_in(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; without this each worker would print its own traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report
    # Pillow warns about metadata that the rules of decoding never use.
    warnings.filterwarnings("ignore", module="PIL")


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Say nothing of a parent that was interrupted while a batch was handed to it, which a thread does."""
    if not issubclass(kind, OSError | EOFError):
        sys.__excepthook__(kind, error, traceback)
