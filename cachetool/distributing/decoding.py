"""Images decoded ahead by threads: a worker of a cluster may not start processes of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cachetool.datasets import Batch, Dataset, Transform, load_batches
from cachetool.datasets.loading import BatchDecoder, unchanged


def load_in_threads(
    dataset: Dataset,
    transform: Transform,
    batches: Iterable[Sequence[int]],
    *,
    sha256: Sequence[str],
    workers: int,
) -> Iterator[Batch]:
    """What `load_batches` yields, with threads in place of its processes, if any. Raises as that does."""
    if workers == 0:
        yield from load_batches(dataset, transform, batches, sha256=sha256, workers=0)
        return
    decoder = BatchDecoder(dataset, transform, sha256)
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="cachetool-decoder") as pool:
        try:
            for indices in batches:
                waiting.append(pool.submit(decoder.__getitem__, indices))
                if len(waiting) > workers:
                    yield unchanged(waiting.popleft().result(), dataset)
            while waiting:
                yield unchanged(waiting.popleft().result(), dataset)
        finally:
            for future in waiting:
                future.cancel()
