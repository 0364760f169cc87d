"""What is done with objects: tried again where the server throttles or fails, then refused with words."""

from __future__ import annotations

import os
import re
import traceback
from datetime import timedelta
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, Replaced, bucket


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(bucket, "RETRIES", 2)
    monkeypatch.setattr(bucket, "LONGEST_RETRYING", timedelta(seconds=5))


def times(count: int, how: str):
    """Spoil the first requests."""
    left = [count]

    def spoil(method: str, target: str) -> str | None:
        left[0] -= 1
        return how if left[0] >= 0 else None

    return spoil


def test_an_object_is_written_read_and_removed(object_root) -> None:
    one = object_root / "folder" / "one"
    assert not one.is_file()
    one.put(b"0123456789")
    assert one.is_file()
    assert one.read_bytes() == b"0123456789"
    content, tag = one.read_tagged()
    assert (content, one.found().size, one.found().tag) == (b"0123456789", 10, tag)
    end, found = one.bucket.get_end(one.key, 3)
    assert (bytes(end), found.size, found.tag) == (b"789", 10, tag)
    assert bytes(one.bucket.get_end(one.key, 100)[0]) == b"0123456789"
    assert bytes(one.bucket.get_range(one.key, 2, 5, tag)) == b"234"
    (object_root / "empty").put(b"")
    end, found = one.bucket.get_end((object_root / "empty").key, 3)
    assert (bytes(end), found.size) == (b"", 0)
    one.put(b"abcdefghij")
    with pytest.raises(Replaced):
        one.bucket.get_range(one.key, 2, 5, tag)
    one.unlink()
    one.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(one))):
        one.read_bytes()
    with pytest.raises(FileNotFoundError):
        one.bucket.get_end(one.key, 3)


def test_one_of_several_makes_an_object(object_root) -> None:
    one = object_root / "one"
    assert one.create(b"mine")
    assert not one.create(b"yours")
    assert one.read_bytes() == b"mine"
    tag = one.found().tag
    assert one.replace(b"yours", tag)
    assert not one.replace(b"again", tag)
    assert one.read_bytes() == b"yours"
    one.unlink()
    assert not one.replace(b"again", tag)
    assert not one.is_file()


def test_content_of_several_parts_is_whole(object_root, monkeypatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 * 2**20)
    content = bytes(range(256)) * 2**15 + b"end"
    (object_root / "large").put(content + content)
    assert (object_root / "large").read_bytes() == content + content


@pytest.mark.parametrize("how", ["throttle", "fail", "reset", "lose"])
@pytest.mark.parametrize("work", ["put", "create", "get", "list", "delete"])
def test_requests_that_fail_are_made_again(object_proxy, object_root, how, work) -> None:
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
            if work is one.read_bytes:
                assert re.search(said, str(caught.value)), str(caught.value)


def test_a_missing_bucket_is_named(object_root) -> None:
    one = ObjectPath("s3://elsewhere/prefix")
    for work in (one.read_bytes, one.is_dir, lambda: one.put(b""), lambda: one.create(b""), one.unlink):
        with pytest.raises(StoreError, match=r"there is no bucket elsewhere; make it, or name another"):
            work()


def test_a_profile_of_aws_gives_credentials(object_root, tmp_path, monkeypatch) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    bucket.connected.cache_clear()
    (object_root / "one").put(b"by profile")
    assert (object_root / "one").read_bytes() == b"by profile"


def test_a_traceback_does_not_show_what_the_server_answered(object_root: Any) -> None:
    bucket = object_root.bucket
    answer = "status code: 403 Forbidden: <CanonicalRequest>x-amz-security-token:very-secret</CanonicalRequest>"
    with pytest.raises(StoreError) as caught, bucket._errors("key"):
        raise bucket._module.exceptions.PermissionDeniedError(answer)
    assert "very-secret" not in "".join(traceback.format_exception(caught.value))


def test_a_forked_process_is_refused_and_does_not_wait_for_ever(object_root: Any) -> None:
    (object_root / "a").put(b"1")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            (object_root / "a").read_bytes()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said.startswith("StoreError: s3://bucket/")
    assert "start processes by `spawn` or `forkserver`" in said
    assert (object_root / "a").read_bytes() == b"1"
