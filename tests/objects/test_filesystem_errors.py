"""What drivers of fsspec fail with: what is asked for again, for how long, and what errors say."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from cachetool.errors import DamagedError, MissingPackageError, StoreError
from cachetool.objects import ObjectPath, filesystem
from tests.objects.failing import Failing


def times(count: int, error: Exception) -> Callable[[str], None]:
    left = [count]

    def fail(what: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return staticmethod(fail)  # type: ignore[return-value]


@pytest.mark.parametrize("error", [OSError("reset"), TimeoutError(), EOFError(), ValueError("?token=very-secret&b=1")])
def test_what_fails_is_asked_for_again_over_a_new_connection(one: ObjectPath, error: Exception) -> None:
    Failing.fail = times(filesystem.TRIES - 1, error)
    before = Failing.made
    assert one.read_bytes() == b"0123456789"
    assert Failing.made >= before + filesystem.TRIES - 1
    Failing.fail = times(99, error)
    for work in (one.read_bytes, one.is_file, lambda: one.source.get_range(one.key, 1, 2)):
        with pytest.raises(StoreError, match=r"failing://host/folder/one: .*fsspec \(.*try again") as caught:
            work()
        assert "very-secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert type(error).__name__ in str(caught.value)


def test_later_pauses_are_longer(one: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 2.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(filesystem.random, "uniform", lambda low, high: low)
    Failing.fail = times(99, OSError("reset"))
    with pytest.raises(StoreError, match="reset"):
        one.read_bytes()
    monkeypatch.setattr(filesystem.random, "uniform", lambda low, high: high)
    Failing.fail = times(1, OSError("reset"))
    assert one.read_bytes() == b"0123456789"
    assert pauses == [1.0, 4.0, 3.0]


def test_a_refusal_is_not_repeated(one: ObjectPath) -> None:
    asked = []

    def fail(what: str) -> None:
        asked.append(what)
        raise PermissionError(13, "not yours")

    Failing.fail = staticmethod(fail)
    with pytest.raises(StoreError, match=r"PermissionError: .*not yours"):
        one.read_bytes()
    assert asked == ["cat_file"]


def test_a_driver_that_is_asynchronous_is_given_up_after_a_while() -> None:
    def told(*arguments: Any, **options: Any) -> tuple[Any, ...]:
        return arguments, options

    limited = {"timeout": filesystem.LONGEST_SECONDS}
    for driver, options in (
        (SimpleNamespace(async_impl=True, work=told), limited),
        (SimpleNamespace(async_impl=False, work=told), {}),
        (type("Other", (), {"async_impl": True, "work": staticmethod(told)})(), {}),
    ):
        assert filesystem._call(driver, "work", 1, b=2) == ((1,), {"b": 2, **options})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("first\nsecond"), "(OSError: first)"),
        (OSError(), "(OSError)"),
        (OSError("at http://a?x=1&y=2 and http://b?z"), "(OSError: at http://a?... and http://b?...)"),
        (OSError("x" * 300), f"(OSError: {'x' * 200})"),
    ],
)
def test_what_a_driver_says_is_shown_in_one_line(one: ObjectPath, error: Exception, said: str) -> None:
    Failing.fail = times(99, error)
    with pytest.raises(StoreError) as caught:
        one.read_bytes()
    assert str(caught.value) == (
        f"failing://host/folder/one: it cannot be read through fsspec {said}; see that the URL is right, open to you,"
        " and that the network is up, then try again."
    )


def test_an_error_of_ours_passes_as_it_is(one: ObjectPath) -> None:
    Failing.fail = times(1, DamagedError("as it is"))
    with pytest.raises(DamagedError, match=r"^as it is$"):
        one.read_bytes()


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(scheme: str) -> Any:
        raise ImportError('SFTPFileSystem requires "paramiko" to be installed')

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(MissingPackageError, match=r'sftp:// URLs .*requires "paramiko" to be installed; install it'):
        ObjectPath("sftp://without-driver/a").read_bytes()
