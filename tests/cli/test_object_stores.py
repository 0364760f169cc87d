"""Commands on a root in an object store: what they print and keep is what they do on a disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool as package
from tests.reference.quick import quick

EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", "12", "--workers", "0")
CACHE, TRAIN = "shapes/tiny-reg", "shapes-train/tiny-reg"
REPLAY = ("replay", CACHE, "--ablation", "none", "--ablation", "mean", "--ablation", "zero", "--from-layer", "9")


def contents(root: Any) -> dict[str, bytes]:
    """Files or objects below a root by name; of documents and results, which hold times, that they are there."""
    if isinstance(root, Path):
        files = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
    else:
        files = {file.key.removeprefix(f"{root.key}/"): file for file, _ in root.walk_objects()}
    told = ("zarr.json", ".nc", "guard")
    return {name: b"" if name.endswith(told) else file.read_bytes() for name, file in sorted(files.items())}


@pytest.mark.slow
def test_every_command_does_there_what_it_does_on_a_disk(
    cachetool: Any, object_root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
    commands: list[tuple[str, ...]] = [
        (*EXTRACT, "--dry-run", "--json"),
        (*EXTRACT, "--json"),
        (*EXTRACT, "--json"),
        ("extract", "tiny-reg", "shapes#train", "--layers", "12", "--limit", "12", "--workers", "0", "--json"),
        (*EXTRACT[:4], "15", *EXTRACT[5:], "--json"),
        ("calibrate", CACHE, "--layers", "9-12", "--json"),
        (*REPLAY, "--dry-run", "--json"),
        (*REPLAY, "--json"),
        (*REPLAY, "--json"),
        ("info", "--json"),
        ("info", CACHE, "--json"),
        ("verify", CACHE, "--recompute", "1", "--json"),
        ("diff", CACHE, TRAIN, "--values", "--json"),
        ("analyze", "token-norms", CACHE, "--layers", "12", "--json"),
        ("analyze", "register-cosine", CACHE, "--runs", "--json"),
        ("evaluate", CACHE, "--train", TRAIN, "--task", "retrieval", "--task", "classification", "--json"),
        ("evaluate", CACHE, "--train", TRAIN, "--task", "retrieval", "--task", "classification", "--json"),
        ("report", CACHE, "--output", "report.html", "--json"),
        ("export", CACHE, "{here}.h5", "--json"),
        ("import", "{here}.h5", "--name", "again", "--json"),
        ("import", "{here}.h5", "--name", "again", "--json"),
        ("diff", CACHE, "shapes/again", "--values", "--json"),
        ("remove", "{root}/shapes/again.zarr", "--yes", "--json"),
        ("info", "shapes/again", "--json"),
    ]
    roots = {"disk": tmp_path / "activations", "store": object_root}
    outcomes: dict[str, list[Any]] = {}
    with quick():
        for here, root in roots.items():
            outcomes[here] = []
            for command in commands:
                written = [part.replace("{here}", here).replace("{root}", str(root)) for part in command]
                where = () if command[0] == "remove" else ("--root", str(root))
                outcomes[here].append(cachetool(*written, *where))
    for command, disk, store in zip(commands, outcomes["disk"], outcomes["store"], strict=True):
        assert store.code == disk.code, f"{command}: {store.err}"
        assert "Traceback" not in store.err
        if store.code == 0:
            plain = store.out.replace(str(object_root), str(roots["disk"])).replace("store.h5", "disk.h5")
            same(json.loads(plain), json.loads(disk.out), command)
    found, expected = contents(object_root), contents(roots["disk"])
    names = {name for name in expected if not name.endswith("guard")}
    assert set(found) == names
    assert [name for name in names if found[name] != expected[name]] == []

    cache = package.open(str(object_root / "shapes" / "tiny-reg.zarr"))
    like = package.open(roots["disk"] / "shapes" / "tiny-reg.zarr")
    np.testing.assert_array_equal(cache.patches.values, like.patches.values)
    assert package.open_tree(str(object_root)).groups == package.open_tree(roots["disk"]).groups


@pytest.mark.slow
def test_a_damaged_block_is_made_again(cachetool: Any, object_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
    shard = object_root / "shapes" / "tiny-reg.zarr" / "patches" / "c.1.0.0.0"
    where = ("--recompute", "0", "--root", str(object_root))
    with quick():
        assert cachetool(*EXTRACT, "--root", str(object_root)).code == 0
        sound = shard.read_bytes()
        shard.put(sound[:1000] + b"wrong" + sound[1005:])
        damaged = cachetool("verify", CACHE, *where)
        repaired = cachetool("verify", CACHE, "--repair", *where)
    assert damaged.code == 2, damaged.err
    assert "patches/c.1.0.0.0: images 4 to 7, state 0 do not match their checksum" in damaged.err
    assert repaired.code == 0, repaired.err
    assert shard.read_bytes() == sound


def same(found: Any, expected: Any, where: Any) -> None:
    """Assert that two JSON documents agree but for times and speeds."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected), where
        for name, value in expected.items():
            if "seconds" not in name and name not in ("progress", "bytes", "environment", "verdict"):
                same(found[name], value, (where, name))
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            same(one, other, where)
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found), where
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("export", CACHE, "s3://bucket/cache.h5"), "file"),
        (("import", "s3://bucket/cache.h5"), "file"),
        (("analyze", "token-norms", "--output", "s3://bucket/a.nc"), "output"),
        (("report", "--output", "s3://bucket/report.html"), "output"),
        (("demo", "--root", "s3://bucket/demo"), "root"),
        (("extract", "tiny-reg", "shapes", "--weights", "s3://bucket/weights.safetensors"), "weights"),
        (("analyze", "token-norms", "s3://bucket/a/b.zarr", "--figures"), "--figures"),
    ],
)
def test_what_cannot_lie_there_is_refused(
    cachetool: Any, object_root: Any, arguments: tuple[str, ...], option: str
) -> None:
    (object_root.parent / "a" / "b.zarr" / "zarr.json").put(b"{}")
    outcome = cachetool(*arguments)
    assert outcome.code == 2, outcome.err
    assert option in outcome.err
    assert "expected a path on a local disk" in outcome.err
    assert "s3://bucket/" in outcome.err
    assert [path.name for path in Path().iterdir() if path.name != "no-config"] == [], "no folder `s3:`"


def test_a_server_that_cannot_be_used_is_an_error_and_no_traceback(cachetool: Any, object_root: Any) -> None:
    outcome = cachetool("info", "--root", "s3://elsewhere/activations")
    assert outcome.code == 2
    assert "there is no bucket elsewhere" in outcome.err
    outcome = cachetool("info", "--root", "nothing://elsewhere/activations")
    assert outcome.code == 2
    assert "expected s3://BUCKET/PREFIX" in outcome.err
    outcome = cachetool("info", "--root", str(object_root))
    assert outcome.code == 0
    assert "no cache below s3://bucket/" in outcome.err
