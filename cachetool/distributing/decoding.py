"""Images decoded ahead by threads: a worker of a cluster may not start processes of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cachetool.datasets import Batch, Dataset, Transform
from cachetool.datasets.loading import BatchDecoder, unchanged


def load_in_threads(
    dataset: Dataset,
    transform: Transform,
    batches: Iterable[Sequence[int]],
    *,
    sha256: Sequence[str],
    workers: int,
) -> Iterator[Batch]:
    """What `load_batches` yields, with threads in place of processes. Raises as that does."""

    decoder = BatchDecoder(dataset, transform, sha256)
    ahead = max(workers, 1)
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=ahead, thread_name_prefix="cachetool-decoder") as pool:
        try:
            for indices in batches:
                waiting.append(pool.submit(decoder.__getitem__, indices))
                if len(waiting) > ahead:
                    yield unchanged(waiting.popleft().result(), dataset)
            while waiting:
                yield unchanged(waiting.popleft().result(), dataset)
        finally:
            for future in waiting:
                future.cancel()
