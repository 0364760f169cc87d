from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cachetool as package


def test_the_two_commands_of_the_mission(cachetool: Any) -> None:
    extracted = cachetool("extract", "tiny-reg", "shapes", "--limit", "12", "--workers", "0", "--json")
    assert extracted.code == 0
    cache = json.loads(extracted.out)["cache"]
    assert cache == "activations/shapes/tiny-reg.zarr"

    replayed = cachetool("replay", "--ablation", "shuffle", "--from-layer", "6", "--json")
    assert replayed.code == 0
    (run,) = json.loads(replayed.out)["runs"]
    assert (run["target"], run["replacement"], run["from_layer"], run["sustained"]) == ("registers", "shuffle", 6, True)
    assert run["certificate"]["relative_error"] < 1e-2
    with xr.open_zarr(run["path"]) as plain:
        assert plain.cls.dims == ("image", "layer", "channel")
        assert plain.layer.values.tolist() == [12]
        assert (plain.donor.values != np.arange(12)).all()


def test_the_same_extraction_again_does_nothing_and_says_so(cachetool: Any) -> None:
    first = cachetool("extract", "tiny-reg", "shapes", "--limit", "8", "--workers", "0", "--layers", "12")
    files = {path: path.stat().st_mtime_ns for path in Path("activations").rglob("c.*") if path.is_file()}
    again = cachetool("extract", "tiny-reg", "shapes", "--limit", "8", "--workers", "0", "--layers", "12")
    assert first.code == again.code == 0
    assert "nothing to do" in again.err
    assert files == {path: path.stat().st_mtime_ns for path in Path("activations").rglob("c.*") if path.is_file()}


def test_json_is_the_only_thing_on_standard_output(cachetool: Any) -> None:
    for arguments in (("models",), ("datasets",), ("info",)):
        outcome = cachetool(*arguments, "--json")
        assert outcome.code == 0
        assert isinstance(json.loads(outcome.out), dict)


def test_ways_to_name_others_are_listed(cachetool: Any) -> None:
    forms = {form["name"] for form in json.loads(cachetool("models", "--json").out)["forms"]}
    assert forms == {"timm:NAME", "hf:REPO", "hf:DIR"}
    assert all(form in cachetool("models").out for form in forms)
    names = {entry["name"] for entry in json.loads(cachetool("datasets", "--json").out)["datasets"]}
    assert {"hf:REPO", "hf:DIR", "webdataset:TARS"} < names


def test_several_ablations_targets_layers_and_seeds(cachetool: Any) -> None:
    cachetool("extract", "tiny-reg", "shapes", "--limit", "10", "--workers", "0")
    outcome = cachetool(
        "replay", "--ablation", "zero", "--ablation", "noise", "--tokens", "registers", "--tokens", "cls",
        "--from-layer", "3,9", "--repeat", "2", "--once", "--keep", "all", "--json",
    )  # fmt: skip
    runs = json.loads(outcome.out)["runs"]
    # zero has no randomness, so two seeds would give one run; noise has two.
    assert len(runs) == 2 * 2 * (1 + 2)
    joined = package.open_runs("activations/shapes/tiny-reg.zarr")
    assert joined.sizes["run"] == len(runs)
    assert sorted(set(joined.from_layer.values.tolist())) == [3, 9]


def test_dry_run_writes_nothing_and_predicts_the_bytes_on_disk(cachetool: Any) -> None:
    arguments = ("extract", "tiny-reg", "shapes", "--limit", "16", "--workers", "0")
    planned = cachetool(*arguments, "--dry-run", "--json")
    assert not Path("activations").exists()
    done = cachetool(*arguments, "--json")
    predicted, written = json.loads(planned.out)["disk_bytes"], json.loads(done.out)["bytes_written"]
    assert predicted <= written <= predicted * 1.01  # the rest is indices and checksums
    plan = json.loads(cachetool("replay", "--ablation", "zero", "--from-layer", "9", "--dry-run", "--json").out)
    assert plan["blocks_run"] == 3
    assert plan["blocks_of_full_forwards"] == 12
    assert not Path("activations/shapes/tiny-reg.runs").exists()


def test_images_that_are_not_at_hand_are_only_planned(cachetool: Any) -> None:
    arguments = ("extract", "tiny-reg", "shapes", "--limit", "8", "--images", "50000")
    plan = json.loads(cachetool(*arguments, "--dry-run", "--json").out)
    assert plan["total_images"] == 50_000
    refused = cachetool(*arguments)
    assert refused.code == 2
    assert "--dry-run" in refused.err
    assert not Path("activations").exists()


def test_calibrate_then_replay_with_it(cachetool: Any) -> None:
    cachetool("extract", "tiny-reg", "shapes", "--limit", "10", "--workers", "0")
    cachetool("extract", "tiny-reg", "shapes#calibration", "--limit", "20", "--workers", "0")
    made = cachetool("calibrate", "shapes-calibration/tiny-reg", "--json")
    assert made.code == 0
    calibration = json.loads(made.out)["calibration"]
    outcome = cachetool(
        "replay", "shapes/tiny-reg", "--ablation", "mean", "--calibration", calibration, "--no-overlap", "--json"
    )
    assert outcome.code == 0
    run = package.open(json.loads(outcome.out)["runs"][0]["path"])
    assert run.attrs["facts"]["calibration"]["overlap"] == 0
    assert run.attrs["facts"]["calibration"]["images"] == 20


def test_remove_takes_what_is_ours_and_nothing_else(cachetool: Any, tmp_path: Path) -> None:
    cachetool("extract", "tiny-reg", "shapes", "--limit", "4", "--workers", "0", "--layers", "12")
    cache = Path("activations/shapes/tiny-reg.zarr")
    precious = tmp_path / "photos"
    precious.mkdir()
    refused = cachetool("remove", cache, precious, "--yes")
    assert refused.code == 2
    assert cache.exists()
    assert precious.exists()
    assert cachetool("remove", cache, "--yes").code == 0
    assert not cache.exists()


def test_replay_without_a_name_lists_the_caches_to_choose_from(cachetool: Any) -> None:
    for split in ("shapes", "shapes#train"):
        cachetool("extract", "tiny-reg", split, "--limit", "4", "--workers", "0", "--layers", "12")
    outcome = cachetool("replay", "--ablation", "zero")
    assert outcome.code == 2
    assert "activations/shapes/tiny-reg.zarr" in outcome.err
    assert "activations/shapes-train/tiny-reg.zarr" in outcome.err


def test_verify_finds_and_mends(cachetool: Any) -> None:
    cache = Path("activations/shapes/tiny-reg.zarr")
    cachetool("extract", "tiny-reg", "shapes", "--limit", "6", "--workers", "0", "--layers", "6,12")
    sound = cachetool("verify")
    assert sound.code == 0, sound.err
    assert "computed again (seed 0): val/" in sound.out
    assert ": bit-equal" in sound.out
    shard = cache / "patches" / "c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[99] ^= 1
    shard.write_bytes(data)
    found = cachetool("verify", "--recompute", "0", "--json")
    assert found.code == 2
    assert json.loads(found.out)["problems"][0]["images"] == [0, 5]
    assert "images 0 to 5, block 0: patches/c.0.0.0.0: images 0 to 5, state 6 do not match" in found.err
    assert "Run `cachetool verify --repair`." in found.err
    mended = cachetool("verify", "shapes/tiny-reg", "--repair", "--workers", "0")
    assert mended.code == 0, mended.err
    assert "mended: images 0 to 5, block 0: it was extracted again, to the same bytes" in mended.err
    assert cachetool("verify", "--recompute", "1").code == 0
    assert cachetool("verify", "nowhere").code == 2


def test_diff_tells_by_its_exit_code(cachetool: Any) -> None:
    extract = ("extract", "tiny-reg", "shapes", "--workers", "0", "--layers", "12", "--tokens", "cls")
    cachetool(*extract, "--limit", "6")
    cachetool(*extract, "--limit", "6", "--name", "again", "--batch-size", "2")
    cachetool(*extract, "--limit", "4", "--name", "other", "--dtype", "float32")
    same = cachetool("diff", "shapes/tiny-reg", "shapes/again")
    assert same.code == 0, same.err
    assert "same key, images, labels and coverage" in same.out
    assert "recorded only, batch size: 32 here, 2 there" in same.out
    other = cachetool("diff", "shapes/tiny-reg", "activations/shapes/other.zarr", "--values")
    assert other.code == 1
    assert "key, dtype: float16 here, float32 there" in other.out
    assert "images: 2 only here: val/00004, val/00005" in other.out
    assert "cls" in other.out
    document = json.loads(cachetool("diff", "shapes/tiny-reg", "shapes/other", "--json").out)
    assert document["images"]["missing"] == ["val/00004", "val/00005"]
    assert document["same"] is False
    assert cachetool("diff", "shapes/tiny-reg", "shapes/nowhere").code == 2
    assert len(json.loads(cachetool("info", "shapes/tiny-reg", "--json").out)["key_sha256"]) == 64


@pytest.mark.parametrize(
    "command",
    ["extract", "replay", "calibrate", "models", "datasets", "info", "remove", "demo", "verify", "diff"],
)
def test_every_command_explains_itself(cachetool: Any, command: str) -> None:
    outcome = cachetool(command, "--help")
    assert outcome.code == 0
    assert "Usage" in outcome.out
