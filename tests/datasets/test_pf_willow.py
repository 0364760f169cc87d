from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.io import savemat

from cachetool.datasets import open_dataset
from cachetool.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGES = ("car(G)/Cars_000a", "car(G)/Cars_001b", "car(G)/Cars_002a", "duck(S)/060_0000", "duck(S)/060_0001")


def points(number: int) -> np.ndarray:
    """Points (xy, keypoint) that count from 1, as MATLAB does."""
    return np.random.default_rng(number).uniform(1, 30, (2, 10))


@pytest.fixture(params=["", "PF-dataset-WILLOW"])
def published(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path]
) -> Path:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path))
    root = tmp_path / "pf-willow" / request.param
    for number, image in enumerate(IMAGES):
        write_image(root / f"{image}.png", 40, 30)
        savemat(root / f"{image}.mat", {"pts_coord": points(number)})
    return root


def test_all_ordered_pairs_within_a_sub_class(published: Path) -> None:
    dataset = open_dataset("pf-willow")
    assert dataset.image_ids == tuple(f"{image}.png" for image in IMAGES)
    assert (dataset.labels, dataset.class_names) == ((0, 0, 0, 1, 1), ("car(G)", "duck(S)"))
    found = {(pair.source, pair.target) for pair in dataset.pairs}
    assert found == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 4), (4, 3)}
    pair = next(pair for pair in dataset.pairs if (pair.source, pair.target) == (1, 2))
    assert np.allclose(pair.source_keypoints, points(1).T - 1, rtol=0, atol=1e-12)
    assert np.allclose(pair.target_box, [*(points(2).min(axis=1) - 1), *(points(2).max(axis=1) - 1)])
    assert (pair.source_size, dataset.slug, dataset.kind) == ((40, 30), "pf-willow", "pairs")


def test_every_image_without_usable_keypoints_is_named(published: Path) -> None:
    (published / f"{IMAGES[0]}.mat").unlink()
    savemat(published / f"{IMAGES[1]}.mat", {"pts_coord": np.ones((3, 10))})
    savemat(published / f"{IMAGES[3]}.mat", {"pts_coord": points(3)[:, :9]})
    with pytest.raises(DatasetError) as caught:
        open_dataset("pf-willow")
    for expected in (f"{IMAGES[0]}.png: ", f"{IMAGES[1]}.png: pts_coord must be", f"{IMAGES[3]}.png has 9 keypoints"):
        assert expected in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path))
    (tmp_path / "pf-willow").mkdir()
    with pytest.raises(DatasetError, match=r"neither pairs\.jsonl nor the folders"):
        open_dataset("pf-willow")


def test_a_list_of_pairs_is_preferred(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.toml").write_text(f'pf-willow = "{shared / "data" / "pf_willow"}"\n')
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "data.toml"))
    dataset = open_dataset("pf-willow")
    assert (dataset.slug, len(dataset.pairs)) == ("pf-willow", 900)
