"""The few things that are done with objects, through obstore: retried where a server throttles or fails.

What remains after the retries becomes `StoreError` naming the URL, the cause and what to do. Responses of a server are
never shown as a whole: they may repeat what the request was signed with.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import quote

from cachetool.errors import StoreError
from cachetool.objects.source import Found, Replaced, Source
from cachetool.packages import OBJECTS, require

SCHEMES = ("s3", "gs", "az")
"""What obstore connects to from variables of the environment alone."""

RETRIES = 10
LONGEST_RETRYING = timedelta(seconds=60)
"""What throttles for longer is an error that names it."""

FIRST_PAUSE = timedelta(milliseconds=100)
"""Before a request is made again; twice as long each time."""

TRIES = 4
"""How often a conditional write is tried whose connection breaks, or an answer is asked for that breaks off."""

PART_BYTES = 2**24
"""Larger content is put in parts of this size, several at a time."""

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN too where they are temporary), or AWS_PROFILE"
    " where boto3 is installed",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


Answer = TypeVar("Answer")

_CONNECTED_IN: list[int] = []
"""The process whose threads make the requests: they do not live on in a forked child, which would wait for ever."""


class Bucket(Source):
    """One bucket of an object store."""

    def __init__(self, scheme: str, name: str) -> None:
        """Connect; nothing is asked for yet. Raises `MissingPackageError` without obstore."""
        require(f"{scheme}://", OBJECTS, "s3", "name a local directory as --root")
        import obstore

        self._scheme, self._name, self._module = scheme, name, obstore
        if not _CONNECTED_IN:
            _CONNECTED_IN.append(os.getpid())
        backoff = {"init_backoff": FIRST_PAUSE, "max_backoff": timedelta(seconds=5), "base": 2}
        open_url, options, plain = self._opening()
        self._connect: Callable[[str], Any] = partial(
            open_url,
            client_options={"timeout": "120s", "connect_timeout": "10s", **({"allow_http": True} if plain else {})},
            retry_config={"max_retries": RETRIES, "retry_timeout": LONGEST_RETRYING, "backoff": backoff},
            **options,
        )
        self._store = self.below("")

    def _opening(self) -> tuple[Callable[..., Any], dict[str, Any], bool]:
        """What makes a store of obstore from a URL, its options, and whether the way there is not encrypted."""
        from obstore.store import from_url

        options: dict[str, Any] = {}
        if self._scheme == "s3":
            endpoint = next((os.environ[one] for one in _ENDPOINTS if os.environ.get(one)), None)
            if endpoint is not None:
                options["endpoint"] = endpoint
            if provider := _profile():
                options["credential_provider"] = provider
        return from_url, options, options.get("endpoint", "").startswith("http://")

    def below(self, prefix: str) -> Any:
        """A store of obstore for the objects below a prefix."""
        with self._errors(prefix):
            return self._connect(Bucket._url(self, quote(prefix)))  # of a URL, obstore decodes what is escaped

    def head(self, key: str) -> Found:
        """What is known of an object. Raises `FileNotFoundError`."""
        with self._errors(key):
            return _found(self._module.head(self._store, key))

    def get_tagged(self, key: str) -> tuple[bytes, str | None]:
        """The content of an object and its tag. Raises `FileNotFoundError`."""

        def get() -> tuple[bytes, str | None]:
            result = self._module.get(self._store, key)
            return bytes(result.bytes()), result.meta["e_tag"]

        with self._errors(key):
            return self._whole(get)

    def get_end(self, key: str, length: int, sizes: Collection[int] | None = None) -> tuple[memoryview, Found]:
        """The last bytes of an object, all of a shorter one. Raises `FileNotFoundError`."""

        def get() -> tuple[memoryview, Found]:
            try:
                if self._scheme == "az":  # has no ranges from the end
                    known = self._module.head(self._store, key)
                    first = max(int(known["size"]) - length, 0)
                    if first == int(known["size"]):
                        return memoryview(b""), _found(known)
                    asked: Any = {"range": (first, int(known["size"])), "if_match": known["e_tag"]}
                else:
                    asked = {"range": {"suffix": length}}
                result = self._module.get(self._store, key, options=asked)
            except self._module.exceptions.GenericError:
                # Of an empty object no server has an end.
                if _found(self._module.head(self._store, key)).size > 0:
                    raise
                result = self._module.get(self._store, key)
            return memoryview(result.bytes()), _found(result.meta)

        with self._errors(key):
            return self._whole(get)

    def get_range(self, key: str, start: int, stop: int, tag: str | None = None) -> memoryview:
        """Bytes from `start` to before `stop`, of the content with this tag alone.

        Raises `FileNotFoundError`, and `Replaced` where the object has another tag by now.
        """
        options: Any = {"range": (start, stop)}
        weak = tag is not None and tag.startswith("W/")  # no weak tag ever matches where one is asked for
        if tag is not None and not weak:
            options["if_match"] = tag

        def get() -> memoryview:
            result = self._module.get(self._store, key, options=options)
            if weak and result.meta["e_tag"] != tag:
                raise Replaced(self._url(key))
            return memoryview(result.bytes())

        with self._errors(key):
            try:
                return self._whole(get)
            except self._module.exceptions.PreconditionError:
                raise Replaced(self._url(key)) from None

    def _whole(self, get: Callable[[], Answer]) -> Answer:
        """What is got; asked for again where the connection broke within an answer, which obstore may leave at that.

        A little later each time: others of its connections may be broken too, and be given out next.
        """
        until = time.monotonic() + LONGEST_RETRYING.total_seconds() / 2
        for tried in range(TRIES - 1):
            try:
                return get()
            except self._module.exceptions.GenericError as error:
                if "status code" in str(error) or _retried(str(error)) >= RETRIES or time.monotonic() > until:
                    raise
            time.sleep(0.05 * 4**tried)
        return get()

    def zarr_store(self, prefix: str) -> Any:
        """What zarr opens the group below a prefix from."""
        from zarr.storage import ObjectStore

        return ObjectStore(self.below(prefix), read_only=True)

    def look_anew(self) -> None:
        """Nothing is remembered."""

    def put(self, key: str, content: bytes) -> None:
        """Write or replace an object: readers see the old content or the new one."""
        with self._errors(key):
            self._module.put(self._store, key, content, chunk_size=PART_BYTES)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one; whether it was written."""
        return self._put_if(key, content, "create")

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        """Write an object in place of the one with this tag; whether it was written."""
        mode = {"e_tag": tag}
        if self._scheme == "gs":  # compares numbers of versions, and no tags
            try:
                with self._errors(key):
                    known = self._module.head(self._store, key)
            except FileNotFoundError:
                return False
            if known["e_tag"] != tag:
                return False
            mode["version"] = known["version"]
        return self._put_if(key, content, mode)

    def _put_if(self, key: str, content: bytes, mode: Any) -> bool:
        refusals = (self._module.exceptions.AlreadyExistsError, self._module.exceptions.PreconditionError)
        left = TRIES
        with self._errors(key):
            while True:
                left -= 1
                try:
                    self._module.put(self._store, key, content, mode=mode, use_multipart=False)
                except refusals:
                    # An earlier try may have been carried out although its answer was lost.
                    return self._holds(key, content)
                except FileNotFoundError as error:
                    if "NoSuchBucket" in str(error):
                        raise
                    return False  # what was to be replaced is gone
                except self._module.exceptions.GenericError as error:
                    # obstore does not retry such writes where the connection broke: they may have been carried out.
                    if "status code" in str(error) or not left:
                        raise
                    if self._holds(key, content):
                        return True
                else:
                    return True

    def _holds(self, key: str, content: bytes) -> bool:
        try:
            return self.get(key) == content
        except FileNotFoundError:
            return False

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; ones that are not there are no error."""
        if not keys:
            return
        with self._errors(keys[0]):
            try:
                self._module.delete(self._store, list(keys))
            except FileNotFoundError as error:  # some servers say so of single objects
                if "NoSuchBucket" in str(error):
                    raise
                one_by_one = keys if len(keys) > 1 else ()  # what came after the missing one may still be there
            else:
                one_by_one = ()
        for key in one_by_one:
            self.delete([key])

    def children(self, prefix: str) -> tuple[list[str], dict[str, Found]]:
        """Names directly below a prefix: those with more below them, and objects."""
        with self._errors(prefix):
            listed = self._module.list_with_delimiter(self._store, prefix or None)
        objects = {str(one["path"]).rpartition("/")[2]: _found(one) for one in listed["objects"]}
        return [str(one).rstrip("/").rpartition("/")[2] for one in listed["common_prefixes"]], objects

    def walk(self, prefix: str) -> Iterator[tuple[str, Found]]:
        """Keys of all objects below a prefix."""
        with self._errors(prefix):
            for some in self._module.list(self._store, prefix or None):
                for one in some:
                    yield str(one["path"]), _found(one)

    def _url(self, key: str) -> str:
        return f"{self._scheme}://{self._name}" + (f"/{key}" if key else "")

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn what obstore raises into `FileNotFoundError` or into a `StoreError` that says what to do."""
        exceptions = self._module.exceptions
        if _CONNECTED_IN[0] != os.getpid():
            raise StoreError(
                f"{self._url(key)}: this process was forked from one that had used an object store, whose connections "
                "do not work here; start processes by `spawn` or `forkserver`."
            )
        # Without their causes: a traceback would show the server's answer, and with it what was signed.
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._refusal(key, error) from None
            raise FileNotFoundError(errno.ENOENT, "there is no such object", self._url(key)) from None
        except exceptions.BaseError as error:
            raise self._refusal(key, error) from None

    def _refusal(self, key: str, error: Exception) -> StoreError:
        """What an error of obstore means, and what to do about it."""
        exceptions, text = self._module.exceptions, str(error)
        denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        if "NoSuchBucket" in text:
            what, advice = f"there is no bucket {self._name}", "make it, or name another"
        elif denied or _asks_for_credentials(text):
            what = f"access is denied, or no credentials are at hand ({cause(text)})"
            advice = f"set {_CREDENTIALS[self._scheme]}, of somebody who may list, read, write and delete there"
        else:
            what, advice = cause(text), "see that endpoint and bucket are right and the network is up, then try again"
        return StoreError(f"{self._url(key)}: {what}; {advice}.")


def _found(meta: Any) -> Found:
    return Found(int(meta["size"]), meta["e_tag"], meta["last_modified"].timestamp())


def _retried(text: str) -> int:
    """How often obstore says that it tried again: where the way broke it may have stopped after a few."""
    found = re.search(r"after (\d+) retries", text)
    return int(found[1]) if found else 0


def cause(text: str) -> str:
    """What an error of obstore says, without the request and the response in it."""
    status = re.search(r"status code: (\d{3}[ \w]*)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    tried = re.search(r"after (\d+) retries", text)
    if status is not None:
        said = f"the server answered {status[1].strip()}" + (f", {code[1]}" if code else "")
    else:
        said = text.partition("\n")[0].rpartition(" - ")[2][:200]
    return said + (f" (tried {int(tried[1]) + 1} times)" if tried else "")


def _asks_for_credentials(text: str) -> bool:
    """Whether an error is about finding credentials: where none are named, obstore asks services of the cloud."""
    return any(hint in text for hint in ("169.254.169.254", "CredentialsError", "InvalidAccessKeyId", "Signature"))


def _profile() -> Any:
    """What takes credentials from the profile that `AWS_PROFILE` names; None without a name or boto3."""
    if not os.environ.get("AWS_PROFILE") or os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    return Boto3CredentialProvider()


@lru_cache(maxsize=64)
def connected(scheme: str, name: str) -> Bucket:
    """The bucket of a name, connected once a process."""
    return Bucket(scheme, name)
