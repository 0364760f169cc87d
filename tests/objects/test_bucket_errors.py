"""What errors of buckets say: the cause, what to do about it, and no secret."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Any

import pytest

from cachetool.errors import MissingPackageError, StoreError
from cachetool.objects import ObjectPath, bucket


def test_a_missing_bucket_is_named(object_root) -> None:
    one = ObjectPath("s3://elsewhere/prefix")
    for work in (one.read_bytes, one.is_dir, lambda: one.put(b""), lambda: one.create(b""), one.unlink):
        with pytest.raises(StoreError, match=r"there is no bucket elsewhere; make it, or name another"):
            work()


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


def test_a_traceback_does_not_show_what_the_server_answered(object_root: Any) -> None:
    bucket = object_root.source
    answer = "status code: 403 Forbidden: <CanonicalRequest>x-amz-security-token:very-secret</CanonicalRequest>"
    with pytest.raises(StoreError) as caught, bucket._errors("key"):
        raise bucket._module.exceptions.PermissionDeniedError(answer)
    assert "very-secret" not in "".join(traceback.format_exception(caught.value))


def test_without_obstore_the_line_that_installs_it_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingPackageError, match=r"(?s)^s3:// .*'cachetool\[s3\]'.*name a local directory as --root"):
        bucket.Bucket("s3", "bucket")
