"""The targets of the fuzzer are alive: they read what is sound, refuse what is broken, and see what is a finding."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.fuzzing.catalogue import TARGETS, make
from tests.hostile.fuzzing.target import Target, run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_tells_sound_input_from_broken(name: str, tmp_path: Path) -> None:
    target = make(name, tmp_path)
    assert all(run(target, start) for start in target.starts)
    assert not run(target, b"")
    for seed in range(10):
        chosen = random.Random(seed)
        start = chosen.choice(target.starts)
        run(target, target.changed(start, chosen.choice))
        run(target, start[: chosen.randrange(len(start))])


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: Path("/etc/passwd").read_bytes(), "what lies outside was looked at: /etc/passwd"),
        (lambda: list(Path("..").iterdir()), "what lies outside was looked at"),
        (lambda: os.system("true"), "the input had os.system called"),
    ],
    ids=["file", "folder", "program"],
)
def test_what_no_input_may_have_done_is_a_finding(tmp_path: Path, read: Callable[[], object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run(Target((b"",), lambda data: read() is not None, tmp_path), b"")


@pytest.mark.slow
def test_atheris_finds_nothing_in_seconds(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: the extra [fuzz]")
    command = [sys.executable, "-m", "tests.hostile.fuzzing", "edit", "--seconds", "5", "--corpora", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "stat::number_of_executed_units" in done.stderr
