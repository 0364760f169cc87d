"""`spair-71k`: SPair-71k as published."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cachetool.datasets.base import FileDataset, KeypointPair, labels_of, listed
from cachetool.datasets.pairs import build_pairs, keypoint_problems
from cachetool.errors import DatasetError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

_PAIR_NAME = re.compile(r"(?P<number>\d+)-(?P<source>[^:/]+)-(?P<target>[^-:/]+):(?P<category>[^:/]+)")


class SPair(FileDataset):
    """The images and pairs of one split, from Layout/large/<split>.txt and PairAnnotation/<split>/*.json.

    The label of an image is its category. Coordinates are taken as they stand, as the published evaluations do.
    `root` is SPair-71k or the folder above it. The annotations are read when `pairs` is first asked for. Raises
    `DatasetError` naming every line, image or annotation at fault.
    """

    kind = "pairs"

    def __init__(self, name: str, root: Path, split: str, slug: str) -> None:
        self.name, self.split, self.family, self.slug = name, split, slug, slug
        self.root = root / "SPair-71k" if (root / "SPair-71k").is_dir() else root
        layout = self.root / "Layout" / "large" / f"{split}.txt"
        try:
            self._names = layout.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{root} lacks Layout/large/{split}.txt of SPair-71k: {error}") from error
        matches = [_PAIR_NAME.fullmatch(pair) for pair in self._names]
        if not matches or None in matches:
            strange = [pair for pair, match in zip(self._names, matches, strict=True) if match is None]
            raise DatasetError(
                f"{layout} must hold lines NUMBER-SOURCE-TARGET:CATEGORY:{listed(strange) or ' it is empty'}"
            )
        self.image_ids = tuple(
            sorted(
                {_image(match["category"], match[side]) for match in matches if match for side in ("source", "target")}
            )
        )
        if missing := [image_id for image_id in self.image_ids if not (self.root / image_id).is_file()]:
            raise DatasetError(f"{layout} names images that are not in {self.root}:{listed(missing)}")
        self._labels, self.class_names = labels_of([image_id.split("/")[1] for image_id in self.image_ids])

    @property
    def labels(self) -> tuple[int, ...]:
        """Category of each image."""
        return self._labels

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """The pairs, in the order of the layout file."""
        return self._pairs

    @cached_property
    def _pairs(self) -> tuple[KeypointPair, ...]:
        folder = self.root / "PairAnnotation" / self.split
        records: list[dict[str, Any]] = []
        problems: list[str] = []
        sizes: dict[str, tuple[int, int]] = {}
        for pair in self._names:
            try:
                record = _read(folder / f"{pair}.json")
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                problems.append(f"{pair}.json: cannot be read ({type(error).__name__}: {error})")
                continue
            found = keypoint_problems(record)
            found += [
                f"{record[side]} is not in the layout" for side in ("src", "trg") if record[side] not in self._known
            ]
            problems += [f"{pair}.json: {problem}" for problem in found]
            if not found:
                records.append(record)
                sizes |= {record[side]: tuple(record[f"{side}_size"]) for side in ("src", "trg")}
        if problems:
            raise DatasetError(f"annotations in {folder} are faulty:{listed(problems)}")
        return build_pairs(self.image_ids, records, sizes)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.image_ids)


def _image(category: str, stem: str) -> str:
    return f"JPEGImages/{category}/{stem}.jpg"


def _read(file: Path) -> dict[str, Any]:
    """Read one annotation into the terms of pairs.jsonl."""
    found = json.loads(read_regular(file))
    record = {"category": found["category"]}
    for side in ("src", "trg"):
        record[side] = f"JPEGImages/{found['category']}/{found[f'{side}_imname']}"
        record[f"{side}_kps"] = found[f"{side}_kps"]
        record[f"{side}_bbox"] = found[f"{side}_bndbox"]
        record[f"{side}_size"] = found[f"{side}_imsize"][:2]  # width, height, colours
    return record
