"""Progress as events: what long work reports, so that the core never prints and its caller decides what to show."""

from __future__ import annotations

from typing import Protocol


class Events(Protocol):
    """What long work tells its caller while it runs."""

    def start(self, phase: str, total: int) -> None:
        """Begin a phase over `total` images; phases do not overlap."""

    def advance(self, images: int, nbytes: int = 0) -> None:
        """Report images done in the current phase, and the bytes read or written for them."""

    def message(self, text: str) -> None:
        """Report a fact that the user should see, such as an image that could not be read."""


class Silent:
    """Events that go nowhere: the default of every function."""

    def start(self, phase: str, total: int) -> None:
        """Ignore the start of a phase."""

    def advance(self, images: int, nbytes: int = 0) -> None:
        """Ignore progress."""

    def message(self, text: str) -> None:
        """Ignore a message."""
