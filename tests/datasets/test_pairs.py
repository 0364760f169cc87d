from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachetool.datasets import Dataset


def record(source: str = "a", target: str = "b", **changes: Any) -> dict[str, Any]:
    return {
        "src": f"images/{source}.png",
        "trg": f"images/{target}.png",
        "src_kps": [[1.5, 2], [10, 20.25]],
        "trg_kps": [[3, 4], [5, 6]],
        "category": "duck",
        **changes,
    }


@pytest.fixture
def write(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "images" / f"{name}.png", 40, 30)

    def write_lines(*lines: dict[str, Any] | str) -> Path:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "pairs.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
        return tmp_path

    return write_lines


def pairs(root: Path) -> Dataset:
    return open_dataset(f"pairs:{root}")


def test_pairs_keep_their_order_and_images_are_sorted(write: Callable[..., Path]) -> None:
    first = record("c", "a", src_bbox=[0, 1, 20, 21.5], src_size=[40, 30], note="ignored")
    dataset = pairs(write(first, "", record("a", "c")))
    assert dataset.image_ids == ("images/a.png", "images/c.png")
    assert (dataset.kind, dataset.default_crop) == ("pairs", "none")
    assert [(pair.source, pair.target) for pair in dataset.pairs] == [(1, 0), (0, 1)]
    pair = dataset.pairs[0]
    assert np.array_equal(pair.source_keypoints, [[1.5, 2], [10, 20.25]])
    assert np.array_equal(pair.target_keypoints, [[3, 4], [5, 6]])
    assert pair.source_keypoints.dtype == np.float64
    assert (pair.source_box, pair.target_box) == ((0, 1, 20, 21.5), None)
    assert (pair.source_size, pair.target_size) == ((40, 30), (40, 30))


def test_categories_are_labels_where_each_image_has_one(write: Callable[..., Path]) -> None:
    dataset = pairs(write(record("a", "b"), record("b", "a")))
    assert (dataset.labels, dataset.class_names) == ((0, 0), ("duck",))
    dataset = pairs(write(record("a", "b"), record("b", "c", category="car")))
    assert (dataset.labels, dataset.class_names) == (None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object, found list"),
        ({"src": "images/a.png", "category": "x"}, "lacks trg, src_kps, trg_kps"),
        (record(src="../outside.png"), "src must be a path inside the folder"),
        (record(src="images/../../outside.png"), "src must be a path inside the folder"),
        (record(trg="/etc/hostname"), "trg must be a path inside the folder"),
        (record(trg="images\\b.png"), "trg must be a path inside the folder"),
        (record(trg=7), "trg must be a path inside the folder"),
        (record("a", "nowhere"), "no image images/nowhere.png"),
        (record("a", "a"), "src and trg are the same image"),
        (record(trg="images/./a.png"), "src and trg are the same image"),
        (record(src_kps=[]), "src_kps must be a list"),
        (record(src_kps=[[1, 2, 3], [1, 2]]), "src_kps must be a list"),
        (record(src_kps=[[True, 2], [1, 2]]), "src_kps must be a list"),
        (record(src_kps=[[float("nan"), 2], [1, 2]]), "src_kps must be a list"),
        (record(src_kps=[[10**400, 2], [1, 2]]), "src_kps must be a list"),
        (record(trg_kps=[[1, 2]]), "2 src_kps, but 1 trg_kps"),
        (record(trg_kps=[[1, 2], [41, 3]]), r"trg_kps outside the image images/b.png of [40, 30] pixels: [[41, 3]]"),
        (record(src_bbox=[5, 5, 5, 9]), "src_bbox must be"),
        (record(src_bbox=[1, 2, 3]), "src_bbox must be"),
        (record(trg_size=[40, 31]), "trg_size says [40, 31], but images/b.png is [40, 30]"),
        (record(trg_size=[40.5, 30]), "trg_size must be"),
        (record(src_box=[1, 2, 3, 4]), "unknown key 'src_box'"),
        (record(category=""), "category must be a name"),
        (record("c", "b"), "the pair images/c.png -> images/b.png was given in line 1"),
    ],
)
def test_faulty_lines_are_named(write: Callable[..., Path], line: dict[str, Any] | str, message: str) -> None:
    root = write(record("c", "b"), line)
    with pytest.raises(DatasetError) as caught:
        pairs(root)
    assert "1 of 2 lines are faulty" in str(caught.value)
    assert f"line 2: {message}" in str(caught.value)


def test_every_faulty_line_is_named_at_once(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "images" / "broken.png").write_bytes(b"nothing")
    root = write("{", record("a", "b"), record("a", "broken"), record("b", "a", src_kps=7, category=3))
    with pytest.raises(DatasetError) as caught:
        pairs(root)
    text = str(caught.value)
    assert "3 of 4 lines are faulty" in text
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:]] == ["line 1", "line 3", "line 4", "line 4"]


def test_no_list_and_an_empty_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"lacks a readable pairs\.jsonl"):
        pairs(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("\n\n")
    with pytest.raises(DatasetError, match="holds no pairs"):
        pairs(tmp_path)


def test_unusual_line_separators_stay_inside_a_text(write: Callable[..., Path]) -> None:
    line = json.dumps(record(category="line\u2028separator"), ensure_ascii=False)
    assert pairs(write(line)).class_names == ("line\u2028separator",)


def test_real_pairs(shared: Path) -> None:
    root = shared / "data" / "pf_willow"
    dataset = pairs(root)
    assert (len(dataset), len(dataset.pairs), len(dataset.class_names or ())) == (100, 900, 10)
    lines = [json.loads(line) for line in (root / "pairs.jsonl").read_text().splitlines()]
    for number in range(0, 900, 100):
        pair, line = dataset.pairs[number], lines[number]
        assert (dataset.image_ids[pair.source], dataset.image_ids[pair.target]) == (line["src"], line["trg"])
        assert np.array_equal(pair.source_keypoints, line["src_kps"])
        assert list(pair.target_box or ()) == line["trg_bbox"]
        assert pair.target_size == dataset.decode(pair.target).size
