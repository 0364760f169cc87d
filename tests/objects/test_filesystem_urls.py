"""URLs of what is read through fsspec: which are places, and what they are made of."""

from __future__ import annotations

import pytest

from cachetool.errors import UnknownNameError
from cachetool.objects import ObjectPath, filesystem, place


def test_schemes_that_fsspec_knows() -> None:
    known = ["memory", "zip", "sftp", "hf", "file", "local", "simplecache", "nothing"]
    assert [name for name in known if filesystem.known(name)] == ["memory", "zip", "sftp", "hf"]


def test_urls_of_file_systems() -> None:
    hub = ObjectPath("hf://datasets/user/published/shapes/tiny-reg.zarr")
    assert (hub.key, hub.name, str(hub.parent.parent)) == (
        "datasets/user/published/shapes/tiny-reg.zarr", "tiny-reg.zarr", "hf://datasets/user/published",
    )  # fmt: skip
    host = ObjectPath("sftp://user@host:22/data/a.zarr")
    assert (host.key, str(host.with_name("b"))) == ("data/a.zarr", "sftp://user@host:22/data/b")
    top = ObjectPath("memory://a.zarr")
    assert str(top.with_name("a.runs")) == "memory://a.runs"
    assert (hub.writable, hub.listed) == (False, True)
    for url in ("sftp://user:very-secret@host/a", "zip://a::https://user:very-secret@host/a.zip"):
        with pytest.raises(UnknownNameError, match=r"://\.\.\.host: a password in a URL") as caught:
            ObjectPath(url)
        assert "very-secret" not in str(caught.value)
    assert ObjectPath("s3://bucket/a::b.zip").key == "a::b.zip"
    for url in ("https://host/a.zarr?token=1", "https://host/a.zarr#b", "zip://a::https://host/a.zip?token=1"):
        with pytest.raises(UnknownNameError, match=r"leave out \? and #"):
            ObjectPath(url)
    page = ObjectPath("https://host:80/with%20space/%C3%A4")
    assert (page.key, str(page / "a b")) == ("with space/ä", "https://host:80/with%20space/%C3%A4/a%20b")
    assert place(str(page)) == page
    with pytest.raises(UnknownNameError, match=r"no \. or \.\. in them"):
        ObjectPath("https://host/a/%2e%2e/b")
    with pytest.raises(UnknownNameError, match="expected s3://BUCKET/PREFIX"):
        ObjectPath("zip://a::")


@pytest.mark.parametrize(
    "url",
    [
        "simplecache://a", "simplecache://a::https://host/b", "filecache://a::/b", "blockcache://a::zip://b",
        "cached://a", "generic://a/b", "asynclocal://a/b", "asyncwrapper://a", "data://a", "zip://a", "zip://",
        "memory://a::/b", "sftp://host/a::/b", "http://host:99999/a",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(url: str) -> None:
    """What fsspec puts around other drivers, which would speak past the checks here; and what lies in no archive."""
    with pytest.raises(UnknownNameError, match="expected s3://BUCKET/PREFIX"):
        ObjectPath(url)
