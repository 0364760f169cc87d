"""Requests that a server throttles or fails are made again, some times, and then refused with words."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import bucket


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(bucket, "FIRST_PAUSE", timedelta(milliseconds=1))


@pytest.fixture
def impatient(hasty, monkeypatch):
    monkeypatch.setattr(bucket, "RETRIES", 2)
    monkeypatch.setattr(bucket, "LONGEST_RETRYING", timedelta(seconds=5))


def times(count: int, how: str):
    """Spoil the first requests."""
    left = [count]

    def spoil(method: str, target: str) -> str | None:
        left[0] -= 1
        return how if left[0] >= 0 else None

    return spoil


@pytest.mark.slow
@pytest.mark.parametrize("how", ["throttle", "fail", "reset", "lose"])
@pytest.mark.parametrize("work", ["put", "create", "get", "list", "delete"])
def test_requests_that_fail_are_made_again(object_proxy, object_root, hasty, how, work) -> None:
    one = object_root / "one"
    if work not in ("put", "create"):
        one.put(b"content")
    with object_proxy.spoiling(times(2 if how != "lose" else 1, how)):
        if work == "put":
            one.put(b"content")
        elif work == "create":
            assert one.create(b"content")
        elif work == "get":
            assert one.read_bytes() == b"content"
        elif work == "list":
            assert [path.name for path in object_root.iterdir()] == ["one"]
        else:
            one.unlink()
    assert one.is_file() == (work != "delete")
    if work != "delete":
        assert one.read_bytes() == b"content"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("throttle", r"503 Service Unavailable, SlowDown \(tried 3 times\).*try again"),
        ("fail", r"500 Internal Server Error, InternalError \(tried 3 times\)"),
        ("deny", r"access is denied.*403 Forbidden.*AWS_ACCESS_KEY_ID"),
        ("reset", r"see that endpoint and bucket are right"),
    ],
)
def test_what_goes_on_failing_is_an_error_that_names_url_cause_and_remedy(
    object_proxy, object_root, impatient, how, said
) -> None:
    one = object_root / "one"
    with object_proxy.spoiling(lambda method, target: how):
        for work in (one.read_bytes, one.is_file, lambda: one.put(b""), lambda: one.create(b""), one.is_dir):
            with pytest.raises(StoreError, match=re.escape(str(object_root))) as caught:
                work()
            assert "very-secret" not in str(caught.value)
            if work == one.read_bytes:
                assert re.search(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(("plain", "client"), [(True, {"allow_http": True}), (False, {})])
def test_what_is_waited_for_and_how_often_is_tried_is_told_to_obstore(monkeypatch, plain, client) -> None:
    """By its own names: others it passes over."""
    pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    asked = []

    def opened(url: str, **options: Any) -> None:
        asked.append((url, options))

    monkeypatch.setattr(bucket.Bucket, "_opening", lambda made: (opened, {"endpoint": "there"}, plain))
    bucket.Bucket("s3", "bucket").below("a b")
    options = {
        "client_options": {"timeout": "120s", "connect_timeout": "10s", **client},
        "retry_config": {
            "max_retries": 10,
            "retry_timeout": timedelta(minutes=1),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        },
        "endpoint": "there",
    }
    assert asked == [("s3://bucket", options), ("s3://bucket/a%20b", options)]


def test_a_write_whose_connection_breaks_is_tried_some_times(in_memory) -> None:
    import obstore

    tried = []

    def put(store, key, content, **options):
        tried.append(key)
        if len(tried) % 2:
            obstore.put(store, "elsewhere", content)
            raise obstore.exceptions.GenericError("connection closed")
        return obstore.put(store, key, content, **options)

    def broken(store, key, content, **options):
        tried.append(key)
        raise obstore.exceptions.GenericError("connection closed")

    assert in_memory("s3", put=put).create("one", b"mine")
    assert tried == ["one", "one"]
    tried.clear()
    with pytest.raises(StoreError, match="connection closed"):
        in_memory("s3", put=broken).create("one", b"mine")
    assert len(tried) == bucket.TRIES


def test_a_write_that_was_carried_out_although_the_connection_broke_is_ours(in_memory) -> None:
    import obstore

    def put(store, key, content, **options):
        obstore.put(store, key, content, **options)
        raise obstore.exceptions.GenericError("connection closed")

    def without_bucket(store, key, content, **options):
        raise FileNotFoundError("NoSuchBucket")

    assert in_memory("s3", put=put).create("one", b"mine")
    with pytest.raises(StoreError, match="there is no bucket bucket"):
        in_memory("s3", put=without_bucket).create("one", b"mine")


@pytest.mark.parametrize("work", [lambda made: made.create("one", b"mine"), lambda made: made.get("one")])
def test_what_a_server_refuses_is_not_asked_for_again_here(in_memory, work) -> None:
    """obstore has done that already, where it may help."""
    import obstore

    tried = []

    def refused(store, *arguments, **options):
        tried.append(store)
        raise obstore.exceptions.GenericError("Server returned error response: status code: 400 Bad Request")

    with pytest.raises(StoreError, match="the server answered 400 Bad Request"):
        work(in_memory("s3", put=refused, get=refused))
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Error performing GET in 9ms, after 1 retries, max_retries: 10 - HTTP error: error sending request", 2),
        ("Error performing GET in 26s, after 10 retries, max_retries: 10 - HTTP error: error sending request", 1),
        ("Error performing GET in 9ms, after 1 retries - status code: 400 Bad Request", 1),
    ],
)
def test_an_answer_is_asked_for_again_where_obstore_stopped_early(in_memory, text, asked) -> None:
    import obstore

    answers = iter([obstore.exceptions.GenericError(text)])
    count = []

    def get(store, key, *, options=None):
        count.append(key)
        for error in answers:
            raise error
        return obstore.get(store, key, options=options)

    made = in_memory("s3", get=get)
    made.put("one", b"content")
    if asked == 1:
        with pytest.raises(StoreError):
            made.get("one")
    else:
        assert made.get("one") == b"content"
    assert len(count) == asked


def test_an_answer_that_goes_on_breaking_off_is_asked_for_some_times(in_memory, monkeypatch) -> None:
    import obstore

    asked, pauses = [], []

    def get(store, key, **options):
        asked.append(key)
        raise obstore.exceptions.GenericError("connection closed")

    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(StoreError, match="connection closed"):
        in_memory("s3", get=get).get("one")
    assert len(asked) == bucket.TRIES == 4
    assert pauses == pytest.approx([0.05, 0.2, 0.8])


@pytest.mark.parametrize(("seconds", "tries"), [(30, 4), (30.01, 1)])
def test_an_answer_that_breaks_off_late_is_not_asked_for_again(in_memory, monkeypatch, seconds, tries) -> None:
    """Half of the time after which what throttles is an error: obstore may have made the request again until then."""
    import obstore

    made, asked = in_memory("s3"), []
    clock = SimpleNamespace(monotonic=lambda: 1000 + (seconds if asked else 0), sleep=lambda pause: None)
    monkeypatch.setattr(bucket, "time", clock)
    monkeypatch.setattr(bucket, "LONGEST_RETRYING", timedelta(seconds=60))

    def get() -> bytes:
        asked.append("one")
        raise obstore.exceptions.GenericError("connection closed")

    with pytest.raises(obstore.exceptions.GenericError, match="connection closed"):
        made._whole(get)
    assert len(asked) == tries
