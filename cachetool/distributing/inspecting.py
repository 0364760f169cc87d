"""Whether the workers of a cluster can do a job: the same versions, the same files, one kind of device."""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import Description
from cachetool.errors import CachetoolError, ClusterError
from cachetool.store import lock_path

Found = Mapping[str, Any]
"""By the address of a worker, what it answered; an exception where it could not."""


def witnesses(job: Job) -> dict[str, str]:
    """Files by path, with digests of their content, that a worker sees if it sees the stores of a job.

    Of stores that are written it is the lock: no other root has one of this process.
    """
    files = [lock_path(store, owner) for store, owner in job.locks]
    files = files or [store / "zarr.json" for store in (job.cache, *job.reads)]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def probe() -> Callable[..., dict[str, Any]]:
    """A function that tells versions, and what is wrong with files, on a worker where cachetool may be missing.

    It is made here, so that it travels as code and not as the name of a module.
    """

    def look(packages: Sequence[str], files: Mapping[str, str], folders: Sequence[str]) -> dict[str, Any]:
        import hashlib
        import os
        from importlib.metadata import PackageNotFoundError, version

        versions: dict[str, str | None] = {}
        for name in packages:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                versions[name] = None
        problems = []
        for file, digest in files.items():
            try:
                if "://" in file:
                    from cachetool.objects import place

                    content = place(file).read_bytes()
                else:
                    content = Path(file).read_bytes()
                if hashlib.sha256(content).hexdigest() != digest:
                    problems.append(f"{file} is another file there than here")
            except (OSError, ImportError) as error:
                problems.append(f"{file} cannot be read ({getattr(error, 'strerror', None) or error})")
        on_disks = [folder for folder in folders if "://" not in folder]
        problems += [f"{folder} cannot be written" for folder in on_disks if not os.access(folder, os.W_OK)]
        return {"versions": versions, "problems": problems}

    return look


def check_python(found: Found, names: Mapping[str, str]) -> None:
    """Raise `ClusterError` naming every worker of another minor version of Python: code does not travel there."""
    here = platform.python_version()
    problems = {
        address: _said(answer) if isinstance(answer, BaseException) else f"Python {answer} (here {here})"
        for address, answer in found.items()
        if isinstance(answer, BaseException) or answer.split(".")[:2] != here.split(".")[:2]
    }
    _refuse(problems, found, names, "all must have the Python of this process, but for its third number")


def check_sight(found: Found, names: Mapping[str, str]) -> None:
    """Raise `ClusterError` naming every worker that lacks a package, has another version, or another root."""
    problems: dict[str, str] = {}
    for address, answer in found.items():
        if isinstance(answer, BaseException):
            problems[address] = _said(answer)
            continue
        different = [
            f"{name} {there or 'is missing'} (here {version(name)})"
            for name, there in answer["versions"].items()
            if there != version(name)
        ]
        if wrong := [*different, *answer["problems"]]:
            problems[address] = "; ".join(wrong)
    _refuse(
        problems,
        found,
        names,
        f"all must have the versions of this process (on {socket.gethostname()}), and see the same --root under the "
        "same path, on a shared file system, or in an object store whose credentials their environment has",
    )


def agreed(found: Found, names: Mapping[str, str]) -> Description:
    """What all workers say of a job that they have opened.

    Raises `ClusterError` naming every worker that cannot open it, or that computes with another device than others:
    which worker takes a block is a matter of chance, and values must not be.
    """
    problems = {address: _said(answer) for address, answer in found.items() if not isinstance(answer, Description)}
    _refuse(problems, found, names, "mend this, or stop these workers; the same command goes on from there")
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for address, answer in found.items():
        kinds.setdefault(tuple(sorted(answer.decisive.items())), []).append(address)
    first = next(iter(found.values()))
    if len(kinds) == 1:
        described: Description = first
        return described
    lines = []
    for parts, addresses in kinds.items():
        told = dict(parts)
        listing = ", ".join(names[address] for address in addresses)
        lines.append(
            f"  {told['device']} ({told['kernel']}, {told['machine']}), batches of {told['batch_size']}: {listing}"
        )
    raise ClusterError(
        "the workers compute with different devices or kernels, so that values would depend on which one takes a "
        "block:\n" + "\n".join(lines) + "\nstart workers of one kind, or name a --device that all have"
    )


def _refuse(problems: Mapping[str, str], found: Found, names: Mapping[str, str], advice: str) -> None:
    if problems:
        listing = "\n".join(f"  {names[address]}: {text}" for address, text in problems.items())
        raise ClusterError(f"{len(problems)} of {len(found)} workers cannot take part:\n{listing}\n{advice}")


def _said(error: Any) -> str:
    """What an exception says; of one that is no message for the user, its type too."""
    return str(error) if isinstance(error, CachetoolError) else f"{type(error).__name__}: {error}"
