"""Weights files from anybody: read as data alone, whatever they claim to hold."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from cachetool.backbones import load
from cachetool.backbones.weights import read_weights
from cachetool.errors import CachetoolError, MissingDataError, WeightsError
from tests.hostile.conftest import LONG, QUICK

SAFE = save({"cls_token": torch.arange(4.0).reshape(1, 1, 4), "norm.bias": torch.ones(4)})


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


PICKLED = pickled({"cls_token": torch.arange(4.0).reshape(1, 1, 4), "norm.bias": torch.ones(4)})


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    data = bytearray(sound[: draw(st.integers(0, len(sound)))] if draw(st.booleans()) else sound)
    for _ in range(draw(st.integers(0, 6))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def is_read(folder: Path, name: str, content: bytes) -> bool:
    """Whether this content is read as weights, or refused by name."""
    file = folder / name
    file.write_bytes(content)
    try:
        found = read_weights(file)
    except WeightsError as error:
        assert name in str(error)
        return False
    assert sum(tensor.nbytes for tensor in found.values()) <= 16 * len(content)
    return True


FILES = st.one_of(
    st.tuples(st.just("a.safetensors"), damaged(SAFE)), st.tuples(st.just("a.pth"), damaged(PICKLED)),
    st.tuples(st.sampled_from(["a.safetensors", "a.pth"]), st.binary(max_size=60)),
)  # fmt: skip


@QUICK
@given(file=FILES)
def test_damaged_files_are_refused_by_name(tmp_path: Path, file: tuple[str, bytes]) -> None:
    is_read(tmp_path, *file)


@pytest.mark.slow
@LONG
@given(file=FILES)
def test_hundreds_of_damaged_files_are_refused_by_name(tmp_path: Path, file: tuple[str, bytes]) -> None:
    is_read(tmp_path, *file)


class Payload:
    """Makes a file when it is unpickled without protection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, suffix: str) -> None:
    trace = tmp_path / "trace"
    file = tmp_path / f"weights{suffix}"
    for content in (
        pickle.dumps(Payload(trace)),
        pickled({"model": Payload(trace)}),
        pickle.dumps([Payload(trace)], 0),
    ):
        file.write_bytes(content)
        said = "safetensors" if suffix == ".safetensors" else r"run code on loading \(posix\.mkdir\)"
        with pytest.raises(WeightsError, match=rf"{file.name}.*{said}"):
            read_weights(file)
    assert not trace.exists()


def header(document: Any, data: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{",
        struct.pack("<Q", 2**40) + b"{}",
        header({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**15]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234" * 9),
        header(b"[" * 100_000),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        read_weights(tmp_path / "a.safetensors")


def test_a_pickle_that_holds_itself_is_refused(tmp_path: Path) -> None:
    """To look for the weights inside would never end."""
    content: dict[str, Any] = {}
    content["model"] = content
    (tmp_path / "a.pth").write_bytes(pickled(content))
    with pytest.raises(WeightsError, match=r"a\.pth"):
        read_weights(tmp_path / "a.pth")


def test_few_numbers_shown_as_many_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickled({"cls_token": torch.zeros(1).expand(10**6, 10**6)}))
    with pytest.raises(WeightsError, match="views of the same few numbers"):
        read_weights(tmp_path / "a.pth")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    with zipfile.ZipFile(io.BytesIO(PICKLED)) as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match="compressed archive"):
        read_weights(file)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, dtype=torch.complex64),
        torch.sparse_coo_tensor(
            torch.zeros((1, 1), dtype=torch.int64), torch.ones(1), (10**12,), check_invariants=True
        ),
        torch.zeros(3, device="meta"),
    ],
    ids=["complex", "sparse", "meta"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    (tmp_path / "a.pth").write_bytes(pickled({"cls_token": tensor}))
    with pytest.raises(WeightsError, match=r"a\.pth"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.safetensors"
    os.mkfifo(file) if kind == "pipe" else file.mkdir()
    with pytest.raises(MissingDataError, match=r"a\.safetensors"):
        read_weights(file)


SHAPES = st.lists(st.integers(0, 5), max_size=4)
NAMES = st.sampled_from(
    ["cls_token", "head.weight", "pos_embed", "reg_token", "register_tokens", "mask_token", "storage_tokens",
     "blocks.0.norm1.weight", "blocks.0.0.norm1.weight", "blocks.0.attn.qkv.bias", "blocks.0.attn.qkv.bias_mask",
     "embeddings.cls_token", "encoder.layer.0.attention.attention.query.weight", "layer.0.attention.o_proj.weight",
     "layer.0.attention.q_proj.bias", "layer.0.attention.v_proj.bias", "", "head.weight.", "x" * 300]
)  # fmt: skip


@settings(QUICK, max_examples=12)  # each builds the model anew
@given(tensors=st.dictionaries(NAMES, SHAPES, max_size=6))
def test_any_names_and_shapes_are_refused_in_words(tmp_path: Path, tensors: dict[str, list[int]]) -> None:
    torch.save({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "a.pth")
    with pytest.raises(CachetoolError, match=r"a\.pth"):
        load("tiny-reg", weights=tmp_path / "a.pth")
