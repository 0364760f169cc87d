"""One kind of somebody else's input, and what reading it may come to: it is accepted or refused by name."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetool.errors import CachetoolError
from tests.hostile.mutation import Choose, change

SECONDS = 20.0
"""Of the processor's time that no input may take."""

READS = ("open", "os.listdir", "os.scandir")
NEVER = ("os.exec", "os.posix_spawn", "os.system", "socket.connect", "subprocess.Popen")
"""Events of Python's audit: what looks at a file or folder, and what no input may have done."""


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    starts: tuple[bytes, ...]
    """Sound inputs, from which the fuzzer starts."""
    read: Callable[[bytes], bool]
    """Whether an input is read; False where it is refused by a message that names it. All else is raised."""
    place: Path
    """The only file or folder that reading may look at."""
    changed: Callable[[bytes, Choose], bytes] = lambda data, choose: data
    """The input with a part replaced, of a format that changes of single bytes break at once."""


def run(target: Target, data: bytes) -> bool:
    """Read an input; whether it was accepted. Raises what is a finding."""
    began = time.process_time()
    with _audited() as noted:
        accepted = target.read(data)
    taken = time.process_time() - began
    # Modules are imported when they are first needed, and some ask the system for its memory.
    known = (target.place, Path(__file__).parents[3], sys.prefix, sys.base_prefix, "/proc", "/sys", *sys.path)
    allowed = [Path(folder).absolute() for folder in known if folder]
    for event, what in noted:
        if event in NEVER:
            raise AssertionError(f"the input had {event} called with {what!r}")
        if isinstance(what, str | bytes | Path):
            path = Path(os.path.abspath(os.fsdecode(what)))  # noqa: PTH100 (`..` has to go)
            assert any(path.is_relative_to(folder) for folder in allowed), f"what lies outside was looked at: {path}"
    assert taken < SECONDS, f"it took {taken:.0f} s"
    return accepted


_noted: list[tuple[str, Any]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _noted is not None and (event in READS or event in NEVER):
        _noted.append((event, arguments[0]))


@contextmanager
def _audited() -> Iterator[list[tuple[str, Any]]]:
    """What happens while the block runs, each event with its first argument; Python cannot take a hook away again."""
    global _noted
    if not getattr(_note, "hooked", False):
        sys.addaudithook(_note)
        _note.hooked = True  # type: ignore[attr-defined]
    _noted = noted = []
    try:
        yield noted
    finally:
        _noted = None


def refused_by_name(read: Callable[[], object], name: str) -> bool:
    """Whether a reading is accepted; a refusal must name the place."""
    try:
        read()
    except CachetoolError as error:
        assert name in str(error), error
        return False
    return True


def changed_json(data: bytes, choose: Choose) -> bytes:
    """A JSON document with a part replaced; what is none stays as it is."""
    try:
        return json.dumps(change(json.loads(data), choose)).encode()
    except (ValueError, RecursionError):
        return data
