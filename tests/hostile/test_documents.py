"""Root documents from anybody: refused by a message that names the store, or read with the values that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.errors import CachetoolError, DamagedError, StoreError
from cachetool.store import StoreReader
from tests.hostile.conftest import LONG, QUICK, forged, harmed, read_everything
from tests.hostile.mutation import mutated


def check(sound: Path, data: st.DataObject) -> None:
    file, document = sound / "zarr.json", forged(sound)
    with harmed(file, json.dumps(data.draw(mutated(document))).encode()):
        try:
            read_everything(sound)
        except CachetoolError as error:
            assert sound.name in str(error), error


@QUICK
@given(data=st.data())
def test_a_changed_document_is_refused_or_read(sound: Path, data: st.DataObject) -> None:
    check(sound, data)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_hundreds_of_changed_documents_are_refused_or_read(sound: Path, data: st.DataObject) -> None:
    check(sound, data)


def change(document: dict[str, Any], way: str, value: Any) -> bytes:
    *above, last = way.split("/")
    parent = document
    for part in above:
        parent = parent[part]
    parent[last] = value
    return json.dumps(document).encode()


ABOUT = "attributes/cachetool"
ARRAYS = "consolidated_metadata/metadata"


@pytest.mark.parametrize(
    ("way", "value"),
    [
        ("attributes", []),
        ("consolidated_metadata", None),
        (ARRAYS, []),
        (f"{ABOUT}/format", "1"),
        (f"{ABOUT}/format", True),
        (f"{ABOUT}/format", -1),
        (f"{ABOUT}/kind", ["cache"]),
        (f"{ABOUT}/key", 3),
        (f"{ABOUT}/facts", None),
        (f"{ABOUT}/layout", {"cls": 1, "registers": 2, "rows": 2}),
        (f"{ABOUT}/layout/rows", 10**12),
        (f"{ABOUT}/layout/rows", 2.0),
        (f"{ABOUT}/layout/registers", -3),
        (f"{ABOUT}/channels", 10**15),
        (f"{ABOUT}/channels", True),
        (f"{ABOUT}/block", 0),
        (f"{ABOUT}/block", 10**18),
        (f"{ABOUT}/dtype", "object"),
        (f"{ABOUT}/dtype", ["float32"]),
        ("attributes/norm_epsilon", "small"),
        ("attributes/norm_type", {}),
        (f"{ARRAYS}/../../outside", {}),
        (f"{ARRAYS}/image_id", 5),
        (f"{ARRAYS}/image_id/shape", [10**14]),
        (f"{ARRAYS}/image_id/shape", [-1]),
        (f"{ARRAYS}/image_id/data_type", "int64"),
        (f"{ARRAYS}/layer/shape", [10**9]),
        (f"{ARRAYS}/layer/data_type", "float64"),
        (f"{ARRAYS}/row/shape", [10**11]),
        (f"{ARRAYS}/cls/shape", [10, 4, 6]),
        (f"{ARRAYS}/cls/data_type", "float32"),
        (f"{ARRAYS}/norm_weight/codecs", [{"name": "bytes"}, {"name": "zstd"}]),
        (f"{ARRAYS}/norm_weight/codecs", [{"name": "pickle"}]),
        (f"{ARRAYS}/norm_weight/fill_value", "Infinity"),
        (f"{ARRAYS}/norm_weight/chunk_grid", {"name": "rectilinear"}),
        (f"{ARRAYS}/norm_weight/dimension_names", [["channel"]]),
    ],
)
def test_absurd_entries_are_refused_by_name(sound: Path, way: str, value: Any) -> None:
    file, document = sound / "zarr.json", forged(sound)
    if ".." in way:
        document["consolidated_metadata"]["metadata"]["../../outside"] = value
        content = json.dumps(document).encode()
    else:
        content = change(document, way, value)
    with harmed(file, content), pytest.raises(StoreError, match=sound.name):
        read_everything(sound)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[1]", "expected a JSON object"),
        (b'{"a": NaN}', "NaN|JSON compliant"),
        (b'{"a": 1e999}', "JSON compliant"),
        (b'{"a": 1, "a": 2}', "these names occur twice: a"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
        (b"\xff\xfe{", "damaged"),
    ],
    ids=["empty", "list", "nan", "infinite", "twice", "surrogate", "deep", "long", "encoding"],
)
def test_what_is_no_strict_json_is_refused(sound: Path, content: bytes, message: str) -> None:
    with harmed(sound / "zarr.json", content), pytest.raises(DamagedError, match=message):
        StoreReader(sound)


def test_a_small_document_takes_little_memory(tmp_path: Path, sound: Path) -> None:
    """Without files behind them, arrays of terabytes are refused before memory is taken; the rest is bounded."""
    document = forged(sound)
    arrays = document["consolidated_metadata"]["metadata"]
    for name in ("image_id", "content_sha256", "label", "class_name", "readable"):
        arrays[name]["shape"] = [10**12]
        arrays[name]["chunk_grid"]["configuration"]["chunk_shape"] = [10**12]
    (tmp_path / "small.zarr").mkdir()
    (tmp_path / "small.zarr" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DamagedError, match=r"image_id.*is missing"):
        StoreReader(tmp_path / "small.zarr")
