"""`pairs:DIR`: pairs of images with corresponding keypoints, listed in pairs.jsonl."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cachetool.datasets.base import FileDataset, KeypointPair, labels_of, listed, relative_id, slug_of
from cachetool.datasets.decoding import image_size
from cachetool.errors import DatasetError, ImageError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REQUIRED = ("src", "trg", "src_kps", "trg_kps", "category")
_OPTIONAL = ("src_bbox", "trg_bbox", "src_size", "trg_size")
_LARGEST = 1e9  # pixels; also turns away infinite numbers, and NaN, which compares as false
_TOLERANCE = 1.0  # pixels beyond the border that a keypoint may lie, as hand annotation does


class KeypointPairs(FileDataset):
    """Images named by pairs.jsonl, one pair a line.

    Each line is an object with ``src`` and ``trg`` (paths relative to the folder), ``src_kps`` and ``trg_kps``
    ([[x, y], ...] of the same length and order; the centre of the top left pixel is (0, 0)), ``category``, and where
    known ``src_bbox``, ``trg_bbox`` ([x0, y0, x1, y1]) and ``src_size``, ``trg_size`` ([width, height], which must be
    the image's own). Where every image has one category, these are the labels. Raises `DatasetError` naming every
    faulty line.
    """

    kind = "pairs"

    def __init__(self, name: str, root: Path, slug: str | None = None) -> None:
        self.name, self.root = name, root
        self.family, self.slug = slug or "pairs", slug or slug_of("pairs", root)
        listing = root / "pairs.jsonl"
        try:
            lines = read_regular(listing).decode("utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{root} lacks a readable pairs.jsonl, which names its images and points: {error}"
            ) from error
        records, problems = _parse(lines)
        sizes, more = _read_sizes(root, records)
        problems += more
        for number, record in records.items():
            problems += [(number, problem) for problem in _check_against(record, sizes)]
        if problems:
            raise DatasetError(
                f"{listing}: {len({number for number, _ in problems})} of {len(lines)} lines are faulty:"
                + listed(f"line {number}: {problem}" for number, problem in sorted(problems))
            )
        if not records:
            raise DatasetError(f"{listing} holds no pairs")
        self.image_ids = tuple(sorted(sizes))
        self._pairs = build_pairs(self.image_ids, list(records.values()), sizes)
        self._labels, self.class_names = category_labels(self.image_ids, self._pairs)

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Category of each image, or None where an image occurs under several."""
        return self._labels

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """The pairs, in the order of the file."""
        return self._pairs


def build_pairs(
    image_ids: Sequence[str], records: Sequence[Mapping[str, Any]], sizes: Mapping[str, tuple[int, int]]
) -> tuple[KeypointPair, ...]:
    """Turn checked records in the terms of pairs.jsonl into pairs; `sizes` gives width and height by image id."""
    index = {image_id: position for position, image_id in enumerate(image_ids)}

    def box(values: Sequence[float] | None) -> tuple[float, float, float, float] | None:
        return None if values is None else (float(values[0]), float(values[1]), float(values[2]), float(values[3]))

    return tuple(
        KeypointPair(
            source=index[record["src"]],
            target=index[record["trg"]],
            source_keypoints=np.array(record["src_kps"], dtype=np.float64),
            target_keypoints=np.array(record["trg_kps"], dtype=np.float64),
            category=record["category"],
            source_box=box(record.get("src_bbox")),
            target_box=box(record.get("trg_bbox")),
            source_size=sizes[record["src"]],
            target_size=sizes[record["trg"]],
        )
        for record in records
    )


def category_labels(
    image_ids: Sequence[str], pairs: Sequence[KeypointPair]
) -> tuple[tuple[int, ...] | None, tuple[str, ...] | None]:
    """Return labels and class names from the pairs' categories, or None twice where an image occurs under several."""
    categories: dict[int, str] = {}
    for pair in pairs:
        for image in (pair.source, pair.target):
            if categories.setdefault(image, pair.category) != pair.category:
                return None, None
    return labels_of([categories[image] for image in range(len(image_ids))])


def keypoint_problems(record: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with keypoints, boxes, sizes and category of a record, each taken by itself."""
    problems = []
    for side in ("src", "trg"):
        if not _is_points(record[f"{side}_kps"]):
            problems.append(f"{side}_kps must be a list of at least one [x, y] with finite numbers")
        box = record.get(f"{side}_bbox")
        if box is not None and not (_is_numbers(box, 4) and box[0] < box[2] and box[1] < box[3]):
            problems.append(f"{side}_bbox must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1, found {box!r}")
        size = record.get(f"{side}_size")
        if size is not None and not (_is_numbers(size, 2) and all(v == int(v) and v > 0 for v in size)):
            problems.append(f"{side}_size must be [width, height] in pixels, found {size!r}")
    if not problems and len(record["src_kps"]) != len(record["trg_kps"]):
        problems.append(f"{len(record['src_kps'])} src_kps, but {len(record['trg_kps'])} trg_kps")
    if not isinstance(record["category"], str) or not record["category"]:
        problems.append(f"category must be a name, found {record['category']!r}")
    return problems


def _parse(lines: Sequence[str]) -> tuple[dict[int, dict[str, Any]], list[tuple[int, str]]]:
    """Return the sound records by line number, and the problems of the others. Blank lines are passed over."""
    records: dict[int, dict[str, Any]] = {}
    problems: list[tuple[int, str]] = []
    first_seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()  # finds halves of surrogate pairs, which name nothing
        except (ValueError, RecursionError) as error:
            problems.append((number, f"not JSON ({error})"))
            continue
        found = _structure_problems(record)
        if not found:
            record["src"], record["trg"] = relative_id(record["src"]), relative_id(record["trg"])
            earlier = first_seen.setdefault((record["src"], record["trg"]), number)
            if earlier != number:
                found.append(f"the pair {record['src']} -> {record['trg']} was given in line {earlier}")
        if found:
            problems += [(number, problem) for problem in found]
        else:
            records[number] = record
    return records, problems


def _structure_problems(record: object) -> list[str]:
    if not isinstance(record, dict):
        return [f"must be an object, found {type(record).__name__}"]
    if missing := [key for key in _REQUIRED if key not in record]:
        return [f"lacks {', '.join(missing)}"]
    problems = [
        f"unknown key {key!r}; keys of an image are {', '.join(_REQUIRED[:4] + _OPTIONAL)}"
        for key in record
        if key.startswith(("src", "trg")) and key not in _REQUIRED + _OPTIONAL
    ]
    for side in ("src", "trg"):
        path = record[side]
        if not isinstance(path, str) or relative_id(path) is None:
            problems.append(f"{side} must be a path inside the folder, with / and without .., found {path!r}")
    if not problems and relative_id(record["src"]) == relative_id(record["trg"]):
        problems.append(f"src and trg are the same image {record['src']}")
    return problems + keypoint_problems(record)


def _read_sizes(
    root: Path, records: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, tuple[int, int]], list[tuple[int, str]]]:
    """Return width and height of each image, and a problem at its first line for each that cannot be read."""
    first_line: dict[str, int] = {}
    for number, record in records.items():
        for side in ("src", "trg"):
            first_line.setdefault(record[side], number)
    sizes: dict[str, tuple[int, int]] = {}
    problems = []
    for image_id, number in first_line.items():
        path = root / image_id
        try:
            sizes[image_id] = image_size(read_regular(path), str(path))
        except FileNotFoundError:
            problems.append((number, f"no image {image_id}"))
        except (OSError, ImageError) as error:
            problems.append((number, str(error)))
    return sizes, problems


def _check_against(record: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    problems = []
    for side in ("src", "trg"):
        if (size := sizes.get(record[side])) is None:
            continue
        stated = record.get(f"{side}_size")
        if stated is not None and tuple(stated) != size:
            problems.append(f"{side}_size says {stated}, but {record[side]} is {list(size)}")
        outside = [
            point
            for point in record[f"{side}_kps"]
            if not all(-0.5 - _TOLERANCE <= v <= limit - 0.5 + _TOLERANCE for v, limit in zip(point, size, strict=True))
        ]
        if outside:
            problems.append(f"{side}_kps outside the image {record[side]} of {list(size)} pixels: {outside}")
    return problems


def _is_numbers(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST for v in value)
    )


def _is_points(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(_is_numbers(point, 2) for point in value)
