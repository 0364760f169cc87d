"""The path of an object, or of all objects below it: what of `pathlib.Path` makes sense where there are no folders."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import total_ordering
from typing import Any

from cachetool.errors import UnknownNameError
from cachetool.objects.bucket import SCHEMES, Bucket, Found, connected

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@total_ordering
class ObjectPath:
    """`SCHEME://BUCKET/KEY`; its text is that URL. No `os.PathLike`: whoever takes it for a file fails at once."""

    __slots__ = ("_bucket", "_parts", "_scheme")

    def __init__(self, url: str) -> None:
        """Take a URL apart; nothing is connected to.

        Raises `UnknownNameError` for a scheme that is not known, a missing bucket, or `..` in a key.
        """
        scheme, separator, rest = url.partition("://")
        bucket, *parts = rest.split("/")
        if not separator or scheme not in SCHEMES or not _BUCKET.fullmatch(bucket):
            known = ", ".join(f"{one}://BUCKET/PREFIX" for one in SCHEMES)
            raise UnknownNameError(f"{url}: expected {known}, or a local directory")
        if any(part in ("..", ".") for part in parts):
            raise UnknownNameError(f"{url}: keys of objects have no . or .. in them; write the key out")
        self._scheme, self._bucket = scheme, bucket
        self._parts = tuple(part for part in parts if part)

    def _with(self, parts: tuple[str, ...]) -> ObjectPath:
        made = ObjectPath.__new__(ObjectPath)
        made._scheme, made._bucket, made._parts = self._scheme, self._bucket, parts
        return made

    def __str__(self) -> str:
        return "/".join((f"{self._scheme}://{self._bucket}", *self._parts))

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return (self._scheme, self._bucket, self._parts) < (other._scheme, other._bucket, other._parts)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectPath, (str(self),)

    def __truediv__(self, name: str) -> ObjectPath:
        return self._with((*self._parts, *(part for part in str(name).split("/") if part)))

    @property
    def bucket(self) -> Bucket:
        """The connection; made at the first use in a process. Raises `MissingPackageError` without obstore."""
        return connected(self._scheme, self._bucket)

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
        """This path: a URL is absolute."""
        return self

    resolve = absolute

    def is_symlink(self) -> bool:
        """False: there are no links."""
        return False

    def found(self) -> Found | None:
        """What is known of the object; None where there is none."""
        try:
            return self.bucket.head(self.key)
        except FileNotFoundError:
            return None

    def is_file(self) -> bool:
        """Whether there is an object of this key. One request."""
        return bool(self._parts) and self.found() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below. One request, or one for each thousand of them."""
        folders, files = self.bucket.children(self.key)
        return bool(folders or files)

    def exists(self) -> bool:
        """Whether there is an object of this key, or one below it."""
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        """The object's content. Raises `FileNotFoundError`."""
        if not self._parts:
            raise IsADirectoryError(errno.EISDIR, "this is a bucket", str(self))
        return self.bucket.get(self.key)

    def read_tagged(self) -> tuple[bytes, str | None]:
        """The object's content and its tag. Raises `FileNotFoundError`."""
        return self.bucket.get_tagged(self.key)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The object's content as text. Raises `FileNotFoundError`."""
        return self.read_bytes().decode(encoding, errors)

    def put(self, content: bytes) -> None:
        """Write or replace the object: readers see the old content or the new one."""
        self.bucket.put(self.key, content)

    def create(self, content: bytes) -> bool:
        """Write the object unless there is one; whether it was written."""
        return self.bucket.create(self.key, content)

    def replace(self, content: bytes, tag: str | None) -> bool:
        """Write the object in place of the one with this tag; whether it was written."""
        return self.bucket.replace(self.key, content, tag)

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object; stores say nothing where there is none, so neither does this."""
        self.bucket.delete([self.key])

    def remove_tree(self) -> None:
        """Remove all objects below."""
        self.bucket.delete([key for key, _found in self.bucket.walk(self.key)])

    def children(self) -> dict[str, Found | None]:
        """What lies directly below, by name: facts of objects, None for what has more below it."""
        folders, files = self.bucket.children(self.key)
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
        for key, found in self.bucket.walk(self.key):
            yield self._with(tuple(key.split("/"))), found
