"""What objects are read from, whatever speaks to it; where nothing can be put there safely, writing is refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cachetool.errors import StoreError


class Replaced(StoreError):  # noqa: N818 - mostly no error: what is there now is looked at anew
    """An object, named by its URL, is another one by now than the one that was asked for."""

    def __str__(self) -> str:
        """For those who do not look anew."""
        return f"{self.args[0]} was replaced by another process while it was read; run the same command again."


@dataclass(frozen=True)
class Found:
    """What is known of an object without its content."""

    size: int
    """Bytes."""
    tag: str | None
    """Tells this content from another at the same place (its ETag)."""
    modified: float
    """Seconds since 1970 by the server's clock, when it was written."""


class Source(ABC):
    """What answers for the objects below one beginning of URLs. Safe in threads.

    What it cannot do raises `StoreError` naming the URL, the cause and what to do.
    """

    @abstractmethod
    def _url(self, key: str) -> str:
        """The URL of an object."""

    @abstractmethod
    def head(self, key: str) -> Found:
        """What is known of an object. Raises `FileNotFoundError`."""

    def get(self, key: str) -> bytes:
        """The content of an object. Raises `FileNotFoundError`."""
        return self.get_tagged(key)[0]

    @abstractmethod
    def get_tagged(self, key: str) -> tuple[bytes, str | None]:
        """The content of an object and its tag. Raises `FileNotFoundError`."""

    @abstractmethod
    def get_end(self, key: str, length: int, sizes: Collection[int] | None = None) -> tuple[memoryview, Found]:
        """The last bytes of an object, all of a shorter one. Raises `FileNotFoundError`.

        `sizes` are those that it should have: where another one is only remembered, it is looked up again.
        """

    @abstractmethod
    def get_range(self, key: str, start: int, stop: int, tag: str | None = None) -> memoryview:
        """Bytes from `start` to before `stop`, as far as they are there, of the content with this tag alone.

        Raises `FileNotFoundError`, and `Replaced` where the object is known to have another tag by now.
        """

    @abstractmethod
    def children(self, prefix: str) -> tuple[list[str], dict[str, Found]]:
        """Names directly below a prefix: those with more below them, and objects."""

    @abstractmethod
    def walk(self, prefix: str) -> Iterator[tuple[str, Found]]:
        """Keys of all objects below a prefix."""

    @abstractmethod
    def zarr_store(self, prefix: str) -> Any:
        """What zarr opens the group below a prefix from."""

    @abstractmethod
    def look_anew(self) -> None:
        """Forget what was remembered of objects: others may have written meanwhile."""

    def put(self, key: str, content: bytes) -> None:
        """Write or replace an object: readers see the old content or the new one."""
        raise read_only(self._url(key))

    def create(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one; whether it was written."""
        raise read_only(self._url(key))

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        """Write an object in place of the one with this tag; whether it was written."""
        raise read_only(self._url(key))

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; ones that are not there are no error."""
        if keys:
            raise read_only(self._url(keys[0]))


def read_only(url: str, otherwise: str = "") -> StoreError:
    """The error of whoever would write where only reading is safe; `otherwise` is what else can be done about it."""
    scheme = url.partition("://")[0]
    return StoreError(
        f"{url}: what lies at {scheme}:// can only be read, since two writers could not be kept apart there; nothing"
        " was changed. Copy the cache with all that lies beside it to a local disk, or to an s3://, gs:// or az://"
        f" root, and name that{f', or {otherwise}' if otherwise else ''}."
    )
