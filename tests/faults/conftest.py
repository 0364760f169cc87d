"""A cache, and runs of it, made once and copied for every fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.commands import EXTRACT, succeed


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the whole cache of `EXTRACT`; to be copied."""
    folder = tmp_path_factory.mktemp("extracted")
    succeed((*EXTRACT, "--root", folder / "root"), folder)
    return folder / "root"


@pytest.fixture(scope="session")
def replayed(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with that cache and two runs; to be copied."""
    folder = tmp_path_factory.mktemp("replayed")
    root = Path(shutil.copytree(extracted, folder / "root"))
    succeed(("replay", "--ablation", "none", "--ablation", "zero", "--from-layer", "11", "--root", root), folder)
    return root
