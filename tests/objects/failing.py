"""A driver of fsspec for tests, whose answers can be spoilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """Files in memory; it remembers sizes, as drivers do."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    fail: Callable[[str], None] = staticmethod(lambda what: None)
    short = 0
    made = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Failing.made += 1
        self._sizes: dict[str, Any] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("failing://host", "memory://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        Failing.fail("cat_file")
        return bytes(super().cat_file(path, start, end))[: -Failing.short or None]

    def info(self, path: str, **options: Any) -> Any:
        Failing.fail("info")
        return self._sizes.setdefault(path, super().info(path, **options))
