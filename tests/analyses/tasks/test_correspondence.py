from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import torch
import xarray as xr

import cachetool
from analyses.tasks import parse_task
from analyses.tasks.correspondence import Correspondence, floors
from cachetool.annotations import open_annotations
from cachetool.datasets import KeypointPair, Transform, open_dataset
from cachetool.errors import MissingDataError, UnknownNameError

ROWS, PATCHES, CHANNELS = 8, 64, 96
SIZES = [(120, 80), (90, 90), (64, 100), (300, 200)]


def keypoint_pair(source: int, target: int, first: Any, second: Any) -> KeypointPair:
    first, second = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    size, other = SIZES[source], SIZES[target]
    return KeypointPair(source, target, first, second, "cat", None, (0, 0, 30, 40), size, other)


def stand_in(pairs: list[KeypointPair], crop: str = "none") -> Any:
    transform = Transform(64, crop, 1.0, "bilinear", (0, 0, 0), (1, 1, 1))  # type: ignore[arg-type]
    return SimpleNamespace(
        dataset=SimpleNamespace(name="drawn"),
        pairs=tuple(pairs),
        image_ids=tuple("abcd"),
        rows=ROWS,
        columns=ROWS,
        patch_size=8.0,
        geometry=transform.geometry,
    )


def store(tokens: npt.NDArray[np.float32], readable: list[bool] | None = None, kind: str = "cache") -> xr.Dataset:
    """A store of one state, in blocks of two images, without a final norm."""
    lazy = da.from_array(tokens[:, None], chunks=(2, 1, -1, -1))
    return xr.Dataset(
        {"patches": (("image", "layer", "patch", "channel"), lazy)},
        coords={"readable": ("image", readable or [True] * len(tokens)), "layer": [12]},
        attrs={"norm": {"type": "none"}, "kind": kind, "depth": 12},
    )


def tokens(seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((4, PATCHES, CHANNELS)).astype(np.float32)


def patch_centre(image: int, patch: int) -> list[float]:
    """Centre of a patch of the uncropped 64 x 64 input, in pixels of an image, from edges: no affine map."""
    row, column = divmod(patch, ROWS)
    width, height = SIZES[image]
    return [width * (column + 0.5) / ROWS - 0.5, height * (row + 0.5) / ROWS - 0.5]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, Any]:
    cache = cachetool.extract(
        "tiny-reg", "shapes#val", root=tmp_path_factory.mktemp("shapes"), layers=[12], tokens=["patches"], limit=120
    )
    return cache, open_annotations(cache)


def test_planted_matches_are_found_in_original_pixels() -> None:
    features = tokens()
    features[3, 50], features[2, 7] = 3 * features[0, 10], features[0, 10]
    pairs = [
        keypoint_pair(0, 3, [patch_centre(0, 10)], [[200.0, 110.0]]),
        keypoint_pair(0, 2, [patch_centre(0, 10)], [patch_centre(2, 7)]),
    ]
    outcomes = Correspondence().measure(store(features), None, stand_in(pairs))
    assert outcomes.predicted.values[0, 0] == pytest.approx(patch_centre(3, 50))
    expected = np.hypot(*(np.array(patch_centre(3, 50)) - [200, 110]))
    assert outcomes.error.values[:, 0] == pytest.approx([expected, 0], abs=1e-9)
    assert outcomes.source_id.values.tolist() == ["a", "a"]
    assert outcomes.target_id.values.tolist() == ["d", "c"]


def test_points_outside_the_crop_are_wrong_and_counted() -> None:
    """Of 300 x 200 pixels the centre crop keeps columns 50 to 249; the other images are 90 x 90, so kept whole."""
    features = tokens()
    features[3] = features[1]
    kept = patch_centre(1, 27)
    inside = [50 + 200 * (3.5 / 8) - 0.5, 200 * (3.5 / 8) - 0.5]
    outside = [40.0, 100.0]
    pairs = [
        keypoint_pair(1, 3, [kept, kept, kept], [inside, outside, inside]),
        keypoint_pair(3, 1, [outside, inside], [kept, kept]),
    ]
    outcomes = Correspondence().measure(store(features), None, stand_in(pairs, crop="center"))
    expected = np.array([[0, np.inf, 0], [np.inf, 0, np.nan]])
    assert outcomes.error.values == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert outcomes.attrs["points_source_outside"] == 1
    assert outcomes.attrs["points_target_outside"] == 1
    assert outcomes.attrs["points_without_unique_match"] == 0
    assert Correspondence().metrics[0].value(outcomes) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_annotation_just_beyond_the_border_belongs_to_the_outermost_patch() -> None:
    features = tokens()
    features[1] = features[0]
    pairs = [keypoint_pair(0, 1, [[120.4, -1.0]], [patch_centre(1, 7)])]
    outcomes = Correspondence().measure(store(features), None, stand_in(pairs))
    assert outcomes.error.values[0, 0] == pytest.approx(0, abs=1e-9)
    assert outcomes.attrs["points_source_outside"] == 0


@pytest.mark.parametrize("method", ["argmax", "soft-argmax"])
def test_constant_patches_earn_nothing(method: Any) -> None:
    """Whatever the order: the annotated point lies in the first, the last and a middle patch."""
    features = np.ones((4, PATCHES, CHANNELS), dtype=np.float32)
    pairs = [keypoint_pair(0, 1, [[5.0, 5.0]] * 3, [patch_centre(1, patch) for patch in (0, 30, 63)])]
    outcomes = Correspondence(method).measure(store(features), None, stand_in(pairs))
    assert np.isposinf(outcomes.error.values).all()
    assert outcomes.attrs["points_without_unique_match"] == 3


def test_removed_patches_neither_carry_nor_receive_points() -> None:
    features = tokens()
    features[1] = features[0]
    features[0, 20], features[1, 30] = np.nan, np.nan
    points = [[patch_centre(image, patch) for patch in (20, 30, 40)] for image in (0, 1)]
    annotations = stand_in([keypoint_pair(0, 1, *points)])
    outcomes = Correspondence().measure(store(features, kind="run"), None, annotations)
    assert np.isposinf(outcomes.error.values[0]).tolist() == [True, False, False]
    assert outcomes.error.values[0, 1] > 0
    assert outcomes.error.values[0, 2] == pytest.approx(0, abs=1e-9)

    everything = store(np.full_like(features, np.nan), kind="run")
    assert np.isposinf(Correspondence().measure(everything, None, annotations).error.values).all()


def test_pairs_of_undecodable_images_are_left_out() -> None:
    pairs = [keypoint_pair(*ends, [[5.0, 5.0]], [[5.0, 5.0]]) for ends in ((0, 1), (1, 2), (2, 3), (0, 3))]
    annotations = stand_in(pairs)
    outcomes = Correspondence().measure(store(tokens(), [True, True, False, True]), None, annotations)
    assert outcomes.pair.values.tolist() == [0, 3]
    assert outcomes.attrs["pairs_left_out"] == 2
    floor = floors(annotations)["identity"].sel(pair=outcomes.pair)
    assert floor.source_id.values.tolist() == ["a", "a"]
    with pytest.raises(MissingDataError, match="none of its 4 keypoint pairs"):
        Correspondence().measure(store(tokens(), [True, False, False, False]), None, annotations)


def test_obstacles() -> None:
    pairs = [keypoint_pair(0, 1, [[5.0, 5.0]], [[5.0, 5.0]])]
    task, whole = Correspondence(), store(tokens())
    assert task.obstacle(whole, stand_in(pairs)) is None
    assert "token type `patches`" in str(task.obstacle(whole.drop_vars("patches"), stand_in(pairs)))
    assert "drawn has no keypoint pairs between the 4 images" in str(task.obstacle(whole, stand_in([])))
    assert "state 4 is needed, and the store holds 12" in str(Correspondence(layer=4).obstacle(whole, stand_in(pairs)))
    assert "state 24, the model's last, is needed" in str(task.obstacle(whole.assign_attrs(depth=24), stand_in(pairs)))
    absent = store(np.full_like(tokens(), np.nan))
    assert "no patch tokens at the state that is read" in str(task.obstacle(absent, stand_in(pairs)))


def test_each_block_is_read_at_most_twice() -> None:
    reads: list[int] = []

    def read(block: npt.NDArray[np.float32], block_info: Any = None) -> npt.NDArray[np.float32]:
        if block_info:
            reads.append(block_info[0]["chunk-location"][0])
        return block

    whole = store(tokens(), kind="run")
    counted = whole.patches.data.map_blocks(read, dtype=np.float32, meta=np.empty((0, 0, 0, 0), dtype=np.float32))
    pairs = [keypoint_pair(source, target, [[9.0, 9.0]], [[9.0, 9.0]]) for source in range(4) for target in range(4)]
    Correspondence().measure(whole.assign(patches=(whole.patches.dims, counted)), None, stand_in(pairs))
    assert sorted(reads) == [0, 0, 1, 1]


def directly(cache: xr.Dataset, annotations: Any, method: str, radius: int, temperature: float) -> list[list[float]]:
    """Errors of all points, pair by pair and point by point, by torch."""
    final = torch.from_numpy(cache.patches.isel(layer=-1).values)
    norm = [torch.from_numpy(cache[name].values) for name in ("norm_weight", "norm_bias")]
    final = torch.nn.functional.layer_norm(final, final.shape[-1:], *norm, cache.attrs["norm"]["epsilon"])
    rows = annotations.rows
    errors = []
    for pair in annotations.pairs:
        errors.append([])
        (width, height), (target_width, target_height) = pair.source_size, pair.target_size
        for (x, y), truth in zip(pair.source_keypoints, pair.target_keypoints, strict=True):
            patch = int((y + 0.5) / height * rows) * rows + int((x + 0.5) / width * rows)
            cosine = torch.cosine_similarity(final[pair.source, patch], final[pair.target], dim=-1).reshape(rows, rows)
            row, column = divmod(int(cosine.argmax()), rows)
            if method == "soft-argmax":
                top, left = max(0, row - radius), max(0, column - radius)
                window = cosine[top : row + radius + 1, left : column + radius + 1]
                weight = torch.softmax(window.ravel() / temperature, dim=0).reshape(window.shape)
                row = float((weight.sum(dim=1) * torch.arange(top, top + window.shape[0])).sum())
                column = float((weight.sum(dim=0) * torch.arange(left, left + window.shape[1])).sum())
            found = [(column + 0.5) * target_width / rows - 0.5, (row + 0.5) * target_height / rows - 0.5]
            errors[-1].append(float(np.hypot(*(np.array(found) - truth))))
    return errors


@pytest.mark.parametrize("method", ["argmax", "soft-argmax"])
def test_outcomes_of_a_model_against_a_direct_computation(shapes: tuple[xr.Dataset, Any], method: Any) -> None:
    cache, annotations = shapes
    task = Correspondence(method, window_radius=1, temperature=0.05)
    outcomes = task.measure(cache, None, annotations)
    expected = directly(cache, annotations, method, 1, 0.05)
    assert len(expected) == outcomes.sizes["pair"] > 20
    for row, errors in enumerate(expected):
        # A patch's cosine is summed in another order, which moves soft positions by float32 rounding.
        assert outcomes.error.values[row, : len(errors)] == pytest.approx(errors, abs=0.01)
        assert np.isnan(outcomes.error.values[row, len(errors) :]).all()

    blocks = cache.chunk({"image": 7})
    xr.testing.assert_equal(task.measure(blocks, None, annotations), outcomes)


def test_features_of_the_embedded_model_beat_both_floors(shapes: tuple[xr.Dataset, Any]) -> None:
    cache, annotations = shapes
    pck = Correspondence().metrics[0]
    measured = pck.value(Correspondence().measure(cache, None, annotations))
    assert all(measured > pck.value(floor) + 0.1 for floor in floors(annotations).values())


def test_floors_by_hand() -> None:
    pairs = [keypoint_pair(0, 3, [[11.5, 19.5], [59.5, 39.5]], [[29.5, 49.5], [59.5, 39.5]])]
    found = floors(stand_in(pairs))
    # 120 x 80 to 300 x 200: (11.5 + 0.5) * 300 / 120 - 0.5 = 29.5, (19.5 + 0.5) * 200 / 80 - 0.5 = 49.5.
    assert found["copy-position"].predicted.values[0].tolist() == [[29.5, 49.5], [149.5, 99.5]]
    assert found["copy-position"].error.values[0] == pytest.approx([0, np.hypot(90, 60)])
    assert found["identity"].error.values[0] == pytest.approx([np.hypot(18, 30), 0])
    pck = Correspondence().metrics[0]
    assert [pck.value(floor) for floor in found.values()] == [0.5, 0.5]


def test_settings_and_names() -> None:
    assert Correspondence().name == "correspondence"
    assert Correspondence().settings == Correspondence(window_radius=5).settings
    soft = Correspondence("soft-argmax", yardstick="image")
    assert soft.name == "correspondence:soft-argmax:image"
    assert parse_task(soft.name) == soft
    assert parse_task("correspondence:image@4") == Correspondence(yardstick="image", layer=4)
    assert soft.settings != Correspondence("soft-argmax", yardstick="image", window_radius=5).settings
    assert soft.metrics[0].name == "pck@0.1 of image"
    with pytest.raises(UnknownNameError, match=r"'mean'.*'ruler'.*window_radius.*temperature"):
        Correspondence("mean", "ruler", 0, 0.0)  # type: ignore[arg-type]


def test_copying_positions_on_pf_willow(shared: Path) -> None:
    """The published floor in the README of the data set: 0.27."""
    dataset: Any = open_dataset(f"pairs:{shared / 'data' / 'pf_willow'}")
    annotations: Any = SimpleNamespace(pairs=dataset.pairs, image_ids=dataset.image_ids)
    pck = Correspondence().metrics[0]
    assert pck.value(floors(annotations)["copy-position"]) == pytest.approx(0.27, abs=0.005)


@pytest.mark.slow
def test_real_features_on_pf_willow(shared: Path, tmp_path: Path) -> None:
    """A supervised ViT-Tiny matches best half-way up; of its last state only soft-argmax beats both floors."""
    cache = cachetool.extract(
        "timm:vit_tiny_patch16_224",
        f"pairs:{shared / 'data' / 'pf_willow'}",
        weights=shared / "weights" / "vit_tiny_patch16_224.safetensors",
        root=tmp_path,
        layers=[4, 12],
        tokens=["patches"],
    )
    annotations: Any = open_annotations(cache)
    lowest = {name: Correspondence().metrics[0].value(floor) for name, floor in floors(annotations).items()}

    def pck(task: Correspondence) -> float:
        return task.metrics[0].value(task.measure(cache, None, annotations))

    assert pck(Correspondence()) > lowest["identity"] + 0.03
    assert pck(Correspondence("soft-argmax")) > lowest["copy-position"]
    assert pck(Correspondence(layer=4)) > lowest["copy-position"] + 0.05

    last = cache.sel(layer=[12])
    for method in ("argmax", "soft-argmax"):
        outcomes = Correspondence(method).measure(last, None, annotations)  # type: ignore[arg-type]
        expected = np.array(directly(last, annotations, method, 2, 0.02))
        # Where two patches differ by less than float32 resolves, the two computations may choose differently.
        assert (np.abs(outcomes.error.values - expected) < 0.05).mean() > 0.999


def test_pairs_beyond_a_store_that_its_cache_outgrew_are_left_out() -> None:
    pairs = [
        keypoint_pair(source, target, [patch_centre(source, 9)], [patch_centre(target, 20)])
        for source, target in ((0, 1), (1, 3), (2, 0))
    ]
    annotations, whole = stand_in(pairs), store(tokens())
    short = whole.isel(image=slice(3))
    found = Correspondence().measure(short, None, annotations)
    assert found.pair.values.tolist() == [0, 2]
    assert found.attrs["pairs_left_out"] == 1
    expected = Correspondence().measure(whole, None, annotations).sel(pair=[0, 2])
    np.testing.assert_array_equal(found.predicted.values, expected.predicted.values)
