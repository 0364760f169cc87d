"""What web servers publish, read through obstore: files of known names, of which nobody gives a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from cachetool.errors import StoreError
from cachetool.objects.bucket import Bucket, cause
from cachetool.objects.source import Found, Source

WEB = ("http", "https")
"""Schemes of web servers."""


class Website(Bucket):
    """One web server. It has to answer requests for ranges; `ETag` and `If-Match` are used where it knows them."""

    put, create, replace, delete = Source.put, Source.create, Source.replace, Source.delete

    def _opening(self) -> tuple[Callable[..., Any], dict[str, Any], bool]:
        from obstore.store import HTTPStore

        return HTTPStore.from_url, {}, self._scheme == "http"

    def children(self, prefix: str) -> tuple[list[str], dict[str, Found]]:
        """Raises `StoreError`."""
        raise self._unlisted(prefix)

    def walk(self, prefix: str) -> Iterator[tuple[str, Found]]:
        """Raises `StoreError`."""
        raise self._unlisted(prefix)

    def _url(self, key: str) -> str:
        return super()._url(quote(key))

    def _unlisted(self, prefix: str) -> StoreError:
        return StoreError(
            f"{self._url(prefix)}: a web server gives no list of what lies there; name each cache and run by its own"
            f" {self._scheme}:// URL."
        )

    def _refusal(self, key: str, error: Exception) -> StoreError:
        exceptions = self._module.exceptions
        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            what = "access is denied"
            advice = "see that the URL is right and open to everybody: names and passwords are not sent"
        elif isinstance(error, exceptions.NotSupportedError):
            what = "the server does not give parts of files (`Range`)"
            advice = "copy the cache to a local disk, or have it served by another"
        else:
            what, advice = cause(str(error)), "see that the URL is right and the network is up, then try again"
        return StoreError(f"{self._url(key)}: {what}; {advice}.")


@lru_cache(maxsize=64)
def connected(scheme: str, host: str) -> Website:
    """The web server of a host, connected once a process."""
    return Website(scheme, host)
