"""Freed memory is used again: in a process of its own, since the setting stays for good."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from cachetool.backbones import allocation
from cachetool.backbones.allocation import SETTINGS

WORK = """
import importlib.util, json, resource, sys
import numpy as np

# By its file: the package would import torch, which takes seconds.
spec = importlib.util.spec_from_file_location("allocation", sys.argv[1])
allocation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(allocation)
kept = allocation.reuse_freed_memory() if "reuse" in sys.argv else None

def work():
    # What a block of a ViT does to the heap: several arrays of some megabytes are made and dropped together.
    for _ in range(2):
        arrays = [np.full(5 * 2**20 // 4, 1, np.float32) for _ in range(20)]

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(*arguments: str, **environment: str) -> tuple[bool | None, int]:
    """What the setting reports, and page faults of 200 MB that are taken and given back in pieces of 5 MB."""
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", WORK, allocation.__file__, *arguments]
    found = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    kept, count = json.loads(found.stdout)
    return kept, count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_taken_from_the_system_once() -> None:
    kept, with_reuse = faults("reuse")
    assert kept is True
    _, without = faults()
    assert with_reuse < 1000 < without


def test_what_the_environment_says_stays() -> None:
    kept, _ = faults("reuse", MALLOC_TRIM_THRESHOLD_="131072")
    assert kept is False
