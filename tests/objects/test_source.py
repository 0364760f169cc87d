"""What every source shares: content without its tag, and writing refused by name where only reading is safe."""

from __future__ import annotations

from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import Replaced
from cachetool.objects.source import Source, read_only


class Reading(Source):
    """A source that can only be read."""

    def _url(self, key: str) -> str:
        return f"odd://host/{key}"

    def get_tagged(self, key: str) -> tuple[bytes, str | None]:
        return key.encode(), "tag"

    head = get_end = get_range = children = walk = zarr_store = look_anew = None  # type: ignore[assignment]


def test_content_comes_without_its_tag() -> None:
    assert Reading().get("one") == b"one"


@pytest.mark.parametrize(
    ("work", "key"),
    [
        (lambda source: source.put("one", b""), "one"),
        (lambda source: source.create("one", b""), "one"),
        (lambda source: source.replace("one", b"", "tag"), "one"),
        (lambda source: source.delete(["two", "one"]), "two"),
    ],
)
def test_writing_is_refused_by_name(work: Any, key: str) -> None:
    with pytest.raises(StoreError) as caught:
        work(Reading())
    assert str(caught.value) == str(read_only(f"odd://host/{key}"))
    Reading().delete([])


def test_what_can_be_done_instead_is_said() -> None:
    said = (
        "odd://host/one: what lies at odd:// can only be read, since two writers could not be kept apart there;"
        " nothing was changed. Copy the cache with all that lies beside it to a local disk, or"
        " to an s3://, gs:// or az:// root, and name that"
    )
    assert str(read_only("odd://host/one")) == f"{said}."
    assert str(read_only("odd://host/one", "wait")) == f"{said}, or wait."


def test_whoever_does_not_look_anew_is_told_what_happened() -> None:
    assert str(Replaced("odd://host/one")) == (
        "odd://host/one was replaced by another process while it was read; run the same command again."
    )
