"""An interrupt ends the work once, also where Python would drop it, and leaves no noise of destructors."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from cachetool.cli.interrupts import interrupted_once


class Dying:
    """An object whose destructor does something."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def fail() -> None:
    raise AttributeError("half made")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[type[BaseException]]]:
    """What the hook of unraisable exceptions was called with, and handlers as they were afterwards."""
    found: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: found.append(dropped.exc_type))
    # A shell without job control starts background commands with interrupts ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield found
    signal.signal(signal.SIGINT, handler)


def work(acts: Callable[[], object]) -> None:
    with interrupted_once():
        acts()


def press_twice() -> None:
    try:
        press()
    finally:
        press()


def test_a_second_press_does_nothing(shown: list[type[BaseException]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(press_twice)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def press_in_a_destructor() -> None:
    Dying(press)
    time.sleep(30)


def test_an_interrupt_dropped_in_a_destructor_is_raised_again(shown: list[type[BaseException]]) -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work(press_in_a_destructor)
    assert time.monotonic() - begun < 10
    assert not shown


def fail_before_and_after() -> None:
    Dying(fail)
    try:
        press()
    finally:
        Dying(fail)


def test_destructors_are_heard_until_an_interrupt(shown: list[type[BaseException]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(fail_before_and_after)
    assert shown == [AttributeError]


def test_all_is_as_before_where_nothing_was_pressed(shown: list[type[BaseException]]) -> None:
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    work(lambda: None)
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == (handler, hook)
