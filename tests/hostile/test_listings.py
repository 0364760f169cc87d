"""pairs.jsonl, MATLAB files and direction files from anybody."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from cachetool.datasets import open_dataset
from cachetool.datasets.matlab import read_variable
from cachetool.datasets.pf_willow import PFWillow
from cachetool.edits.replacements.add import Add
from cachetool.errors import CachetoolError, DatasetError, InvalidEditError
from tests.hostile.conftest import LONG, QUICK
from tests.hostile.mutation import mutated
from tests.hostile.test_weights import damaged

PAIR: dict[str, Any] = {
    "src": "a.png", "trg": "b.png", "src_kps": [[1, 2], [3, 1]], "trg_kps": [[0, 0], [2, 2]], "category": "cat",
    "src_bbox": [0, 0, 4, 4], "trg_bbox": [0, 0, 4, 4], "src_size": [5, 5], "trg_size": [5, 5],
}  # fmt: skip


def make_images(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (5, 5)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("pairs"))


def is_read(pairs: Path, listing: bytes) -> bool:
    """Whether a listing is read as pairs that are sound, or refused by name."""
    (pairs / "pairs.jsonl").write_bytes(listing)
    try:
        dataset = open_dataset(f"pairs:{pairs}")
    except DatasetError as error:
        assert "pairs.jsonl" in str(error)
        return False
    for pair in dataset.pairs:
        assert np.isfinite(pair.source_keypoints).all()
        assert {dataset.image_ids[pair.source], dataset.image_ids[pair.target]} == {"a.png", "b.png"}
        pair.category.encode()
    return True


@QUICK
@given(pair=mutated(PAIR))
def test_a_changed_pair_is_refused_or_sound(pairs: Path, pair: Any) -> None:
    is_read(pairs, json.dumps(pair).encode())


@pytest.mark.slow
@LONG
@given(pair=mutated(PAIR))
def test_hundreds_of_changed_pairs_are_refused_or_sound(pairs: Path, pair: Any) -> None:
    is_read(pairs, json.dumps(pair).encode())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "not JSON"),
        (json.dumps({**PAIR, "src": "../outside.png"}), "must be a path inside the folder"),
        (json.dumps({**PAIR, "category": "\ud800"}), "not JSON"),
        (json.dumps({**PAIR, "src": "\ud800.png"}), "not JSON"),
        (json.dumps({**PAIR, "src_kps": [[1e999, 0], [1, 1]]}), "finite"),
        (json.dumps({**PAIR, "src": "pipe.png"}), "pipe or device"),
    ],
    ids=["deep", "outside", "category", "name", "infinite", "pipe"],
)
def test_lines_that_nobody_wrote_by_hand(pairs: Path, line: str, message: str) -> None:
    if not (pairs / "pipe.png").exists():
        os.mkfifo(pairs / "pipe.png")
    (pairs / "pairs.jsonl").write_text(line)
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"pairs:{pairs}")


def test_a_pipe_in_place_of_the_listing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pairs.jsonl")
    with pytest.raises(DatasetError, match="pipe or device"):
        open_dataset(f"pairs:{tmp_path}")


def matlab(**variables: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_matlab_files_that_were_cut_are_refused(tmp_path: Path, share: float) -> None:
    """Cut, not changed: there are bytes that end the process within SciPy's reader, as the README says."""
    whole = matlab(pts_coord=np.arange(20.0).reshape(2, 10))
    (tmp_path / "a.mat").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DatasetError, match=r"a\.mat"):
        read_variable(tmp_path / "a.mat", "pts_coord")


@pytest.mark.parametrize(
    "points", [{"x": 1}, np.array(["a", "b"]), np.zeros((0, 0)), np.full((2, 10), np.nan), 5.0, np.zeros((2, 3, 4))]
)
def test_points_that_are_none_are_refused(tmp_path: Path, points: Any) -> None:
    folder = tmp_path / "car(G)"
    folder.mkdir()
    Image.new("RGB", (5, 5)).save(folder / "a.png")
    (folder / "a.mat").write_bytes(matlab(pts_coord=points))
    with pytest.raises(DatasetError, match=r"a\.png"):
        PFWillow("pf-willow", tmp_path, "pf-willow")


def numpy_file(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def is_direction(file: Path, content: bytes) -> bool:
    """Whether this is read as a direction of finite numbers, or refused by name."""
    file.write_bytes(content)
    try:
        direction = Add(str(file), 1.0).direction
    except CachetoolError as error:
        assert file.name in str(error)
        return False
    assert np.isfinite(direction).all()
    return True


@QUICK
@given(data=damaged(numpy_file(np.ones(4))), suffix=st.sampled_from([".npy", ".safetensors"]))
def test_damaged_directions_are_refused(tmp_path: Path, data: bytes, suffix: str) -> None:
    is_direction(tmp_path / f"direction{suffix}", data)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "content",
    [
        lambda path: pickle.dumps(Payload(path)),
        lambda path: numpy_file(np.array([Payload(path)], dtype=object)),
        lambda path: numpy_file(np.ones(3)).replace(b"(3,), ", b"(9" + b"9" * 11 + b",), "),
        lambda path: numpy_file(np.ones(3) + 1j),
        lambda path: numpy_file(np.full(3, 1e300)),
        lambda path: numpy_file(np.array(["a"])),
        lambda path: b"",
    ],
    ids=["pickle", "objects", "terabytes", "complex", "large", "text", "empty"],
)
def test_directions_are_numbers_alone(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "direction.npy"
    file.write_bytes(content(tmp_path / "trace"))
    with pytest.raises(InvalidEditError, match=r"direction\.npy"):
        _ = Add(str(file), 1.0).direction
    assert not (tmp_path / "trace").exists()
