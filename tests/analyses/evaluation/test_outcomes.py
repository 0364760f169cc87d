from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cachetool
from analyses.evaluation.outcomes import FittedHead, measured, outcome_key, outcome_path, store_key
from analyses.tasks.base import Metric, Task
from analyses.tasks.correspondence import Correspondence
from analyses.tasks.retrieval import Retrieval
from analyses.tasks.segmentation import Segmentation
from analyses.tasks.shares import share
from cachetool.annotations import Annotations
from tests.analyses.conftest import Small

CALLS: list[str] = []


@dataclass(frozen=True)
class Parity(Task):
    """Whether the first channel's mean lies above the head's threshold."""

    name = "parity of:means"
    description = "stand-in"
    fitted = True
    threshold: float = 0.0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (share("above", "above", "hit"),)

    @property
    def tokens(self) -> tuple[str, ...]:
        return ("cls",)

    @property
    def settings(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        return None

    def fit(self, train: xr.Dataset, annotations: Annotations) -> float:
        CALLS.append("fit")
        return float(train.cls.isel(layer=-1, channel=0).mean()) + self.threshold

    def measure(self, store: xr.Dataset, head: float, annotations: Annotations) -> xr.Dataset:
        CALLS.append("measure")
        hit = store.cls.isel(layer=-1, channel=0).values > head
        return xr.Dataset({"hit": ("image", hit)}, {"image_id": store.image_id}, {"head": head, "tried": [0.1, 1.0]})


@dataclass(frozen=True)
class Stores:
    cache: xr.Dataset
    run: xr.Dataset
    annotations: Annotations
    train: xr.Dataset
    training: Annotations

    def head(self, task: Task) -> FittedHead:
        return FittedHead(task, self.train, self.training)


@pytest.fixture
def stores(small: Small, tmp_path: Path) -> Stores:
    CALLS.clear()
    cache, train = cachetool.open(small.cache), cachetool.open(small.train)
    run = small.opened()[1]
    for store in (cache, run):  # outcomes of one test must not be found by the next
        own = Path(store.attrs["cachetool_path"])
        store.attrs["cachetool_path"] = str(tmp_path / own.relative_to(small.cache.parent))
    annotations = cachetool.open_annotations(small.cache)
    return Stores(cache, run, annotations, train, cachetool.open_annotations(small.train))


def test_measured_once(stores: Stores) -> None:
    task = Parity()
    first = measured(task, stores.run, stores.annotations, stores.head(task))
    assert CALLS == ["fit", "measure"]
    again = measured(task, stores.run, stores.annotations, stores.head(task))
    assert CALLS == ["fit", "measure"]
    xr.testing.assert_identical(first, again)
    expected = stores.run.cls.isel(layer=-1, channel=0).values > first.attrs["head"]
    assert first.hit.values.tolist() == expected.tolist()
    assert first.attrs["tried"] == [0.1, 1.0]


def test_one_head_serves_all_runs(stores: Stores) -> None:
    task = Parity()
    head = stores.head(task)
    measured(task, stores.run, stores.annotations, head)
    measured(task, stores.cache, stores.annotations, head)
    assert CALLS == ["fit", "measure", "measure"]


def test_files_lie_beside_the_cache(stores: Stores, tmp_path: Path) -> None:
    task = Parity()
    for store in (stores.cache, stores.run):
        measured(task, store, stores.annotations, stores.head(task))
    folder = tmp_path / "tiny-reg.outcomes" / "parity-of-means"
    names = sorted(path.name.split(".nc")[0].rsplit(".", 1)[0] for path in folder.iterdir())
    assert names == sorted(Path(store.attrs["cachetool_path"]).stem for store in (stores.cache, stores.run))


def test_other_settings_heads_and_images_are_other_outcomes(stores: Stores) -> None:
    task = Parity()
    key = outcome_key(task, stores.run, stores.annotations, stores.head(task))
    assert key != outcome_key(Parity(threshold=1.0), stores.run, stores.annotations, stores.head(task))
    assert key != outcome_key(task, stores.cache, stores.annotations, stores.head(task))
    fewer = FittedHead(task, stores.train.isel(image=slice(50)), stores.training)
    assert key != outcome_key(task, stores.run, stores.annotations, fewer)
    swapped = stores.run.assign_coords(content_sha256=stores.run.content_sha256[::-1])
    assert store_key(stores.run, stores.annotations, task) != store_key(swapped, stores.annotations, task)


def test_other_labels_are_other_outcomes(stores: Stores, small: Small) -> None:
    relabelled = cachetool.open_annotations(small.cache)
    assert relabelled.labels is not None
    relabelled.labels[0] += 1
    assert store_key(stores.run, stores.annotations, Parity()) != store_key(stores.run, relabelled, Parity())


def test_pairs_count_where_they_are_measured(stores: Stores, small: Small) -> None:
    moved = cachetool.open_annotations(small.cache)
    pairs = list(moved.pairs)
    pairs[0] = replace(pairs[0], target_keypoints=pairs[0].target_keypoints + 1)
    moved.pairs = tuple(pairs)
    for task, same in ((Parity(), True), (Correspondence(), False)):
        keys = [store_key(stores.run, annotations, task) for annotations in (stores.annotations, moved)]
        assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize("damage", ["truncated", "empty", "other bytes", "other key"])
def test_damaged_files_are_measured_anew(stores: Stores, damage: str) -> None:
    task = Parity()
    first = measured(task, stores.run, stores.annotations, stores.head(task))
    path = outcome_path(task, stores.run, outcome_key(task, stores.run, stores.annotations, stores.head(task)))
    content = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "other bytes":
            path.write_bytes(bytes(reversed(content)))
        case _:
            other = replace(task, threshold=100.0)
            measured(other, stores.run, stores.annotations, stores.head(other))
            written = outcome_path(
                other, stores.run, outcome_key(other, stores.run, stores.annotations, stores.head(other))
            )
            path.write_bytes(written.read_bytes())
    CALLS.clear()
    again = measured(task, stores.run, stores.annotations, stores.head(task))
    assert CALLS == ["fit", "measure"]
    xr.testing.assert_identical(first, again)


def test_a_fitted_task_needs_something_to_fit_on() -> None:
    with pytest.raises(ValueError, match="give a training cache"):
        FittedHead(Parity())


def test_values_survive_the_disk(stores: Stores) -> None:
    class Mixed(Parity):
        def measure(self, store: xr.Dataset, head: float, annotations: Annotations) -> xr.Dataset:
            error = np.array([[1.5, np.inf], [np.nan, 0.0]])
            names = np.array(["dog", "Kuh ü"], dtype=object)
            return xr.Dataset({"error": (("pair", "point"), error)}, {"pair": [3, 7], "category": ("pair", names)})

    first = measured(Mixed(), stores.run, stores.annotations, stores.head(Mixed()))
    found = measured(Mixed(), stores.run, stores.annotations, stores.head(Mixed()))
    assert CALLS.count("fit") == 1
    xr.testing.assert_identical(first, found)
    np.testing.assert_array_equal(found.error.values, [[1.5, np.inf], [np.nan, 0.0]])
    assert found.category.values.tolist() == ["dog", "Kuh ü"]
    assert found.pair.values.tolist() == [3, 7]


def test_masks_that_were_changed_are_measured_again(tmp_path: Path) -> None:
    mask = tmp_path / "a.png"
    mask.write_bytes(b"one")
    first, again = (
        store_key(_any_store(), _Masked(mask), Segmentation())
        for _ in range(2)  # type: ignore[arg-type]
    )
    assert first == again
    mask.write_bytes(b"three")
    assert store_key(_any_store(), _Masked(mask), Segmentation()) != first  # type: ignore[arg-type]
    assert store_key(_any_store(), _Masked(mask), Retrieval()) == store_key(  # type: ignore[arg-type]
        _any_store(),
        _Masked(tmp_path / "other"),
        Retrieval(),  # type: ignore[arg-type]
    )


class _Masked:
    """What keys read of annotations with one mask file; a new object each, since digests of one are remembered."""

    labels, class_names, mask_names, pairs = None, None, ("a",), ()

    def __init__(self, mask: Path) -> None:
        self.mask_files = (mask,)


def _any_store() -> xr.Dataset:
    coordinates = {name: ("image", [value]) for name, value in (("image_id", "a"), ("content_sha256", "b"))}
    return xr.Dataset(coords={**coordinates, "readable": ("image", [True])}, attrs={"kind": "cache", "key": {}})
