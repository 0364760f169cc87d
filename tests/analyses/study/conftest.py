"""One small study on the embedded model and data, run through the command line and shared by the tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cachetool.cli import build
from tests.reference.quick import quick

EVALUATED, TRAINING, CALIBRATED = 24, 40, 20

SMALL = f"""
name = "small"
resamples = 200
seed = 3
[calibration]
data = "shapes#calibration"
limit = {CALIBRATED}
[[models]]
name = "tiny-reg"
[[data]]
evaluate = "shapes#val"
train = "shapes#train"
tasks = ["classification", "retrieval", "segmentation", "correspondence"]
limit = {EVALUATED}
train_limit = {TRAINING}
[[edits]]
name = "registers replaced"
targets = ["registers"]
replacements = ["zero", "shuffle"]
seeds = 2
[[edits]]
name = "refitted"
targets = ["registers"]
replacements = ["zero"]
refit = true
[[edits]]
name = "registers gone"
targets = ["registers"]
replacements = ["remove"]
from_layers = [-3]
[[edits]]
name = "[CLS]"
targets = ["cls"]
replacements = ["mean"]
from_layers = [6]
until_layers = [-2, -1]
"""


@dataclass(frozen=True)
class Finished:
    """A study that was run."""

    file: Path
    root: Path
    directory: Path
    document: dict[str, Any]
    """What `--json` printed."""

    @property
    def cache(self) -> Path:
        """The evaluated cache."""
        return self.root / "shapes" / "tiny-reg.zarr"


@contextmanager
def one_strength() -> Iterator[None]:
    """Segmentation's head is fitted once instead of once per strength; the choice has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analyses.tasks.soft_probe.GRID", (0.01,))
        yield


@pytest.fixture(scope="module", autouse=True)
def _one_strength_module() -> Iterator[None]:
    with one_strength():
        yield


@pytest.fixture(scope="session")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("definition") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def finished(definition: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Tests read it; they must neither remove anything nor add images."""
    folder = tmp_path_factory.mktemp("finished")
    root, directory = folder / "root", folder / "tables"
    arguments = ["study", definition, "--root", root, "--output", directory, "--workers", 0, "--no-figures", "--json"]
    with quick(), one_strength():
        result = CliRunner().invoke(build(), [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return Finished(definition, root, directory, json.loads(result.stdout))
