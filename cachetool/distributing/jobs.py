"""What travels to workers: a job, which each opens once, and the items of which every task is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from cachetool.environment import RECORDED_PACKAGES
from cachetool.events import Events
from cachetool.objects import Place
from cachetool.store import Owner


class Opened(Protocol):
    """A job as one worker has opened it: model, data set and stores are at hand."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, device and kernels that it computes with."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""

    def run(self, item: Any) -> Any:
        """Do one item."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work on one cache that pickles to little; subclasses open it."""

    cache: Place
    """The cache, as an absolute path."""
    locks: tuple[tuple[Place, Owner], ...] = ()
    """Stores that are written, and who must hold their locks meanwhile."""
    reads: tuple[Place, ...] = ()
    """Further stores that are read, as absolute paths."""
    packages: tuple[str, ...] = RECORDED_PACKAGES
    """What must be installed in the same version here and there."""
    token: str = field(default_factory=lambda: uuid4().hex)
    """Tells jobs apart in the memory of a worker."""

    def open(self, events: Events) -> Opened:
        """Open what the job needs, on a worker; `events` hears of all of its items, and may end them by raising.

        Raises what is then told of that worker.
        """
        raise NotImplementedError
