"""Bad input: a message that says what was expected, what was found and what to do; exit code 2; nothing on disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", "6", "--workers", "0")


def photographs(folder: Path, count: int = 3) -> Path:
    for index in range(count):
        (folder / "cat").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "cat" / f"{index}.jpg")
    return folder


def refused(outcome: Any, *fragments: str) -> None:
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for fragment in fragments:
        assert fragment in outcome.err, f"{fragment!r} is not in {outcome.err!r}"


def test_neither_weights_nor_data(cachetool: Any) -> None:
    outcome = cachetool("extract", "dinov2-reg-b", "imagenet-val")
    refused(outcome, "imagenet-val", "CACHETOOL_DATA", "dinov2-reg-b", "--weights FILE")
    assert not Path("activations").exists()
    assert 4 <= len(outcome.err.strip().splitlines()) <= 6


def test_unknown_model(cachetool: Any) -> None:
    refused(cachetool("extract", "dinov2-reg-x", "shapes"), "dinov2-reg-x", "cachetool models")
    assert not Path("activations").exists()


def test_unknown_dataset(cachetool: Any) -> None:
    refused(cachetool("extract", "tiny-reg", "shape"), "shape", "shapes")


def test_a_checkpoint_that_is_not_here_is_named_once(cachetool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    outcome = cachetool("extract", "hf:nowhere", "shapes")
    refused(outcome, "hf:nowhere is not on this machine", "--weights FILE")
    assert outcome.err.count("hf:nowhere") == 1


@pytest.mark.usefixtures("extracted")
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--ablation", "zeroo"), ("zeroo", "zero")),
        (("--ablation", "zero", "--from-layer", "13"), ("13", "0 to 12")),
        (("--ablation", "zero", "--from-layer", "six"), ("six", "--from-layer")),
        (("--ablation", "zero", "--from-layer", "12-3"), ("12-3", "--from-layer")),
        (("--ablation", "zero", "--root", "nothing://bucket"), ("nothing://bucket", "local")),
        (("--ablation", "zero", "--tokens", "registers:7"), ("7", "4 registers")),
        (("--ablation", "zero", "--tokens", "register"), ("register", "registers")),
        (("--ablation", "zero", "--keep", "3", "--from-layer", "6"), ("3", "6")),
        (("--ablation", "patch:nothing.png"), ("nothing.png",)),
        (("--ablation", "mean", "--no-overlap"), ("6 of 6", "--calibration")),
        (("--ablation", "mean", "--calibration", "nowhere.zarr"), ("nowhere.zarr",)),
        (("--ablation", "zero", "--once", "--until-layer", "7"), ("7",)),
        ((), ("--ablation",)),
        (("nowhere/model", "--ablation", "zero"), ("nowhere/model", "shapes/tiny-reg.zarr")),
    ],
)
def test_bad_replays(cachetool: Any, arguments: tuple[str, ...], fragments: tuple[str, ...]) -> None:
    refused(cachetool("replay", *arguments), *fragments)
    assert not list(Path("activations").glob("*/*.runs/*.zarr"))


def test_registers_of_a_model_without_them(cachetool: Any, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    folder = photographs(tmp_path / "photos")
    done = cachetool("extract", "timm:test_vit", f"imagefolder:{folder}", "--weights", weights, "--workers", "0")
    assert done.code == 0, done.err
    refused(cachetool("replay", "--ablation", "zero"), "registers", "no registers", "cls, patches")


def test_truncated_jpeg_stops_and_names_the_file_or_becomes_nan(cachetool: Any, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos")
    broken = folder / "cat" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    arguments = ("extract", "tiny-reg", f"imagefolder:{folder}", "--workers", "0")
    refused(cachetool(*arguments), str(broken), "--on-error continue")
    outcome = cachetool(*arguments, "--on-error", "continue")
    assert outcome.code == 0
    assert str(broken) in outcome.err
    import cachetool as package

    (path,) = Path("activations").glob("*/*.zarr")
    cache = package.open(path)
    assert cache.readable.values.tolist() == [True, False, True]
    assert np.isnan(cache.patches.isel(image=1)).all()
    assert not np.isnan(cache.patches.isel(image=[0, 2])).any()


def test_weights_of_another_architecture(cachetool: Any, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    refused(cachetool("extract", "dinov2-reg-s", "shapes", "--weights", weights), weights.name, "reg_token")
    assert not Path("activations").exists()


def test_weights_that_are_no_weights(cachetool: Any, tmp_path: Path) -> None:
    for name in ("absent.safetensors", "garbage.safetensors", "garbage.pth"):
        if name.startswith("garbage"):
            (tmp_path / name).write_bytes(b"not weights at all")
        refused(cachetool("extract", "dinov2-reg-s", "shapes", "--weights", tmp_path / name), name)


@pytest.mark.usefixtures("extracted")
def test_another_key_at_the_same_place(cachetool: Any) -> None:
    before = sorted(Path("activations").rglob("*"))
    refused(cachetool(*EXTRACT, "--dtype", "float32"), "dtype", "float16", "float32", "--name")
    refused(cachetool(*EXTRACT, "--image-size", "96"), "size", "64", "96", "--name")
    assert sorted(Path("activations").rglob("*")) == before
    assert cachetool(*EXTRACT, "--dtype", "float32", "--name", "tiny-reg-float32").code == 0


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--layers", "13"), ("13", "12")),
        (("--tokens", "registers,heads"), ("heads", "registers")),
        (("--dtype", "float64"), ("float64", "float16")),
        (("--part", "3/2"), ("3/2",)),
        (("--root", "ftp://host/x"), ("ftp://host/x", "s3://")),
        (("--on-error", "ignore"), ("ignore", "continue")),
        (("--device", "warp"), ("warp", "cpu")),
        (("--name", "../x"), ("../x",)),
    ],
)
def test_bad_extractions(cachetool: Any, arguments: tuple[str, ...], fragments: tuple[str, ...]) -> None:
    outcome = cachetool(*EXTRACT, *arguments)
    refused(outcome, *fragments)
    assert "hash" not in outcome.err, "of a large data set that takes an hour"
    assert not Path("activations").exists()


def test_a_part_without_blocks(cachetool: Any) -> None:
    outcome = cachetool(*EXTRACT, "--part", "1/99")
    assert outcome.code == 0
    assert "nothing to do: none of these images of activations/shapes/tiny-reg.zarr falls to --part 1/99" in outcome.err


def test_a_root_that_cannot_be_written(cachetool: Any, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("precious")
    refused(cachetool(*EXTRACT, "--root", in_the_way), str(in_the_way))
    assert in_the_way.read_text() == "precious"


def test_a_read_only_directory(cachetool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser may write to any directory, so the file system's own answer is played."""
    make = os.mkdir

    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        if str(path).startswith(str(tmp_path / "read-only")):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    refused(cachetool(*EXTRACT, "--root", tmp_path / "read-only"), str(tmp_path / "read-only"), "ead-only")
    assert not (tmp_path / "read-only").exists()


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    """A limit on file size makes write() fail in mid-shard, as a full disk does."""
    root = tmp_path / "activations"
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); "
    script += "from cachetool.cli import main; sys.argv[0] = 'cachetool'; main()"
    command = [sys.executable, "-c", script, *EXTRACT, "--root", str(root)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert outcome.returncode == 2, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert str(root) in outcome.stderr
    cache = root / "shapes" / "tiny-reg.zarr"
    assert not list((cache / ".cachetool" / "blocks").glob("*.json"))
    assert not list(cache.rglob("*partial*"))


@pytest.mark.usefixtures("extracted")
def test_a_list_of_images_that_is_no_text(cachetool: Any) -> None:
    Path("ids").write_bytes(b"\xff\xd8\xff\xe0")
    refused(cachetool("calibrate", "--images", "ids"), "--images ids: expected a text file in UTF-8 with one image id")
    assert not list(Path("activations").rglob("*.calibrations"))


@pytest.mark.usefixtures("extracted")
def test_a_seed_that_draws_nothing(cachetool: Any) -> None:
    for seed in (-1, 2**128):
        refused(cachetool("verify", "--seed", str(seed)), f"--seed {seed}: expected an integer from 0")


@pytest.mark.usefixtures("extracted")
def test_what_a_verification_is_to_use_has_to_be_there(cachetool: Any) -> None:
    refused(cachetool("verify", "--weights", "nowhere"), "no weights file at nowhere")
    refused(cachetool("verify", "--device", "warp"), "--device warp", "cpu")
    refused(cachetool("verify", "--workers", "-1"), "--workers")


@pytest.mark.usefixtures("extracted")
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("evaluate", "--task", "retrieval", "--confidence", "2"), ("--confidence 2", "between 0 and 1", "0.95")),
        (("evaluate", "--task", "retrieval", "--confidence", "nan"), ("--confidence nan",)),
        (("analyze", "token-norms", "--output", "results"), ("results is a directory", "results/result.nc")),
        (("analyze", "token-norms", "--output", "file/a.nc"), ("file cannot be a directory",)),
        (("analyze", "token-norms", "--option", "threshold=nan"), ("threshold=nan", "finite")),
    ],
)
def test_what_results_are_to_be_is_looked_at_before_any_work(
    cachetool: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], fragments: tuple[str, ...]
) -> None:
    Path("results").mkdir()
    Path("file").write_text("precious")
    for work in ("analyses.evaluation.evaluate.cachetool.open", "analyses.analyze.cachetool.open"):
        monkeypatch.setattr(work, None)
    refused(cachetool(*arguments), *fragments)
    assert Path("file").read_text() == "precious"
    assert list(Path("results").iterdir()) == []


def test_a_study_that_is_no_text(cachetool: Any) -> None:
    Path("mine.toml").write_bytes(b"name = '\xe9'")
    for arguments in (("mine.toml",), ("--print", "mine.toml")):
        refused(cachetool("study", *arguments), "mine.toml is no TOML")


def test_names_that_are_not_utf_8(cachetool: Any) -> None:
    """A root may have any name, which is printed as it is; what a store would record may not."""
    root = os.fsdecode(b"caf\xe9")
    done = cachetool(*EXTRACT, "--layers", "12", "--tokens", "cls", "--root", root)
    assert done.code == 0, done.err
    assert done.out == f"{root}/shapes/tiny-reg.zarr\n"
    photographs(Path(root, "photos"))
    refused(
        cachetool("extract", "tiny-reg", f"imagefolder:{root}/photos"), "records names as UTF-8", "caf\\udce9/photos"
    )
    assert not Path("activations").exists()
