"""What not every provider can do with objects, and is done here instead."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cachetool.errors import StoreError
from cachetool.objects import Replaced


def test_the_end_of_an_object_where_ranges_have_to_begin_somewhere(in_memory) -> None:
    import obstore

    asked = []

    def get(store, key, *, options=None):
        asked.append(options)
        return obstore.get(store, key, options=options)

    azure = in_memory("az", get=get)
    for content, length, expected in (
        (b"0123456789", 3, b"789"),
        (b"012", 3, b"012"),
        (b"01", 3, b"01"),
        (b"", 3, b""),
    ):
        azure.put("one", content)
        end, found = azure.get_end("one", length)
        assert (bytes(end), found) == (expected, azure.head("one"))
    assert [options["range"] for options in asked] == [(7, 10), (0, 3), (0, 2)]
    assert all(options["if_match"] for options in asked)
    with pytest.raises(FileNotFoundError, match="az://bucket/two"):
        azure.get_end("two", 3)


def test_an_end_that_cannot_be_had_is_an_error_and_a_range_needs_no_tag(in_memory) -> None:
    import obstore

    def get(store, key, **options):
        raise obstore.exceptions.GenericError("it broke")

    broken = in_memory("s3", get=get)
    broken.put("one", b"123")
    with pytest.raises(StoreError, match=r"^s3://bucket/one: it broke"):
        broken.get_end("one", 2)
    sound = in_memory("s3")
    sound.put("one", b"123")
    assert bytes(sound.get_range("one", 1, 3)) == b"23"


def test_weak_tags_are_compared_here(in_memory) -> None:
    """A server that is asked for one finds none that matches."""
    asked = []

    def get(store, key, *, options):
        asked.append(options)
        return SimpleNamespace(meta={"e_tag": 'W/"1"'}, bytes=lambda: b"23")

    made = in_memory("s3", get=get)
    assert bytes(made.get_range("one", 1, 3, 'W/"1"')) == b"23"
    with pytest.raises(Replaced, match=r"^s3://bucket/one was replaced"):
        made.get_range("one", 1, 3, 'W/"2"')
    made.get_range("one", 1, 3, '"2"')
    assert asked == [{"range": (1, 3)}, {"range": (1, 3)}, {"range": (1, 3), "if_match": '"2"'}]


def test_an_object_is_replaced_by_its_version_where_tags_are_not_compared(in_memory) -> None:
    import obstore

    versions = []

    def head(store, key):
        return {**obstore.head(store, key), "version": "7"}

    def put(store, key, content, *, mode="overwrite", **options):
        if isinstance(mode, dict):
            versions.append(mode.pop("version"))
        return obstore.put(store, key, content, mode=mode, **options)

    google = in_memory("gs", head=head, put=put)
    assert not google.replace("one", b"mine", "tag")
    google.put("one", b"old")
    tag = google.head("one").tag
    assert not google.replace("one", b"mine", "another tag")
    assert versions == []
    assert google.replace("one", b"mine", tag)
    assert versions == ["7"]
    assert google.get("one") == b"mine"

    def denied(store, key):
        raise obstore.exceptions.PermissionDeniedError("status code: 403 Forbidden")

    with pytest.raises(StoreError, match=r"^gs://bucket/one: access is denied"):
        in_memory("gs", head=denied).replace("one", b"mine", tag)


def test_all_are_removed_where_the_server_misses_one(in_memory) -> None:
    import obstore

    def delete(store, keys):
        for key in keys:
            obstore.head(store, key)
            obstore.delete(store, key)

    strict = in_memory("s3", delete=delete)
    strict.delete([])
    for key in ("a", "c"):
        strict.put(key, b"")
    strict.delete(["a", "b", "c"])
    strict.delete(["b"])
    assert list(strict.walk("")) == []
