"""Without a package, the commands that need it say so and end with exit code 2; all others work.

Each set of packages is tried in a process of its own, in which importing them fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cachetool.errors import MissingPackageError
from cachetool.packages import require

COMMANDS_WITHOUT = """
import contextlib, io, json, sys

blocked, commands = json.loads(sys.argv[1])

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from cachetool.cli import main

outcomes = []
for arguments in commands:
    sys.argv = ["cachetool", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    outcomes.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(outcomes))
"""

SMALL = ("--limit", "12", "--workers", "0")
CACHE, TRAIN = "shapes/tiny-reg", "shapes-train/tiny-reg"

EVERYTHING = {
    "models": ("models", "--json"),
    "datasets": ("datasets", "--json"),
    "extract": ("extract", "tiny-reg", "shapes", *SMALL),
    "extract to train on": ("extract", "tiny-reg", "shapes#train", "--layers", "12", *SMALL),
    "info": ("info", CACHE),
    "calibrate": ("calibrate", CACHE),
    "replay": ("replay", CACHE, "--ablation", "none", "--ablation", "zero", "--from-layer", "9"),
    "verify": ("verify", CACHE, "--recompute", "1"),
    "diff": ("diff", CACHE, CACHE),
    "analyze, list": ("analyze", "--json"),
    "analyze": ("analyze", "token-norms", CACHE, "--layers", "12"),
    "evaluate": ("evaluate", CACHE, "--train", TRAIN, "--task", "retrieval"),
    "study, list": ("study", "--list"),
    "export": ("export", CACHE, "cls.h5", "--tokens", "cls", "--layers", "12"),
    "import": ("import", "cls.h5", "--root", "received"),
    "remove": ("remove", "received/shapes/tiny-reg.zarr", "--yes"),
}

QUICK = ("datasets", "study, list")
"""What is tried outside of the slow tests."""

DRAWING = {
    "demo": (("demo",), {"matplotlib"}),
    "report": (("report",), {"jinja2", "matplotlib", "plotly"}),
    "analyze, figures": (("analyze", "token-norms", CACHE, "--figures"), {"matplotlib"}),
    "study": (("study", "zero-ablation"), {"matplotlib"}),
}


def without(packages: set[str], commands: list[tuple[str, ...]], folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of commands that follow each other in an empty folder."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    for name in ("CACHETOOL_ROOT", "CACHETOOL_DATA"):
        environment.pop(name, None)
    arguments = json.dumps([sorted(packages), commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS_WITHOUT, arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("names", [QUICK, tuple(EVERYTHING)], ids=["some", "all"])
def test_without_what_draws_only_what_draws_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    packages = {"jinja2", "matplotlib", "plotly"}
    commands = [*(EVERYTHING[name] for name in names), *(arguments for arguments, _ in DRAWING.values())]
    outcomes = without(packages, commands, tmp_path)
    for name, (code, _, err) in zip(names, outcomes, strict=False):
        assert code == 0, f"{name}: {err}"
    for (name, (_, needed)), (code, out, err) in zip(DRAWING.items(), outcomes[len(names) :], strict=True):
        assert code == 2, f"{name}: {err}"
        assert out == ""
        assert "Traceback" not in err
        assert "pip install 'cachetool[report]'" in err
        assert {package for package in packages if f"\n  {package} (ModuleNotFoundError: " in err} == needed, name
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= {"activations", "received", "cls.h5"}, "what is refused leaves nothing"


def test_without_obstore_only_what_names_an_object_store_is_refused(tmp_path: Path) -> None:
    there = "s3://bucket/activations"
    commands = [("info", "--root", there), ("info", f"{there}/shapes/tiny-reg.zarr"), ("info",)]
    *refused, other = without({"obstore"}, commands, tmp_path)
    for code, out, err in refused:
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        assert "s3:// needs packages that cannot be imported:\n  obstore (ModuleNotFoundError: " in err
        assert "pip install 'cachetool[s3]'" in err
    assert other[0] == 0, other[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_hdf5_caches_are_made_replayed_and_verified(tmp_path: Path) -> None:
    concerned = {"analyze", "evaluate", "export", "import", "remove"}  # results are netCDF; nothing was imported
    outcomes = without({"h5netcdf", "h5py"}, list(EVERYTHING.values()), tmp_path)
    for name, (code, _, err) in zip(EVERYTHING, outcomes, strict=True):
        assert code == (2 if name in concerned else 0), f"{name}: {err}"
        assert "Traceback" not in err
    for name, (_, _, err) in zip(EVERYTHING, outcomes, strict=True):
        if name in concerned - {"remove"}:
            assert "this command needs the package h5" in err, f"{name}: {err}"
            assert "pip install cachetool" in err


@pytest.mark.parametrize("error", [ImportError("libbroken.so: no such file"), AttributeError("_ARRAY_API"), OSError()])
def test_a_package_that_is_there_but_broken(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(name: str) -> Any:
        raise error

    monkeypatch.setattr("cachetool.packages.import_module", broken)
    with pytest.raises(MissingPackageError) as refused:
        require("cachetool weave", ["loom.shuttle", "yarn"], "weaving", "spin")
    assert isinstance(refused.value, ImportError)
    reason = f"{type(error).__name__}: {error}"
    assert str(refused.value) == (
        f"cachetool weave needs packages that cannot be imported:\n  loom ({reason})\n  yarn ({reason})\n"
        "install them with: pip install 'cachetool[weaving]' (with --force-reinstall where one is there but broken),"
        " or spin"
    )


def test_a_defect_of_our_own_is_not_blamed_on_a_package(cachetool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cachetool.places", None)
    with pytest.raises(ImportError):
        cachetool("info")
