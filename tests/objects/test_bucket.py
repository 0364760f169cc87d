"""What is done with objects: tried again where the server throttles or fails, then refused with words."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
import traceback
import urllib.request
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cachetool.errors import MissingPackageError, StoreError
from cachetool.objects import ObjectPath, Replaced, bucket


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


def test_an_object_is_written_read_and_removed(object_root) -> None:
    one = object_root / "folder" / "one"
    assert not one.is_file()
    one.put(b"0123456789")
    assert one.is_file()
    assert one.read_bytes() == b"0123456789"
    content, tag = one.read_tagged()
    assert (content, one.found().size, one.found().tag) == (b"0123456789", 10, tag)
    end, found = one.source.get_end(one.key, 3)
    assert (bytes(end), found.size, found.tag) == (b"789", 10, tag)
    assert bytes(one.source.get_end(one.key, 100)[0]) == b"0123456789"
    assert bytes(one.source.get_range(one.key, 2, 5, tag)) == b"234"
    (object_root / "empty").put(b"")
    end, found = one.source.get_end((object_root / "empty").key, 3)
    assert (bytes(end), found.size) == (b"", 0)
    one.put(b"abcdefghij")
    with pytest.raises(Replaced, match=f"^{re.escape(str(one))} was replaced .*; run the same command again") as caught:
        one.source.get_range(one.key, 2, 5, tag)
    assert "PreconditionFailed" not in "".join(traceback.format_exception(caught.value)), "what the server answered"
    one.unlink()
    one.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(one))):
        one.read_bytes()
    with pytest.raises(FileNotFoundError):
        one.source.get_end(one.key, 3)


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


def test_a_profile_counts_only_where_it_is_asked_for_and_boto3_is_there(monkeypatch) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert bucket._profile() is None
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
    assert bucket._profile() is None
    boto3 = SimpleNamespace(Boto3CredentialProvider=lambda: "by profile")
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", boto3)
    assert bucket._profile() == "by profile"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    assert bucket._profile() is None, "what is named more closely counts"


@pytest.fixture
def in_memory(monkeypatch):
    """A bucket of another provider, whose objects lie in memory; with what was asked of it."""
    obstore = pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "name")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")

    def make(scheme: str, **replaced: Any) -> bucket.Bucket:
        made = bucket.Bucket(scheme, "bucket")
        made._store = obstore.store.MemoryStore()
        made._module = SimpleNamespace(**{**vars(obstore), **replaced})
        return made

    return make


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
    ("text", "cause"),
    [
        (
            "Generic S3 error: Error performing GET http://host/key in 2s, after 2 retries - Server returned error"
            " response: status code: 503 Service Unavailable: <Error><Code>SlowDown</Code><Message>a - b</Message>",
            "the server answered 503 Service Unavailable, SlowDown (tried 3 times)",
        ),
        ("status code: 418 I am a teapot - with <b>sugar</b>", "the server answered 418 I am a teapot"),
        (
            "Generic S3 error: Error performing GET http://host/key in 2s - HTTP error: it broke\n\nDebug: x - y",
            "HTTP error: it broke",
        ),
        ("no - " + "x" * 300, "x" * 200),
    ],
)
def test_the_cause_is_told_without_request_and_response(text, cause) -> None:
    assert bucket.cause(text) == cause


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


DENIED = "access is denied, or no credentials are at hand"


@pytest.mark.parametrize(
    ("scheme", "kind", "text", "said"),
    [
        (
            "s3",
            "PermissionDeniedError",
            "status code: 403 Forbidden",
            rf"{DENIED} \(the server answered 403 Forbidden\)",
        ),
        (
            "gs",
            "UnauthenticatedError",
            "who",
            rf"{DENIED} \(who\); set GOOGLE_APPLICATION_CREDENTIALS, of somebody who",
        ),
        ("az", "UnauthenticatedError", "who", r"set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, of"),
        ("s3", "GenericError", "asked 169.254.169.254", rf"{DENIED} .*AWS_SESSION_TOKEN too .*or AWS_PROFILE"),
        ("s3", "GenericError", "CredentialsError", DENIED),
        ("s3", "GenericError", "InvalidAccessKeyId", DENIED),
        ("s3", "GenericError", "SignatureDoesNotMatch", DENIED),
        (
            "s3",
            "GenericError",
            "x - NoSuchBucket",
            r"s3://bucket/key: there is no bucket bucket; make it, or name another\.",
        ),
        (
            "s3",
            "NotSupportedError",
            "x - y",
            r"s3://bucket/key: y; see that endpoint and bucket are right and the network is",
        ),
    ],
)
def test_an_error_says_what_to_do_about_it(in_memory, scheme, kind, text, said) -> None:
    made = in_memory(scheme)
    with pytest.raises(StoreError, match=said), made._errors("key"):
        raise getattr(made._module.exceptions, kind)(text)


def test_other_errors_pass(in_memory) -> None:
    made = in_memory("s3")
    with pytest.raises(ZeroDivisionError), made._errors("key"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError) as caught:
        made.head("key")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "s3://bucket/key")
    assert not isinstance(caught.value, StoreError)


def test_without_obstore_the_line_that_installs_it_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingPackageError, match=r"(?s)^s3:// .*'cachetool\[s3\]'.*name a local directory as --root"):
        bucket.Bucket("s3", "bucket")


def test_an_object_tells_when_it_was_written(object_root) -> None:
    (object_root / "one").put(b"1")
    assert abs((object_root / "one").found().modified - time.time()) < 60


def test_public_buckets_are_read_without_credentials(object_root, monkeypatch) -> None:
    one = object_root / "one"
    one.put(b"content")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    bucket.connected.cache_clear()
    with pytest.raises(StoreError, match="access is denied"):
        one.read_bytes()
    url = f"{os.environ['AWS_ENDPOINT_URL']}/bucket/{one.key}?acl"
    signed = {"x-amz-acl": "public-read", "Authorization": "AWS4-HMAC-SHA256 Credential=name/20260101/us-east-1/s3"}
    request = urllib.request.Request(url, method="PUT", headers=signed)
    urllib.request.urlopen(request).close()
    assert one.read_bytes() == b"content"


def test_a_traceback_does_not_show_what_the_server_answered(object_root: Any) -> None:
    bucket = object_root.source
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


def test_lists_have_names_of_what_lies_directly_below_and_keys_of_all(in_memory) -> None:
    made = in_memory("s3")
    for key in ("a/b/c", "a/d", "e"):
        made.put(key, key.encode())
    assert made.children("") == (["a"], {"e": made.head("e")})
    assert made.children("a") == (["b"], {"d": made.head("a/d")})
    assert made.children("absent") == ([], {})
    assert dict(made.walk("")) == {key: made.head(key) for key in ("a/b/c", "a/d", "e")}
    assert dict(made.walk("a")) == {key: made.head(key) for key in ("a/b/c", "a/d")}


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
