"""`pf-willow`: PF-WILLOW, as pairs.jsonl or as published."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from cachetool.datasets.base import Dataset, FileDataset, KeypointPair, labels_of, listed
from cachetool.datasets.decoding import image_size
from cachetool.datasets.matlab import read_variable
from cachetool.datasets.pairs import KeypointPairs, build_pairs
from cachetool.errors import DatasetError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

_PUBLISHED = ("PF-dataset-WILLOW", "PF-dataset", ".")


def open_pf_willow(name: str, root: Path, slug: str) -> Dataset:
    """Open PF-WILLOW from pairs.jsonl where there is one, else from the published folders of .png and .mat files."""
    return KeypointPairs(name, root, slug) if (root / "pairs.jsonl").is_file() else PFWillow(name, root, slug)


class PFWillow(FileDataset):
    """Folders such as ``car(G)`` with NAME.png and NAME.mat, whose ``pts_coord`` (xy, keypoint) counts from 1.

    Pairs are all ordered pairs within a sub-class, and the box of an object is the tight box of its keypoints. Raises
    `DatasetError` naming every image without usable keypoints.
    """

    kind = "pairs"

    def __init__(self, name: str, root: Path, slug: str) -> None:
        self.name, self.family, self.slug = name, slug, slug
        self.root = next(root / part for part in _PUBLISHED if (root / part).is_dir())
        self.image_ids = tuple(sorted(path.relative_to(self.root).as_posix() for path in self.root.glob("*/*.png")))
        if not self.image_ids:
            raise DatasetError(f"{root} holds neither pairs.jsonl nor the folders car(G)/ ... of PF-dataset-WILLOW")
        self._labels, self.class_names = labels_of([image_id.split("/")[0] for image_id in self.image_ids])
        points: dict[str, list[list[float]]] = {}
        sizes: dict[str, tuple[int, int]] = {}
        problems = []
        for image_id in self.image_ids:
            path = self.root / image_id
            try:
                points[image_id] = _read_points(path.with_suffix(".mat"))
                sizes[image_id] = image_size(read_regular(path), str(path))
            except (OSError, ValueError, TypeError) as error:
                problems.append(f"{image_id}: {error}")
        records = []
        for source, target in permutations(points, 2):
            if source.split("/")[0] == target.split("/")[0]:
                if len(points[source]) != len(points[target]):
                    problems.append(f"{source} has {len(points[source])} keypoints, {target} {len(points[target])}")
                records.append(_record(source, target, points))
        if problems:
            raise DatasetError(f"images of {self.root} without usable keypoints:{listed(problems)}")
        self._pairs = build_pairs(self.image_ids, records, sizes)

    @property
    def labels(self) -> tuple[int, ...]:
        """Sub-class of each image."""
        return self._labels

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """All ordered pairs within a sub-class."""
        return self._pairs


def _read_points(file: Path) -> list[list[float]]:
    """Return [[x, y], ...], counting from 0."""
    points = np.asarray(read_variable(file, "pts_coord"), dtype=np.float64)
    if points.ndim != 2 or len(points) != 2 or points.shape[1] < 2 or not np.isfinite(points).all():
        raise ValueError(f"pts_coord must be finite and of shape (2, keypoints), found {points.shape}")
    converted: list[list[float]] = (points.T - 1.0).tolist()
    return converted


def _record(source: str, target: str, points: dict[str, list[list[float]]]) -> dict[str, Any]:
    record: dict[str, Any] = {"src": source, "trg": target, "category": source.split("/")[0]}
    for side, image_id in (("src", source), ("trg", target)):
        xy = np.array(points[image_id])
        record |= {f"{side}_kps": points[image_id], f"{side}_bbox": [*xy.min(axis=0), *xy.max(axis=0)]}
    return record
