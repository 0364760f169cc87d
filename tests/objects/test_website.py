"""Web servers: names as they are sent, no lists, and what to do where one refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, website
from tests.objects.web import WebServer

pytest.importorskip("obstore", reason="the extra [s3] is not installed")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    server = WebServer(tmp_path)
    yield server
    server.close()


def test_names_of_any_letters_are_found_and_shown_as_they_are_sent(web: WebServer) -> None:
    (web.folder / "a b").mkdir()
    (web.folder / "a b" / "ä%20").write_bytes(b"0123456789")
    path = ObjectPath(f"{web.url}/a%20b/%C3%A4%2520")
    assert path.read_bytes() == b"0123456789"
    end, found = path.source.get_end(path.key, 3)
    assert (bytes(end), found.size) == (b"789", 10)
    assert bytes(path.source.get_range(path.key, 2, 5, found.tag)) == b"234"
    assert path.found() == found
    for work in (lambda: path.source.get("a b/c"), lambda: path.source.get_end("a b/c", 3)):
        with pytest.raises(FileNotFoundError) as caught:
            work()
        assert caught.value.filename == f"{web.url}/a%20b/c"
    assert {one.target for one in web.requests} == {"/a%20b/%C3%A4%2520", "/a%20b/c"}


def test_a_server_is_connected_once(web: WebServer) -> None:
    path = ObjectPath(f"{web.url}/a")
    assert path.source is (path.parent / "b").source is website.connected("http", web.url.removeprefix("http://"))


def test_there_are_no_lists_and_nothing_is_written(web: WebServer) -> None:
    path = ObjectPath(f"{web.url}/a%20b")
    for work in (lambda: path.source.children("a b"), lambda: path.source.walk("a b"), path.is_dir):
        with pytest.raises(StoreError) as caught:
            work()
        assert str(caught.value) == (
            f"{web.url}/a%20b: a web server gives no list of what lies there; name each cache and run by its own"
            " http:// URL."
        )
    writes: list[Any] = [
        lambda: path.put(b""), lambda: path.create(b""), lambda: path.replace(b"", "tag"), path.unlink,
    ]  # fmt: skip
    for work in writes:
        with pytest.raises(StoreError, match=rf"^{web.url}/a%20b: what lies at http:// can only be read"):
            work()
    assert web.requests == []


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (
            "PermissionDeniedError", "secret",
            "access is denied; see that the URL is right and open to everybody: names and passwords are not sent.",
        ),
        (
            "UnauthenticatedError", "secret",
            "access is denied; see that the URL is right and open to everybody: names and passwords are not sent.",
        ),
        (
            "NotSupportedError", "secret",
            "the server does not give parts of files (`Range`); copy the cache to a local disk, or have it served by"
            " another.",
        ),
        (
            "GenericError", "x - it broke",
            "it broke; see that the URL is right and the network is up, then try again.",
        ),
    ],
)  # fmt: skip
def test_an_error_says_what_to_do_about_it(kind: str, text: str, said: str) -> None:
    made = website.Website("https", "host")
    with pytest.raises(StoreError) as caught, made._errors("a b"):
        raise getattr(made._module.exceptions, kind)(text)
    assert str(caught.value) == f"https://host/a%20b: {said}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_way_that_is_not_encrypted_is_taken_where_it_was_asked_for_alone(scheme: str) -> None:
    opening, options, plain = website.Website(scheme, "host")._opening()
    assert (opening.__qualname__, options, plain) == ("HTTPStore.from_url", {}, scheme == "http")
