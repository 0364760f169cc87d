from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cachetool.datasets import hash_images, load_batches, open_dataset
from cachetool.datasets.transform import Transform
from cachetool.errors import DatasetError, ImageError, MissingDataError, UnknownNameError


def png(seed: int, side: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def write_tar(path: Path, files: list[tuple[str, bytes]], *, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def labelled(first: int, count: int) -> list[tuple[str, bytes]]:
    return [
        pair
        for i in range(first, first + count)
        for pair in ((f"{i:04d}.png", png(i)), (f"{i:04d}.cls", b"%d\n" % (i % 3)), (f"{i:04d}.txt", b"a caption"))
    ]


def test_a_folder_of_tars(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", labelled(3, 2))
    write_tar(tmp_path / "a.tar", labelled(0, 3))
    dataset = open_dataset(f"webdataset:{tmp_path}")
    assert dataset.image_ids == ("a.tar/0000", "a.tar/0001", "a.tar/0002", "b.tar/0003", "b.tar/0004")
    assert dataset.labels == (0, 1, 2, 0, 1)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert (dataset.family, dataset.kind) == ("webdataset", "classification")
    assert [dataset.read_bytes(i) for i in range(5)] == [png(i) for i in range(5)]
    assert hash_images(dataset) == tuple(hashlib.sha256(png(i)).hexdigest() for i in range(5))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.read_bytes(4) == png(4)
    assert dataset.size(0) == (8, 8)


def test_a_pattern_and_one_file(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "0.tar", labelled(0, 1))
    write_tar(tmp_path / "val" / "0.tar", labelled(1, 1))
    assert open_dataset(f"webdataset:{tmp_path}/*/0.tar").image_ids == ("train/0.tar/0000", "val/0.tar/0001")
    assert open_dataset(f"webdataset:{tmp_path}/val/0.tar").image_ids == ("0.tar/0001",)


def test_samples_are_grouped_up_to_the_first_dot_of_the_file_name(tmp_path: Path) -> None:
    files = [
        ("./v1.2/7.JPG", png(0)), ("./v1.2/7.seg.png", png(1)), ("./v1.2/7.json", b'{"label": 4, "caption": "x"}'),
        ("README", b"no ending"), (".hidden.png", png(2)), ("alone.txt", b"no image"),
        ("8.webp", png(3)), ("8.json", b'{"label": 0}'), ("8.cls", b"2"),
    ]  # fmt: skip
    write_tar(tmp_path / "x.tar", files)
    dataset = open_dataset(f"webdataset:{tmp_path}")
    assert dataset.image_ids == ("x.tar/8", "x.tar/v1.2/7")
    assert dataset.labels == (2, 4), "`.cls` comes before `.json`"
    assert dataset.read_bytes(1) == png(0)


def test_without_labels(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("0.png", png(0)), ("0.json", b'{"caption": "x"}')])
    dataset = open_dataset(f"webdataset:{tmp_path}")
    assert (dataset.labels, dataset.class_names) == (None, None)


def test_long_names_of_either_form(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "ä" * 90 + "/" + "b" * 120
        write_tar(tmp_path / f"{form}.tar", [(f"{name}.png", png(1))], form=form)
        dataset = open_dataset(f"webdataset:{tmp_path}/{form}.tar")
        assert dataset.image_ids == (f"{form}.tar/{name}",)
        assert dataset.read_bytes(0) == png(1)


def test_threads_and_processes_read_alike(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", labelled(0, 12))
    dataset = open_dataset(f"webdataset:{tmp_path}")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(dataset.read_bytes, range(12))) == [png(i) for i in range(12)]
    transform = Transform(8, "none", 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    sha256 = hash_images(dataset)
    here, there = (
        [batch.images for batch in load_batches(dataset, transform, [[0, 5], [11]], sha256=sha256, workers=workers)]
        for workers in (0, 1)
    )
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.dictionaries(
        st.from_regex(r"[a-zA-Zé]{1,3}(/[a-z0-9]{1,4}){0,2}", fullmatch=True),
        st.tuples(st.binary(max_size=1500), st.integers(0, 9), st.sampled_from([".jpg", ".PNG", ".webp"])),
        min_size=1,
        max_size=8,
    ),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    shards=st.integers(1, 3),
)
def test_whatever_was_written_is_read(tmp_path: Path, samples: dict[str, Any], form: int, shards: int) -> None:
    for old in tmp_path.glob("*.tar"):
        old.unlink()
    names = list(samples)
    for shard in range(shards):
        files = []
        for name in names[shard::shards]:
            data, label, ending = samples[name]
            files += [(f"{name}.cls", str(label).encode()), (f"{name}{ending}", data)]
        write_tar(tmp_path / f"{shard}.tar", files, form=form)
    dataset = open_dataset(f"webdataset:{tmp_path}")
    expected = sorted((f"{names.index(name) % shards}.tar/{name}", *samples[name][:2]) for name in names)
    assert dataset.labels is not None
    found = [(dataset.image_ids[i], dataset.read_bytes(i), dataset.labels[i]) for i in range(len(dataset))]
    assert found == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_tar_is_refused_or_gives_bytes_that_it_holds(tmp_path: Path, data: st.DataObject) -> None:
    whole = write_tar(tmp_path / "whole" / "x.tar", labelled(0, 2)).read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(whole) - 1)) :]
    (tmp_path / "x.tar").write_bytes(changed)
    before = set(tmp_path.rglob("*"))
    try:
        dataset = open_dataset(f"webdataset:{tmp_path / 'x.tar'}")
    except DatasetError:
        return
    assert all(dataset.read_bytes(i) in bytes(changed) for i in range(len(dataset)))
    assert set(tmp_path.rglob("*")) == before


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("1.png", tarfile.SYMTYPE, "/etc/passwd"), r"'1\.png' is a link"),
        (special("1.png", tarfile.LNKTYPE, "0.png"), r"'1\.png' is a link"),
        (special("1.png", tarfile.CHRTYPE), r"'1\.png' is a device"),
        (special("1.png", tarfile.FIFOTYPE), r"'1\.png' is a device, pipe"),
        (special("../1.png", tarfile.REGTYPE), r"'\.\./1\.png' is no plain relative path"),
        (special("/tmp/1.png", tarfile.REGTYPE), r"'/tmp/1\.png' is no plain relative path"),
        (special("a\\1.png", tarfile.REGTYPE), r"'a\\\\1\.png' is no plain relative path"),
        (special("\udcff1.png", tarfile.REGTYPE), r"'\\udcff1\.png' is no plain relative path"),
        (special("0.png", tarfile.REGTYPE), r"'0\.png' is there twice"),
        (special("0.jpg", tarfile.REGTYPE), r"'0' has several images: png, jpg"),
    ],
)
def test_members_that_are_refused_are_named(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        good = tarfile.TarInfo("0.png")
        good.size = len(png(0))
        tar.addfile(good, io.BytesIO(png(0)))
        tar.addfile(member)
    with pytest.raises(DatasetError, match=rf"(?s)layout of webdataset:TARS:\n  x\.tar: {message}"):
        open_dataset(f"webdataset:{tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("0.png", b""), ("1.png", b""), ("0.jpg", b"")], "'0' is there twice"),
        ([("0.png", b""), ("0.cls", b"cat")], r"'0\.cls' cannot be read as a label"),
        ([("0.png", b""), ("0.cls", b"-1")], r"'0\.cls' gives the class -1"),
        ([("0.png", b""), ("0.cls", b"9" * 12)], "gives the class 999999999999"),
        ([("0.png", b""), ("0.json", b'{"label": true}')], "gives the class True"),
        ([("0.png", b""), ("0.json", b"[" * 100_000)], r"'0\.json' cannot be read as a label"),
        ([("0.png", b""), ("0.cls", bytes(2**21))], "at most 1,048,576 are expected"),
        ([("0.png", b""), ("0.cls", b"1"), ("1.png", b"")], r"(?s)1 of 2 images .* have no label.*x\.tar/1"),
        ([("0.txt", b"")], "holds no images"),
        ([], "holds no images"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, files: list[tuple[str, bytes]], message: str) -> None:
    write_tar(tmp_path / "x.tar", files)
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"webdataset:{tmp_path}")


def damaged(whole: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "cut in the last image": (whole[:700], "unexpected end"),
        "cut between two files": (whole[:1024], "neither a header nor the end"),
        "cut in a header": (whole[:1200], "neither a header nor the end"),
        "a damaged second header": (whole[:1030] + b"\xff" + whole[1031:], "neither a header nor the end"),
        "joined": (whole + whole, "something follows its end"),
        "compressed": (gzip.compress(whole), "it is compressed"),
        "no tar": (b"<html>not found</html>", "truncated header"),
        "empty": (b"", "empty file"),
    }


@pytest.mark.parametrize("name", damaged(b""))
def test_damaged_tars_are_named(tmp_path: Path, name: str) -> None:
    whole = write_tar(tmp_path / "whole" / "0.tar", [("0.png", png(0)), ("1.png", png(1))]).read_bytes()
    content, message = damaged(whole)[name]
    (tmp_path / "bad.tar").write_bytes(content)
    write_tar(tmp_path / "good.tar", labelled(0, 1))
    with pytest.raises(DatasetError, match=rf"\n  bad\.tar: is no tar, or damaged or cut off: .*{message}"):
        open_dataset(f"webdataset:{tmp_path}")


def test_a_long_name_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    header = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 3 * 2**30
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT)[:512])
        file.truncate(4 * 2**30)
    with pytest.raises(DatasetError, match="3221225472 bytes are claimed"):
        open_dataset(f"webdataset:{tmp_path}")


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    outcome: list[Any] = []

    def attempt() -> None:
        with pytest.raises(DatasetError, match="pipe or device") as refused:
            open_dataset(f"webdataset:{tmp_path}")
        outcome.append(refused.value)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    assert outcome


def test_a_tar_that_shrinks_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", labelled(0, 2))
    dataset = open_dataset(f"webdataset:{tmp_path}")
    os.truncate(path, 600)
    with pytest.raises(ImageError, match=r"x\.tar/0001: the tar is shorter"):
        dataset.read_bytes(1)
    path.unlink()
    with pytest.raises(ImageError, match=r"x\.tar/0000: No such file"):
        dataset.read_bytes(0)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("", UnknownNameError, "names no place: write webdataset:TARS"),
        ("nowhere", MissingDataError, "there is no tar file .*nowhere"),
        ("x-{0000..0002}.tar", MissingDataError, r"write \* in place of \{"),
        (".", MissingDataError, r"there is no tar file .*\*\.tar"),
    ],
)
def test_no_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        open_dataset(f"webdataset:{place}")


def test_json_reads_as_it_was_written(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("0.png", png(0)), ("0.json", json.dumps({"label": 3}).encode())])
    assert open_dataset(f"webdataset:{tmp_path}").labels == (3,)
