"""Completion by a shell: what is offered for a word, by the protocol of shells, and without a word of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analyses.analysis import GROUP
from cachetool.cli.completion import COMPLETING
from cachetool.edits import replacements
from cachetool.plugins import announced

ROOT = Path(__file__).parents[2]
Offered = Callable[[str], list[str]]


@pytest.fixture
def offered(cachetool: Any, monkeypatch: pytest.MonkeyPatch) -> Offered:
    """What bash would be told for the last word of a line; a line that ends with a blank has an empty last word."""

    def complete(line: str) -> list[str]:
        monkeypatch.setenv(COMPLETING, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        outcome = cachetool()
        assert outcome.err == ""
        return [line for line in outcome.out.splitlines() if line]

    return complete


def stores(root: Path, *names: str) -> None:
    """What a listing takes for caches and runs."""
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "zarr.json").write_text("{}")


def test_names_of_models_and_data_sets(offered: Offered) -> None:
    assert offered("cachetool extract tin") == ["tiny-reg"]
    assert offered("cachetool extract dinov2-reg-") == [f"dinov2-reg-{size}" for size in "sblg"]
    assert "timm:" in offered("cachetool extract ")
    assert offered("cachetool extract tiny-reg shap") == ["shapes", "shapes#train", "shapes#calibration"]
    assert offered("cachetool extract tiny-reg imagef") == ["imagefolder:"]
    assert offered("cachetool study --data ade") == ["ade20k", "ade20k#train"]


def test_replacements_and_analyses_are_those_that_there_are(offered: Offered) -> None:
    assert offered("cachetool replay --ablation ") == list(replacements())
    assert offered("cachetool replay --ablation zero --ablation sh") == ["shuffle"]
    assert offered("cachetool analyze ") == list(announced(GROUP))


def test_caches_and_runs_below_the_root(offered: Offered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores(tmp_path / "activations", "shapes/tiny-reg.zarr", "shapes/tiny-reg.runs/zero.zarr", "photos/vit.zarr")
    stores(tmp_path / "other", "shapes/dinov2-s.zarr")
    assert offered("cachetool replay ") == ["photos/vit", "shapes/tiny-reg"]
    assert offered("cachetool evaluate shapes/tiny-reg --train ph") == ["photos/vit"]
    assert offered("cachetool analyze token-norms sh") == ["shapes/tiny-reg"]
    assert offered("cachetool info shapes/") == ["shapes/tiny-reg"]
    assert offered("cachetool info shapes/tiny-reg.") == ["shapes/tiny-reg.runs/zero.zarr"]
    assert offered("cachetool verify --root other ") == ["shapes/dinov2-s"]
    monkeypatch.setenv("CACHETOOL_ROOT", "other")
    assert offered("cachetool diff shapes/dinov2-s ") == ["shapes/dinov2-s"]


def test_what_goes_wrong_is_not_told_in_the_line_of_somebody_who_types(
    offered: Offered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.toml").write_text("not = [toml")
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "data.toml"))
    assert offered("cachetool extract tiny-reg ") == []
    assert offered("cachetool replay --root nowhere ") == []


def test_bash_completes_with_the_script_that_is_shown(tmp_path: Path) -> None:
    """The whole way: the script, a shell that sources it, and a program that answers without importing torch."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "cachetool"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from cachetool.cli import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'xarray'} & set(sys.modules)\n"
    )
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"  # the shell is named, not looked for
    script = (
        'eval "$(cachetool --show-completion bash)"; complete -p cachetool; '
        "COMP_WORDS=(cachetool replay --ablation nor); COMP_CWORD=3; "
        '_cachetool_completion cachetool; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "complete -o default -F _cachetool_completion cachetool",
        "norm-matched",
    ]
