"""Ctrl-C while work is going on: once is enough, and it is never lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_AFTER = 0.01
"""Seconds after which an interrupt that was dropped is raised again: by then the destructor has ended."""


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Let the first Ctrl-C end the work, and none after it disturb the block that is still being written.

    Python drops an interrupt that lands in a destructor; it is raised again. What destructors of half-made objects
    say after an interrupt is not shown: it tells a user nothing.
    """
    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    def interrupted() -> bool:
        return signal.getsignal(signal.SIGINT) is not interrupt

    def unraisable(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            signal.signal(signal.SIGINT, interrupt)
            # A real signal to this thread: it also ends a wait for the system.
            threading.Timer(AGAIN_AFTER, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        elif not interrupted():
            hook(dropped)

    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        if not interrupted():  # else the process is about to end
            signal.signal(signal.SIGINT, before)
            sys.unraisablehook = hook
