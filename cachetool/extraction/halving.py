"""Batches that do not fit into memory: halved, down to one image, told and recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cachetool.errors import OutOfMemoryError
from cachetool.events import Events, Silent

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "Unable to allocate")
"""What torch says on CUDA, MPS and the CPU, where it raises a plain `RuntimeError`."""


class Halving:
    """How many images go through the model at a time: as many as were asked for, halved whenever memory runs out.

    A smaller batch may be computed by another kernel, which rounds differently, so the sizes are recorded.
    """

    def __init__(self, size: int, events: Events | None = None) -> None:
        """Begin with `size` images, at least 1; every halving is told to `events`."""
        self.sizes = [size]
        """The sizes that were tried, largest first."""
        self._events = events or Silent()

    @property
    def facts(self) -> dict[str, Any]:
        """What to record: `batch_sizes`, largest first, where there was more than one."""
        return {"batch_sizes": self.sizes} if len(self.sizes) > 1 else {}

    def run(self, count: int, compute: Callable[[slice], None]) -> None:
        """Call `compute` with consecutive slices of `count` images; one that runs out of memory comes again, halved.

        Raises `OutOfMemoryError` where a single image does not fit.
        """
        done = 0
        while done < count:
            part = slice(done, min(done + self.sizes[-1], count))
            try:
                compute(part)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                self._halve(part.stop - part.start, error)
            else:
                done = part.stop
                continue
            # Only here, where the error is gone, does nothing hold the tensors of the attempt any more.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _halve(self, size: int, error: BaseException) -> None:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if size == 1:
            raise OutOfMemoryError(
                f"memory ran out with a single image at a time ({cause}); free some, take another --device, or extract "
                "with a smaller --image-size; finished blocks are kept"
            ) from error
        self.sizes.append(size // 2)
        self._events.message(f"memory ran out with {size} images at a time; going on with {size // 2} ({cause})")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)
