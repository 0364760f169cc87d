"""Every kind of file, damaged in every way: what cachetool reads is then refused, or equal to what it was.

`CACHETOOL_FLIPS` says how many bits of each file are flipped, one at a time. One file of every fourth kind is tried,
one of every kind under `-m slow`, and all files under `-m exhaustive`.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import cachetool
from analyses.evaluation.evaluate import evaluate
from analyses.netcdf import read_netcdf
from cachetool.edits.calibration import Calibration
from cachetool.query import open_store
from cachetool.store import OpenedStore, StoreReader, StoreWriter, check_block, check_flags, check_tables
from tests.faults.commands import count
from tests.reference.quick import quick

FLIPS = count("CACHETOOL_FLIPS", 3)
READ_ERRORS = (cachetool.CachetoolError, OSError, RuntimeError, ValueError, KeyError)
"""What a result file may raise: `read_netcdf` promises no more."""


def photographs(folder: Path) -> str:
    """Seven images of two classes, one of which cannot be decoded."""
    for index in range(7):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        file = folder / ("cat", "dog")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    broken = folder / "cat" / "4.png"
    broken.write_bytes(broken.read_bytes()[:1000])
    return f"imagefolder:{folder}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of two blocks, the second partly filled, and two runs, a calibration and outcomes of it."""
    folder = tmp_path_factory.mktemp("damaged")
    images = photographs(tmp_path_factory.mktemp("photographs"))
    with quick(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
        cache = cachetool.extract("tiny-reg", images, root=folder, layers=(6, 11, 12), workers=0, on_error="continue")
        edits = [cachetool.Edit("registers", name, from_layer=11) for name in ("none", "shuffle")]
        cachetool.replay(cache, edits)
        cachetool.calibrate(cache, layers=[11, 12])
        evaluate(cache, None, ["retrieval"], resamples=10)
        yield folder


def store_of(file: Path) -> Path:
    """The store that a file belongs to, or the file where it is a result."""
    return next((parent for parent in file.parents if parent.suffix == ".zarr"), file)


def read(place: Path, key: Any = None) -> dict[str, Any]:
    """All that cachetool gives of a store or result file, read anew; outcomes of another key are none."""
    if place.suffix == ".nc":
        result = read_netcdf(place)
        if key is not None and key != result.attrs["key"]:
            raise ValueError("these are outcomes of something else")
        return {"result": result, "key": result.attrs["key"]}
    if place.parent.name.endswith(".calibrations"):
        calibration = Calibration.read(place)
        arrays = {name: np.asarray(array[...]) for name, array in calibration._arrays.items()}
        by_layer = {name: calibration.mean(11, name) for name in calibration.token_types}
        return {**arrays, "by layer": by_layer, "key": calibration.key, "facts": calibration.facts}
    # On this thread: others would still be reading files that the next damage truncates, which ends a process that maps
    # them.
    opened = open_store(place).load(scheduler="synchronous")
    reader = StoreReader(place)
    return {
        "opened": opened,
        "key": opened.attrs["key"],
        "facts": opened.attrs["facts"],
        "complete": reader.complete,
        "spec": repr(reader.spec),
    }


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, xr.Dataset):
        return bool(found.identical(expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal(found[name], expected[name]) for name in expected)
    if isinstance(expected, np.ndarray):
        text = expected.dtype.kind == "O"
        return bool((found == expected).all() if text else np.array_equal(found, expected, equal_nan=True))
    return bool(found == expected)


def truncated(content: bytes, _: random.Random) -> bytes:
    return content[: len(content) // 2]


def shortened(content: bytes, _: random.Random) -> bytes:
    return content[:-1]


def zeroed(content: bytes, _: random.Random) -> bytes:
    return bytes(len(content))


def emptied(_: bytes, __: random.Random) -> bytes:
    return b""


def flipped(content: bytes, random_: random.Random) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [truncated, shortened, zeroed, emptied, *[flipped] * FLIPS]


def neighbours(file: Path) -> list[Path]:
    """Files that it could be taken for: the next in its folder or beside it, and its like in another array."""
    patterns = [(file.parent, "*"), (file.parent.parent, f"*/{file.name}")]
    if store_of(file) != file:
        _array, *rest = file.relative_to(store_of(file)).parts
        patterns.append((store_of(file), "/".join(["*", *rest])))
    found = []
    for folder, pattern in patterns:
        group = sorted(other for other in folder.glob(pattern) if other.is_file())
        if file in group and len(group) > 1:
            found.append(group[(group.index(file) + 1) % len(group)])
    return list(dict.fromkeys(found))


def verified(place: Path) -> bool:
    """Whether a look at the whole store finds something wrong."""
    if place.suffix == ".nc" or place.parent.name.endswith(".calibrations"):
        return False
    try:
        store = OpenedStore(place)
        blocks = range(store.geometry.blocks)
        blocks_differ = any(check_block(store, block) or check_flags(store, block) for block in blocks)
        return bool(check_tables(place)) or blocks_differ
    except cachetool.CachetoolError:
        return True


def outcome(place: Path, expected: dict[str, Any]) -> str:
    """What became of a damage.

    `refused`: reading raises, and names the store. `unfinished`: less is read, all of it right, and the check tells.
    `verify`: all is read, all of it right, and the check tells. `harmless`: it does not even tell.
    """
    try:
        found = read(place, expected["key"])
    except READ_ERRORS as error:
        told = isinstance(error, cachetool.CachetoolError) and str(place) in str(error)
        return "refused" if told or place.suffix == ".nc" else f"badly told: {error!r}"
    if equal(found, expected):
        return "verify" if verified(place) else "harmless"
    opened = found["opened"]
    whole = expected["opened"].sel(layer=opened.layer)
    assert found["complete"].sum() < expected["complete"].sum(), f"other values of {place} were accepted"
    for name in opened.data_vars:
        assert opened[name].identical(whole[name]), f"other values of {place} were accepted"
    assert verified(place)
    return "unfinished"


def tried(files: list[Path]) -> Counter[str]:
    """Damage each file in every way, one at a time."""
    outcomes: Counter[str] = Counter()
    expected = {place: read(place) for place in {store_of(file) for file in files}}
    for file in files:
        content, place = file.read_bytes(), store_of(file)
        numbers = random.Random(str(file.name))
        for damage in DAMAGES:
            file.write_bytes(damage(content, numbers))
            outcomes[outcome(place, expected[place])] += 1
        file.unlink()
        outcomes[outcome(place, expected[place])] += 1
        file.write_bytes(content)
        for neighbour in neighbours(file):
            other = neighbour.read_bytes()
            file.write_bytes(other)
            neighbour.write_bytes(content)
            result = outcome(place, expected[place])
            outcomes[result] += 1
            file.write_bytes(content)
            neighbour.write_bytes(other)
            # To have noticed nothing at all is right only where nothing differs, or where nothing of it is read.
            if other != content and result == "harmless":
                assert re.search(r"guard|/donor/zarr|\.nc|zarr\.json", str(file)), file
    return outcomes


def all_files(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


def kind(file: Path) -> tuple[str, ...]:
    """What a file is, whatever its block, run or digest."""
    below = file.relative_to(store_of(file)).parts if store_of(file) != file else ("result",)
    return (store_of(file).parent.suffix, *(re.sub(r"\d+", "0", part) for part in below))


def test_one_file_of_some_kinds(root: Path) -> None:
    chosen = {kind(file): file for file in all_files(root) if ".calibrations" not in str(file)}
    files = [file for what, file in sorted(chosen.items()) if "off_distribution" not in "".join(what)]
    outcomes = tried(files[::4])
    assert outcomes["refused"] > 25
    assert set(outcomes) <= {"refused", "unfinished", "verify", "harmless"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_file_of_every_kind(root: Path) -> None:
    files, numbers = all_files(root), random.Random(0)
    numbers.shuffle(files)
    all_are_told({kind(file): file for file in files}.values())


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_every_file(root: Path) -> None:
    all_are_told(all_files(root))


def all_are_told(files: Collection[Path]) -> None:
    outcomes = tried(list(files))
    print(f"{len(files)} files, {sum(outcomes.values())} damages: {dict(outcomes)}")
    assert set(outcomes) <= {"refused", "unfinished", "verify", "harmless"}


def test_a_lock_that_cannot_be_read_is_named(root: Path) -> None:
    (cache,) = root.glob("*/tiny-reg.zarr")
    file = cache / ".cachetool" / "locks" / "extract.lock"
    file.write_bytes(os.urandom(20))
    with pytest.raises(cachetool.CachetoolError, match=r"extract\.lock cannot be read .*remove it"):
        StoreWriter(cache)
    file.unlink()
