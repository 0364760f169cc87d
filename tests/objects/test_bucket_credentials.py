"""Credentials of buckets: by variables, by a profile, or none at all."""

from __future__ import annotations

import os
import sys
import urllib.request
from types import SimpleNamespace

import pytest

from cachetool.errors import StoreError
from cachetool.objects import bucket


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
