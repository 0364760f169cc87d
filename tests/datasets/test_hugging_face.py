from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from cachetool.datasets import absolute_name, catalogue, hash_images, load_batches, open_dataset
from cachetool.datasets.transform import Transform
from cachetool.errors import DatasetError, ImageError, MissingDataError, UnknownNameError

datasets = pytest.importorskip("datasets", reason="the extra [hf] is not installed")


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def rows(first: int = 0, count: int = 5, **more: Any) -> Any:
    """A data set with images, classes and names."""
    numbers = range(first, first + count)
    columns = {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in numbers],
        "label": [i % 2 for i in numbers],
        "file": [f"{'ba'[i % 2]}/{i}.png" for i in numbers],
    }
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
        "file": datasets.Value("string"),
    }
    for name, (values, feature) in more.items():
        columns[name], features[name] = values, feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `datasets` prepares goes into a folder of the test."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(params=["saved", "parquet"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Five rows in either layout."""
    place = tmp_path / "pets"
    if request.param == "saved":
        rows().save_to_disk(place)
    else:
        place.mkdir()
        rows().to_parquet(place / "0000.parquet")
    return place


def test_rows_are_images_in_their_order(folder: Path) -> None:
    dataset = open_dataset(f"hf:{folder}")
    assert dataset.image_ids == ("00000000", "00000001", "00000002", "00000003", "00000004")
    assert dataset.labels == (0, 1, 0, 1, 0)
    assert dataset.class_names == ("cat", "dog")
    assert (dataset.family, dataset.kind) == ("hf", "classification")
    assert dataset.slug.startswith("pets-")
    assert [dataset.read_bytes(i) for i in range(5)] == [png(i) for i in range(5)], "encoded as they were"
    assert hash_images(dataset) == tuple(hashlib.sha256(png(i)).hexdigest() for i in range(5))
    assert dataset.size(0) == (9, 8)
    assert np.array_equal(np.asarray(dataset.decode(2)), np.asarray(Image.open(io.BytesIO(png(2)))))


def test_threads_processes_and_copies_read_alike(folder: Path) -> None:
    dataset = open_dataset(f"hf:{folder}")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(dataset.read_bytes, [0, 1, 2, 3, 4] * 8)) == [png(i) for i in range(5)] * 8
    assert pickle.loads(pickle.dumps(dataset)).read_bytes(3) == png(3)
    transform = Transform(8, "none", 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    here, there = (
        [
            batch.images
            for batch in load_batches(dataset, transform, [[0, 4], [2]], sha256=hash_images(dataset), workers=workers)
        ]
        for workers in (0, 1)
    )
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_a_column_of_ids_gives_names_and_order(folder: Path) -> None:
    dataset = open_dataset(f"hf:{folder}?id=file")
    assert dataset.image_ids == ("a/1.png", "a/3.png", "b/0.png", "b/2.png", "b/4.png")
    assert dataset.labels == (1, 1, 0, 0, 0)
    assert [dataset.read_bytes(i) for i in range(5)] == [png(i) for i in (1, 3, 0, 2, 4)]


def test_splits(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": rows(0, 3), "validation": rows(3, 2)})
    both.save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    rows(0, 2).to_parquet(tmp_path / "parquet" / "data" / "train-00000-of-00002.parquet")
    rows(2, 1).to_parquet(tmp_path / "parquet" / "data" / "train-00001-of-00002.parquet")
    rows(3, 2).to_parquet(tmp_path / "parquet" / "data" / "val-00000-of-00001.parquet")
    for layout in ("saved", "parquet"):
        train, validation = (open_dataset(f"hf:{tmp_path / layout}#{split}") for split in ("train", "validation"))
        assert [train.read_bytes(i) for i in range(3)] == [png(i) for i in range(3)]
        assert [validation.read_bytes(i) for i in range(2)] == [png(3), png(4)]
        assert train.slug != validation.slug
        with pytest.raises(UnknownNameError, match="has several splits; name one: #train, #validation"):
            open_dataset(f"hf:{tmp_path / layout}")
        with pytest.raises(UnknownNameError, match="no split 'test'; there are train, validation"):
            open_dataset(f"hf:{tmp_path / layout}#test")
    (tmp_path / "a#test").mkdir()
    rows().save_to_disk(tmp_path / "a#test")
    assert len(open_dataset(f"hf:{tmp_path}/a#test")) == 5, "a path may hold a #"


def test_columns_that_are_not_alone_have_to_be_named(tmp_path: Path) -> None:
    images = [{"bytes": png(9), "path": None}] * 5
    coarse = datasets.ClassLabel(names=["x"])
    sizes = [7, 1, 1, 0, 0], datasets.Value("int64")
    data = rows(thumbnail=(images, datasets.Image()), coarse=([0] * 5, coarse), size=sizes)
    data.save_to_disk(tmp_path / "a")
    dataset = open_dataset(f"hf:{tmp_path / 'a'}")
    assert dataset.labels == (0, 1, 0, 1, 0), "`image` and `label` are taken where others are there too"
    assert dataset.read_bytes(0) == png(0)
    other = open_dataset(f"hf:{tmp_path / 'a'}?image=thumbnail&label=size")
    assert (other.read_bytes(0), other.labels) == (png(9), (7, 1, 1, 0, 0))
    assert other.class_names == tuple(f"class {i}" for i in range(8))
    by_text = open_dataset(f"hf:{tmp_path / 'a'}?label=file")
    assert (by_text.labels, (by_text.class_names or ())[:2]) == ((2, 0, 3, 1, 4), ("a/1.png", "a/3.png"))
    data.rename_columns({"image": "photo", "label": "fine"}).save_to_disk(tmp_path / "b")
    with pytest.raises(UnknownNameError, match=r"columns of images; name one: \?image=photo or \?image=thumbnail"):
        open_dataset(f"hf:{tmp_path / 'b'}")
    with pytest.raises(UnknownNameError, match=r"columns of labels; name one: \?label=fine or \?label=coarse"):
        open_dataset(f"hf:{tmp_path / 'b'}?image=photo")


def test_without_classes_and_with_withheld_ones(tmp_path: Path) -> None:
    rows().remove_columns("label").save_to_disk(tmp_path / "a")
    dataset = open_dataset(f"hf:{tmp_path / 'a'}")
    assert (dataset.labels, dataset.class_names) == (None, None)
    rows().map(lambda row: {"label": -1}, load_from_cache_file=False).save_to_disk(tmp_path / "b")
    assert open_dataset(f"hf:{tmp_path / 'b'}").labels == (-1,) * 5


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hf:", UnknownNameError, "names no place: write hf:DIR or hf:REPO"),
        ("hf:./nowhere", MissingDataError, "there is no folder .*nowhere"),
        ("hf:a/b/c", UnknownNameError, "names neither a folder nor a repository"),
        ("hf:empty", MissingDataError, "(?s)holds neither what `save_to_disk`.*imagefolder:DIR"),
        ("hf:pets#test", UnknownNameError, "no split 'test'; there is one part, not named"),
        ("hf:pets?mask=x", UnknownNameError, r"found mask after `\?`"),
        ("hf:pets?image=label", UnknownNameError, "'label' is no column of images; these are: image"),
        ("hf:pets?label=x", UnknownNameError, "no column 'x'; there are image, label, file"),
        ("hf:pets?id=x", UnknownNameError, "no column 'x'"),
        ("hf:pets?id=label", DatasetError, "(?s)column 'label' gives no ids:.*'0' is given 3 times"),
        ("hf:words", DatasetError, "(?s)no column of images.*word: Value"),
        ("hf:broken", DatasetError, "hf:broken cannot be read: "),
        ("hf:cut", DatasetError, "hf:cut cannot be read: "),
    ],
)
def test_what_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    rows().save_to_disk("pets")
    datasets.Dataset.from_dict({"word": ["a"]}).save_to_disk("words")
    Path("broken").mkdir()
    Path("broken/x.parquet").write_bytes(b"PAR1 and no more")
    shutil.copytree("pets", "cut")
    (arrow,) = Path("cut").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:200])
    with pytest.raises(error, match=message):
        open_dataset(name)


def test_images_in_other_files_are_not_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "pets" / "inside.png", tmp_path / "outside.png"
    inside.parent.mkdir()
    inside.write_bytes(png(0))
    outside.write_bytes(png(1))
    paths = [str(inside), str(outside), f"{tmp_path}/pets/../outside.png", "https://localhost/x.png", None]
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": path} for path in paths]},
        features=datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}),
    ).with_format("arrow")[:]
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    import pyarrow.parquet

    pyarrow.parquet.write_table(table.cast(schema), tmp_path / "pets" / "x.parquet")
    dataset = open_dataset(f"hf:{tmp_path / 'pets'}")
    assert dataset.read_bytes(0) == png(0)
    for row in (1, 2, 3):
        with pytest.raises(ImageError, match="lies in another file"):
            dataset.read_bytes(row)
    with pytest.raises(ImageError, match="00000004 is empty"):
        dataset.read_bytes(4)
    inside.unlink()
    with pytest.raises(ImageError, match=r"cannot read .*00000000.*No such file"):
        dataset.read_bytes(0)


def test_a_repository_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    started = time.monotonic()
    for name in ("hf:somebody/pets#train", "hf:somebody/pets:small"):
        with pytest.raises(MissingDataError, match=r"(?s)is not on this machine .*HF_TOKEN.*name hf:FOLDER"):
            open_dataset(name)
    assert time.monotonic() - started < 30
    assert capfd.readouterr().out == ""


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(MissingDataError, match=r"is not on this machine .*refused"):
            open_dataset("hf:somebody/pets#train")
    assert time.monotonic() - started < 15
    assert capfd.readouterr() == ("", "")


def test_a_name_means_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pets").mkdir()
    Path("pets#a").mkdir()
    assert absolute_name("hf:pets?id=file#train") == f"hf:{tmp_path}/pets?id=file#train"
    assert absolute_name("hf:pets#a") == f"hf:{tmp_path}/pets#a"
    assert absolute_name("hf:somebody/pets#train") == "hf:somebody/pets#train"


def test_both_forms_are_listed() -> None:
    entries = {entry.name: entry for entry in catalogue()}
    assert entries["hf:DIR"].available
    assert entries["hf:REPO"].available
