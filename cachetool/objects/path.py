"""The path of an object, or of all objects below it: what of `pathlib.Path` makes sense where there are no folders."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache, partial, total_ordering
from typing import Any
from urllib.parse import quote, unquote

from cachetool.errors import UnknownNameError
from cachetool.files import expanded
from cachetool.objects import bucket, filesystem, range_file, website
from cachetool.objects.bucket import SCHEMES
from cachetool.objects.source import Found, Source
from cachetool.objects.website import WEB

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WEB_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@+~-]*")
_PASSWORD = re.compile(r"[^@:]*:[^@]*@")


@total_ordering
class ObjectPath:
    """`SCHEME://BUCKET/KEY`; its text is that URL. No `os.PathLike`: whoever takes it for a file fails at once.

    In place of the bucket stands the host of a web server or of a file system, or nothing where a file system has none.
    Of an archive `::CONTAINER` follows, where that lies.
    """

    __slots__ = ("_bucket", "_container", "_parts", "_scheme")

    def __init__(self, url: str) -> None:
        """Take a URL apart; nothing is connected to.

        Raises `UnknownNameError` for a scheme that is not known, a missing bucket, `..` in a key, a password, or what
        follows `?` or `#` in the URL of a web server.
        """
        scheme, separator, rest = url.partition("://")
        chained = container = ""
        if scheme not in (*SCHEMES, *WEB):
            rest, chained, container = rest.partition("::")
        host, *parts = rest.split("/")
        if scheme in filesystem.WITHOUT_HOST:
            host, parts = "", [host, *parts]
        if scheme != "github" and _PASSWORD.match(host):  # which has `ORGANISATION:REPOSITORY@BRANCH` there
            raise UnknownNameError(
                f"{scheme}://...{host.rpartition('@')[2]}: a password in a URL would be shown in messages and results;"
                " give it in fsspec's configuration file, where it is one of fsspec's"
            )
        in_archive = scheme in filesystem.ARCHIVES
        if not (separator and _is_known(scheme, host) and bool(chained) == bool(container) == in_archive):
            known = ", ".join(f"{one}://BUCKET/PREFIX" for one in SCHEMES)
            raise UnknownNameError(
                f"{url}: expected {known}, a local directory, or for reading https://HOST/PATH, zip://PATH::ARCHIVE or"
                " the URL of a file system that fsspec knows"
            )
        if "://" in container:
            ObjectPath(container)
        if scheme in WEB:
            if {"?", "#"} & set(rest):
                raise UnknownNameError(f"{url}: files lie below it, so nothing may follow it: leave out ? and #")
            parts = [unquote(part) for part in parts]
        if any(part in ("..", ".") or (scheme in WEB and "/" in part) for part in parts):
            raise UnknownNameError(f"{url}: keys of objects have no . or .. in them; write the key out")
        self._scheme, self._bucket, self._container = scheme, host, chained + container
        self._parts = tuple(part for part in parts if part)

    def _with(self, parts: tuple[str, ...]) -> ObjectPath:
        made = ObjectPath.__new__(ObjectPath)
        made._scheme, made._bucket, made._container, made._parts = self._scheme, self._bucket, self._container, parts
        return made

    def __str__(self) -> str:
        parts = [quote(part) for part in self._parts] if self._scheme in WEB else self._parts
        return f"{self._scheme}://" + "/".join([*filter(None, [self._bucket]), *parts]) + self._container

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return self._order < other._order

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectPath, (str(self),)

    def __truediv__(self, name: str) -> ObjectPath:
        return self._with((*self._parts, *(part for part in str(name).split("/") if part)))

    @property
    def _order(self) -> tuple[Any, ...]:
        return self._scheme, self._bucket, self._container, self._parts

    @property
    def source(self) -> Source:
        """What it is read from; connected at the first use in a process. Raises `MissingPackageError`."""
        return _source(self._scheme, self._bucket, self._container)

    @property
    def writable(self) -> bool:
        """Whether objects can be put there so that two writers are kept apart."""
        return self._scheme in SCHEMES

    @property
    def listed(self) -> bool:
        """Whether what lies below can be asked for."""
        return self._scheme not in WEB

    @property
    def key(self) -> str:
        """The key within the bucket."""
        return "/".join(self._parts)

    @property
    def name(self) -> str:
        """The last part of the key, or the bucket."""
        return self._parts[-1] if self._parts else self._bucket

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        stem, dot, ending = self.name.rpartition(".")
        return f"{dot}{ending}" if stem and ending else ""

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.name.removesuffix(self.suffix) if self.suffix else self.name

    @property
    def parent(self) -> ObjectPath:
        """One part less; of the bucket itself, the bucket."""
        return self._with(self._parts[:-1])

    @property
    def parents(self) -> list[ObjectPath]:
        """All paths above, the nearest first."""
        return [self._with(self._parts[:count]) for count in reversed(range(len(self._parts)))]

    def with_name(self, name: str) -> ObjectPath:
        """A sibling."""
        return self._with((*self._parts[:-1], name))

    def with_suffix(self, suffix: str) -> ObjectPath:
        """The same with another ending."""
        return self.with_name(self.stem + suffix)

    def absolute(self) -> ObjectPath:
        """This path, which a URL is, but for an archive whose own path is not absolute."""
        lies = self._container.removeprefix("::")
        if not lies:
            return self
        made = self._with(self._parts)
        made._container = f"::{ObjectPath(lies).absolute() if '://' in lies else expanded(lies).absolute()}"
        return made

    resolve = absolute

    def is_symlink(self) -> bool:
        """False: there are no links."""
        return False

    def found(self) -> Found | None:
        """What is known of the object; None where there is none."""
        try:
            return self.source.head(self.key)
        except FileNotFoundError:
            return None

    def is_file(self) -> bool:
        """Whether there is an object of this key. One request."""
        return bool(self._parts) and self.found() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below. One request, or one for each thousand of them."""
        folders, files = self.source.children(self.key)
        return bool(folders or files)

    def exists(self) -> bool:
        """Whether there is an object of this key, or one below it."""
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        """The object's content. Raises `FileNotFoundError`."""
        if not self._parts:
            raise IsADirectoryError(errno.EISDIR, "this is a bucket", str(self))
        return self.source.get(self.key)

    def read_tagged(self) -> tuple[bytes, str | None]:
        """The object's content and its tag. Raises `FileNotFoundError`."""
        return self.source.get_tagged(self.key)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The object's content as text. Raises `FileNotFoundError`."""
        return self.read_bytes().decode(encoding, errors)

    def put(self, content: bytes) -> None:
        """Write or replace the object: readers see the old content or the new one."""
        self.source.put(self.key, content)

    def create(self, content: bytes) -> bool:
        """Write the object unless there is one; whether it was written."""
        return self.source.create(self.key, content)

    def replace(self, content: bytes, tag: str | None) -> bool:
        """Write the object in place of the one with this tag; whether it was written."""
        return self.source.replace(self.key, content, tag)

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object; stores say nothing where there is none, so neither does this."""
        self.source.delete([self.key])

    def remove_tree(self) -> None:
        """Remove all objects below."""
        self.source.delete([key for key, _found in self.source.walk(self.key)])

    def children(self) -> dict[str, Found | None]:
        """What lies directly below, by name: facts of objects, None for what has more below it."""
        folders, files = self.source.children(self.key)
        return {**dict.fromkeys(folders), **files}

    def iterdir(self) -> Iterator[ObjectPath]:
        """Paths of what lies directly below."""
        return (self / name for name in self.children())

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Paths below that match, part by part, with one request for each path that is looked into."""
        first, _, rest = pattern.partition("/")
        for child in sorted(self.iterdir()):
            if fnmatchcase(child.name, first):
                if rest:
                    yield from child.glob(rest)
                else:
                    yield child

    def walk_objects(self) -> Iterator[tuple[ObjectPath, Found]]:
        """All objects below, with what is known of them."""
        for key, found in self.source.walk(self.key):
            yield self._with(tuple(key.split("/"))), found


def _is_known(scheme: str, host: str) -> bool:
    """Whether there is such a scheme, and a host where one is needed."""
    if scheme in SCHEMES:
        return _BUCKET.fullmatch(host) is not None
    if scheme in WEB:
        return _WEB_HOST.fullmatch(host) is not None and int(host.partition(":")[2] or 0) < 2**16
    named = scheme in filesystem.WITHOUT_HOST or _HOST.fullmatch(host) is not None
    return named and _SCHEME.fullmatch(scheme) is not None and filesystem.known(scheme)


def _source(scheme: str, host: str, container: str) -> Source:
    """What answers for a beginning of URLs."""
    if scheme in SCHEMES:
        return bucket.connected(scheme, host)
    if scheme in WEB:
        return website.connected(scheme, host)
    return _file_system(scheme, host, container)


@lru_cache(maxsize=64)
def _file_system(scheme: str, host: str, container: str) -> Source:
    """The file system of a host or archive, connected once a process."""
    lies = container.removeprefix("::")
    if not lies:
        return filesystem.FileSystem(scheme, host, container)
    if "://" not in lies:
        return filesystem.FileSystem(scheme, host, container, partial(range_file.opened_local, lies))
    path = ObjectPath(lies)
    return filesystem.FileSystem(scheme, host, container, partial(range_file.opened, path.source, path.key))


# Of a forked process: a thread that does not live on in it may have had its turn with a driver.
os.register_at_fork(after_in_child=_file_system.cache_clear)
