"""The wheel: every file of the packages and nothing else, metadata that fit, a demo that runs elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes, policy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("analyses", "cachetool")
SOURCE = ("LICENSE", "README.md", "docs", "pyproject.toml", "tests", *PACKAGES)

pytestmark = pytest.mark.slow

SMALL_DEMO = """
import sys
from pathlib import Path

import cachetool
from analyses import demo
from cachetool.cli import main

for module in (cachetool, demo):
    assert Path(module.__file__).is_relative_to(sys.argv[1]), module.__file__
demo.TRAIN_IMAGES, demo.EVALUATED_IMAGES, demo.CALIBRATION_IMAGES = 60, 20, 20
sys.argv[1:] = ["demo", "--json"]
main()
"""


def run(*command: str | Path, folder: Path, path: Path | None = None) -> str:
    """Standard output of a command that has to succeed; `path` is where Python looks first."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CACHETOOL_", "PYTHONPATH"))
    }
    environment |= {"OMP_NUM_THREADS": "1"} | ({} if path is None else {"PYTHONPATH": str(path)})
    done = subprocess.run(
        [str(one) for one in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, without a network: by the setuptools of this environment."""
    pytest.importorskip("setuptools", "77", "what builds the wheel is not installed here")
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", made)
    run(sys.executable, "-m", "pip", "wheel", *options, source, folder=source)
    (found,) = made.glob("cachetool-*-py3-none-any.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed; what it needs comes from this environment."""
    site = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel, folder=site)
    return site


def test_it_holds_the_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not re.match(r"cachetool-[^/]+\.dist-info/", name)]
        files = {file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()}
        expected = {str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts}
        assert set(names) == expected
        for name in names:
            assert archive.read(name) == (ROOT / name).read_bytes()
    assert {
        "cachetool/py.typed",
        "cachetool/embedded/tiny-reg.safetensors",
        "analyses/study/published.toml",
    } <= expected


def test_its_metadata_are_those_of_the_project(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (information,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        text = archive.read(f"{information}/METADATA")
        metadata = message_from_bytes(text, policy=policy.default)
        assert archive.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        announced = archive.read(f"{information}/entry_points.txt").decode()
        for module in re.findall(r"= ([\w.]+):", announced):
            place = module.replace(".", "/")
            assert {f"{place}.py", f"{place}/__init__.py"} & set(archive.namelist()), module
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    needed = {one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one}
    assert needed == set(PROJECT["dependencies"]), "the core needs no extra"
    described = text.decode("utf-8").partition("\n\n")[2]
    assert described.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_installed_elsewhere_the_demo_runs(site: Path, tmp_path: Path) -> None:
    document = json.loads(run(sys.executable, "-c", SMALL_DEMO, site, folder=tmp_path, path=site))
    assert document["rows"][0]["edit"] == "registers none"
    assert (tmp_path / document["figure"]).stat().st_size > 10_000
