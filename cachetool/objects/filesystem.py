"""What obstore does not speak, read through fsspec: archives, hosts behind SSH, the Hugging Face Hub, memory.

A driver may be anybody's: whatever it raises becomes `FileNotFoundError` or a `StoreError` without its traceback, and
what it answers is measured.
"""

from __future__ import annotations

import contextlib
import errno
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from threading import Lock
from typing import Any, TypeVar

from cachetool.errors import CachetoolError, MissingPackageError, StoreError
from cachetool.objects.source import Found, Replaced, Source

TRIES = 3
"""How often something is asked for; from the second time on over a new connection."""

FIRST_PAUSE = 0.2
"""Seconds between the first two tries; later ones are four times as long each."""

LONGEST_SECONDS = 120.0
"""What takes longer is given up, where the driver can be stopped: those that are asynchronous."""

NO_PLACES = (
    "async_wrapper", "asynclocal", "asyncwrapper", "blockcache", "cached", "data", "dir", "file", "filecache",
    "generic", "local", "reference", "simplecache",
)  # fmt: skip
"""Schemes that fsspec knows for files of a local disk, which have paths, for files that name others, and for what it
puts around other drivers."""

ARCHIVES = ("libarchive", "tar", "zip")
"""Schemes of URLs in which `::` and the place of an archive follow the path in it."""

WITHOUT_HOST = ("hf", "memory", *ARCHIVES)
"""Schemes of URLs whose first part is one of the path, and not the name of a host."""

_SHARED = ("hf", "memory")
"""Drivers that several threads may ask at once, beside those that are asynchronous."""

_TIMES = ("mtime", "last_modified", "LastModified", "created")
_TAGS = ("ETag", "etag", "blob_id", "xet_hash", "sha", "CRC", "chksum")
"""What drivers call the time of a file, and what else tells its content from another."""

Answer = TypeVar("Answer")


def known(scheme: str) -> bool:
    """Whether fsspec knows a scheme, with or without the driver being installed."""
    from fsspec.registry import known_implementations, registry

    return (scheme in known_implementations or scheme in registry) and scheme not in NO_PLACES


class FileSystem(Source):
    """One file system of fsspec: a host, or an archive."""

    def __init__(self, scheme: str, host: str, container: str, open_container: Callable[[], Any] | None = None) -> None:
        """Find the driver; nothing is asked for yet.

        `container` is what follows in the URL of an archive, `::` and where it lies; `open_container` opens that as a
        file. Raises `MissingPackageError` without the driver.
        """
        self._scheme, self._host, self._container, self._open_container = scheme, host, container, open_container
        try:
            from fsspec import get_filesystem_class

            self._driver: Any = get_filesystem_class(scheme)
        except ImportError as error:
            raise self._missing(error) from error
        shared = self._driver.async_impl or scheme in _SHARED
        self._turn: Any = contextlib.nullcontext() if shared else Lock()
        self._connected: Any = None

    def head(self, key: str) -> Found:
        """What is known of a file. Raises `FileNotFoundError`."""
        return self._found(key, self._info(key))

    def get_tagged(self, key: str) -> tuple[bytes, str | None]:
        """The content of a file, without a tag: nothing is asked for twice. Raises `FileNotFoundError`."""
        return self._read(key), None

    def get_end(self, key: str, length: int, sizes: Collection[int] | None = None) -> tuple[memoryview, Found]:
        """The last bytes of a file, all of a shorter one. Raises `FileNotFoundError`."""
        for left in reversed(range(TRIES)):
            found = self.head(key)
            start = max(found.size - length, 0)
            content = self._read(key, start, found.size)
            expected = len(content) == found.size - start and (sizes is None or found.size in sizes)
            if expected or not left:
                break
            self.look_anew()  # drivers remember sizes, of a file that was written again since
        return memoryview(content), found

    def get_range(self, key: str, start: int, stop: int, tag: str | None = None) -> memoryview:
        """Bytes from `start` to before `stop`, as far as they are there.

        Raises `FileNotFoundError`, and `Replaced` where some are not there, and the file has another tag by now.
        """
        content = self._read(key, start, stop)
        if len(content) != stop - start and tag is not None:
            self.look_anew()
            if self.head(key).tag != tag:
                raise Replaced(self._url(key))
        return memoryview(content)

    def children(self, prefix: str) -> tuple[list[str], dict[str, Found]]:
        """Names directly below a folder: folders, and files."""
        try:
            listed = self._ask(prefix, _listing)
        except FileNotFoundError:
            return [], {}
        own = self._path(prefix).strip("/")
        folders, files = [], {}
        for info in listed:
            parent, _, name = str(info["name"]).strip("/").rpartition("/")
            if parent != own or name in ("", ".", ".."):  # a file lists itself
                continue
            if info.get("type") == "directory":
                folders.append(name)
            else:
                key = f"{prefix}/{name}".strip("/")
                files[name] = self._found(key, info) if info.get("size") is not None else self.head(key)
        return folders, files

    def walk(self, prefix: str) -> Iterator[tuple[str, Found]]:
        """Keys of all files below a folder."""
        folders, files = self.children(prefix)
        for name, found in files.items():
            yield f"{prefix}/{name}".strip("/"), found
        for name in folders:
            yield from self.walk(f"{prefix}/{name}".strip("/"))

    def zarr_store(self, prefix: str) -> Any:
        """The files below a prefix in memory: zarr asks from many threads, which not every driver can bear."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore

        buffer = default_buffer_prototype().buffer
        files = {key: self.get(key) for key, _found in self.walk(prefix)}
        start = len(prefix) + 1 if prefix else 0
        return MemoryStore({key[start:]: buffer.from_bytes(content) for key, content in files.items()}, read_only=True)

    def look_anew(self) -> None:
        """Connect anew: drivers remember sizes and names, an archive its contents."""
        self._connected = None

    def _read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        if start is not None and start == stop:
            return b""

        def read(driver: Any, path: str) -> bytes:
            # Of drivers that open a file for it: nothing beyond the range is to be fetched.
            own = type(driver).cat_file is not _generic().cat_file
            ahead = {} if own or driver.async_impl else {"cache_type": "none"}
            return bytes(_call(driver, "cat_file", path, start=start, end=stop, **ahead))

        return self._ask(key, read)

    def _info(self, key: str) -> Mapping[str, Any]:
        info: Mapping[str, Any] = self._ask(key, lambda driver, path: _call(driver, "info", path))
        if info.get("type") == "directory":
            raise self._absent(key)
        return info

    def _found(self, key: str, info: Mapping[str, Any]) -> Found:
        try:
            size = int(info["size"])
        except (KeyError, TypeError, ValueError):
            size = -1
        if size < 0:
            raise StoreError(
                f"{self._url(key)}{self._container}: its driver does not tell its size (found {info.get('size')!r});"
                " copy what lies there to a local disk."
            )
        tags = [f"{name}={info[name]}" for name in _TAGS if info.get(name) is not None]
        times = [info[name] for name in _TIMES if isinstance(info.get(name), datetime | float | int)]
        modified = times[0] if times else 0.0
        seconds = modified.timestamp() if isinstance(modified, datetime) else float(modified)
        return Found(size, " ".join([f"size={size} modified={seconds}", *tags]), seconds)

    def _ask(self, key: str, work: Callable[[Any, str], Answer]) -> Answer:
        """What `work` gives for the driver and the path of a file there."""
        for left in reversed(range(TRIES)):
            try:
                with self._turn:
                    return work(self._connection(), self._path(key))
            except Replaced:
                self._connected = None  # the archive is another one by now
                raise
            except CachetoolError:
                raise
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise self._absent(key) from None
            except ImportError as error:
                raise self._missing(error) from error
            except Exception as error:
                # Without its cause: answers of servers may repeat what a request was signed with.
                if not left or isinstance(error, PermissionError | NotImplementedError):
                    raise self._refusal(key, error) from None
                self._connected = None
            time.sleep(random.uniform(0.5, 1.5) * FIRST_PAUSE * 4 ** (TRIES - 1 - left))
        raise AssertionError("unreachable")

    def _connection(self) -> Any:
        """The driver, connected; in a forked process anew, where what it has of its parent's would wait for ever."""
        connected = self._connected
        if connected is None:
            self._connected = connected = self._connect()
        return connected

    def _connect(self) -> Any:
        if self._open_container is not None:
            return self._driver(fo=self._open_container(), skip_instance_cache=True)
        from fsspec.core import url_to_fs

        return url_to_fs(self._url(""), skip_instance_cache=True)[0]

    def _path(self, key: str) -> str:
        return str(self._driver._strip_protocol(self._url(key)))

    def _url(self, key: str) -> str:
        return f"{self._scheme}://" + "/".join(part for part in (self._host, key) if part)

    def _absent(self, key: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, "there is no such file", self._url(key) + self._container)

    def _missing(self, error: ImportError) -> MissingPackageError:
        return MissingPackageError(
            f"{self._scheme}:// URLs are read by a package that cannot be imported: {error}; install it, or copy what"
            " lies there to a local disk"
        )

    def _refusal(self, key: str, error: Exception) -> StoreError:
        text = str(error).partition("\n")[0][:200]
        said = re.sub(r"\?\S*", "?...", f"{type(error).__name__}: {text}" if text else type(error).__name__)
        return StoreError(
            f"{self._url(key)}{self._container}: it cannot be read through fsspec ({said}); see that the URL is right,"
            " open to you, and that the network is up, then try again."
        )


def _listing(driver: Any, path: str) -> list[Mapping[str, Any]]:
    """What a driver says of a folder. Raises `TypeError` where that is no list of files with names."""
    listed: list[Mapping[str, Any]] = _call(driver, "ls", path, detail=True)
    if not (isinstance(listed, list) and all(isinstance(info, dict) and "name" in info for info in listed)):
        raise TypeError("it gives no list of files with names")
    return listed


def _generic() -> Any:
    from fsspec import AbstractFileSystem

    return AbstractFileSystem


def _call(driver: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """A method of a driver; one that is asynchronous is given up after a while."""
    if driver.async_impl and name in vars(driver):  # set there by fsspec, around the coroutine of that name
        options["timeout"] = LONGEST_SECONDS
    return getattr(driver, name)(*arguments, **options)
