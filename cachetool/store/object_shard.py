"""One shard in an object store: its index is fetched, then each state that is asked for as one range."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from threading import Lock

from cachetool.errors import DamagedError
from cachetool.objects import ObjectPath, Place, Replaced
from cachetool.store.mapped_shard import MappedShard
from cachetool.store.mending import advice
from cachetool.store.shards import Promised, Shard, ShardLayout

Window = tuple[memoryview, int]
"""Bytes of a shard, and the place in it at which they begin."""


class ObjectShard(Shard):
    """One shard of which ranges are fetched: in layer-major order that is one request a state. Safe in threads."""

    path: ObjectPath

    def __init__(
        self,
        path: ObjectPath,
        layout: ShardLayout,
        promised: Promised | None = None,
        sizes: Collection[int] | None = None,
    ) -> None:
        """Fetch the index and check it. Raises `DamagedError` naming the URL.

        `sizes` are those that the shard may have by its done record, in bytes.
        """
        try:
            encoded, found = path.source.get_end(path.key, layout.index_bytes, sizes)
        except FileNotFoundError as error:
            raise DamagedError(f"{path} is missing, though it is recorded as done. {advice(path)}") from error
        if sizes is not None and found.size not in sizes:
            expected = " or ".join(map(str, sorted(sizes)))
            raise DamagedError(
                f"{path} does not match its done record: expected {expected} bytes, found {found.size}. {advice(path)}"
            )
        super().__init__(path, layout, found.size, encoded, promised)
        self._tag = found.tag
        # What is fetched again is checked again: no other shard shares its checks.
        self.identity = (object(),)
        self._windows: dict[int, Future[Window]] = {}
        self._guard = Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes that were fetched and are kept in memory."""
        with self._guard:
            windows = [future.result()[0] for future in self._windows.values() if future.done()]
        return sum({id(window): window.nbytes for window in windows}.values())

    def bring(self, layers: Sequence[int], chunks: slice = slice(None)) -> None:
        """Fetch the layers that are not in memory yet, each as a whole, neighbours by one request.

        Raises `Replaced` where there is another shard by now, `DamagedError` where it is gone or too short.
        """
        with self._guard:
            mine = {layer: Future[Window]() for layer in layers if layer not in self._windows}
            self._windows |= mine
            others = [self._windows[layer] for layer in layers if layer not in mine]
        try:
            for start, stop, together in self._ranges(mine):
                window = self._fetched(start, stop)
                for layer in together:
                    mine[layer].set_result((window, start))
        except BaseException as error:
            with self._guard:
                for layer, future in mine.items():
                    if not future.done():
                        self._windows.pop(layer, None)
                        future.set_exception(error)
            raise
        for other in others:
            other.result()

    def intact(self, layer: int, chunk: int) -> bool:
        """As `Shard.intact`; false for a shard that another one replaced."""
        try:
            return super().intact(layer, chunk)
        except Replaced:
            return False

    def _fetched(self, start: int, stop: int) -> memoryview:
        try:
            window = (
                self.path.source.get_range(self.path.key, start, stop, self._tag) if stop > start else memoryview(b"")
            )
        except FileNotFoundError as error:
            raise Replaced(str(self.path)) from error
        if window.nbytes != stop - start:
            raise DamagedError(f"{self.path} is damaged: bytes {start} to {stop} are not all there.")
        return window

    def _ranges(self, layers: Collection[int]) -> Iterator[tuple[int, int, list[int]]]:
        """First byte, end, and layers of each range that is to be fetched."""
        spans = []
        for layer in layers:
            offsets = self._offsets[self._present[:, layer], layer]
            start = int(offsets.min()) if len(offsets) else 0
            spans.append((start, int(offsets.max()) + self.layout.chunk_bytes if len(offsets) else 0, layer))
        begin, end, together = 0, 0, list[int]()
        for start, stop, layer in sorted(spans):
            if together and start != end:
                yield begin, end, together
                together = []
            begin = begin if together else start
            end = max(stop, end) if together else stop
            together = [*together, layer]
        if together:
            yield begin, end, together

    def _window(self, layer: int) -> Window:
        self.bring([layer])
        return self._windows[layer].result()

    def _shared_window(self, layers: Sequence[int]) -> Window | None:
        windows = [self._window(layer) for layer in layers]
        return windows[0] if all(window[0] is windows[0][0] for window in windows) else None


def open_shard(
    path: Place, layout: ShardLayout, promised: Promised | None = None, sizes: Collection[int] | None = None
) -> Shard:
    """The shard of a place; of an object `sizes` are compared too, which of a file are known by then."""
    if isinstance(path, ObjectPath):
        return ObjectShard(path, layout, promised, sizes)
    return MappedShard(path, layout, promised)
