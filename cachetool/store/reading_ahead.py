"""Have what is needed next brought into memory by threads, while what is there is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 4
"""Items that are worked on at the same time: a disk is fastest when it is asked for several at once."""

Item = TypeVar("Item")


def worked_on_ahead(work: Callable[[Item], object], items: Sequence[Item], ahead: int = AHEAD) -> Iterator[Item]:
    """Each item once `work` is done with it, in order; meanwhile threads do it for the next ones.

    What `work` raises is raised here, in the place of its item.
    """
    if len(items) < 2 or ahead < 1:  # nothing to do meanwhile: spare the thread
        for item in items:
            work(item)
            yield item
        return
    with ThreadPoolExecutor(ahead, thread_name_prefix="cachetool-read") as pool:
        rest = iter(items)
        begun = deque((item, pool.submit(work, item)) for item in islice(rest, ahead))
        while begun:
            item, done = begun.popleft()
            done.result()
            begun.extend((following, pool.submit(work, following)) for following in islice(rest, 1))
            yield item
