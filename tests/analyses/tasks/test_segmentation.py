from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.ndimage import map_coordinates
from sklearn.linear_model import LogisticRegression
from torchmetrics.classification import MulticlassJaccardIndex

import cachetool
from analyses.netcdf import read_netcdf, write_netcdf
from analyses.tasks import parse_task, soft_probe
from analyses.tasks.segmentation import Segmentation, per_class
from cachetool.errors import DatasetError, MissingDataError, UnknownNameError
from tests.analyses.tasks.mask_stand_in import MaskAnnotations
from tests.analyses.tasks.stand_ins import store

NAMES = ("sky", "tree", "road", "car")
CENTRES = 3 * np.eye(4, 6)


def scenes(images: int, seed: int, readable: np.ndarray | None = None) -> tuple[xr.Dataset, MaskAnnotations]:
    """Masks of several sizes made of patches of one class each, noisy features of them, and a border to ignore."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (images, 4, 4))
    masks = []
    for index in range(images):
        height, width = [(24, 32), (40, 20), (24, 32), (28, 28)][index % 4]
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        mask = labels[index][rows[:, None], columns[None, :]].astype(np.uint8)
        mask[: index % 3] = 255
        masks.append(mask)
    features = CENTRES[labels.reshape(images, 16)] + rng.standard_normal((images, 16, 6))
    found = store(np.zeros((images, 6)), readable, patches=features)
    return found.chunk({"image": 5}), MaskAnnotations(masks, NAMES)


@pytest.fixture
def task() -> Segmentation:
    return Segmentation(strength=0.1)


def upsampled(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """(row, column) at another size, linear between the centres of patches."""
    size = grid.shape[0]
    positions = np.meshgrid(
        (np.arange(height) + 0.5) * size / height - 0.5, (np.arange(width) + 0.5) * size / width - 0.5, indexing="ij"
    )
    return map_coordinates(grid, positions, order=1, mode="nearest")


def test_outcomes_against_scikit_learn_scipy_and_torchmetrics(
    task: Segmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each training patch has one class here, so that a plain fit is the oracle; image 2 could not be decoded."""
    monkeypatch.setattr(soft_probe, "TOLERANCE", 1e-8)
    train, train_annotations = scenes(12, 0)
    readable = np.arange(11) != 2
    evaluated, annotations = scenes(11, 1, readable)
    evaluated.patches[2] = np.nan
    outcomes = task.measure(evaluated, task.fit(train, train_annotations), annotations)

    assert train_annotations.masks is not None
    assert annotations.masks is not None
    known, labels = train.patches.values[:, 0], []
    for mask in train_annotations.masks:
        height, width = mask.shape
        labels.append(mask[height // 4 - 1 :: height // 4, width // 4 - 1 :: width // 4].ravel())  # lower right pixels
    scale, centre = known.std(axis=(0, 1), dtype=np.float64), known.mean(axis=(0, 1), dtype=np.float64)
    oracle = LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000)
    oracle.fit((known.reshape(-1, 6) - centre) / scale, np.concatenate(labels))
    jaccard = MulticlassJaccardIndex(4, average="none", ignore_index=255)
    right, total = 0, 0
    for image in np.flatnonzero(readable):
        mask = annotations.masks[image]
        logits = oracle.decision_function((evaluated.patches.values[image, 0] - centre) / scale).reshape(4, 4, 4)
        prediction = np.stack([upsampled(logits[:, :, label], *mask.shape) for label in range(4)]).argmax(axis=0)
        jaccard.update(torch.from_numpy(prediction), torch.from_numpy(mask.astype(int)))
        right, total = right + (prediction == mask).sum(), total + (mask != 255).sum()
    np.testing.assert_allclose(per_class(outcomes)["iou"], jaccard.compute(), rtol=1e-6)
    miou, accuracy = task.metrics
    assert miou.value(outcomes) == pytest.approx(float(jaccard.compute().mean()), rel=1e-6)
    assert accuracy.value(outcomes) == pytest.approx(right / total)
    assert 0.4 < miou.value(outcomes) < 0.95
    assert outcomes.image_id.values.tolist() == [f"image {image:04}" for image in np.flatnonzero(readable)]
    assert outcomes.mask_class.values.tolist() == list(NAMES)
    assert outcomes.annotated.sum() == total
    assert outcomes.attrs == {
        "strength": 0.1,
        "converged": 1,
        "training_patches": 192,
        "classes_without_training": "",
    }


def test_blocks_and_batches_do_not_matter(task: Segmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    train, train_annotations = scenes(12, 0)
    evaluated, annotations = scenes(11, 1)
    head = task.fit(train.chunk({"image": 1}), train_annotations)
    expected = task.measure(evaluated.compute(), head, annotations)
    monkeypatch.setattr("analyses.tasks.segmentation._PIXELS_AT_ONCE", 1)
    again = task.fit(train, train_annotations)
    np.testing.assert_array_equal(again.probe.weight, head.probe.weight)
    xr.testing.assert_identical(task.measure(evaluated, again, annotations), expected)


def test_outcomes_survive_a_file(task: Segmentation, tmp_path: Path) -> None:
    train, annotations = scenes(12, 0)
    chosen = Segmentation()
    outcomes = chosen.measure(train, chosen.fit(train, annotations), annotations)
    assert outcomes.attrs["strengths_tried"] == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert outcomes.attrs["strength"] in outcomes.attrs["strengths_tried"]
    write_netcdf(outcomes, tmp_path / "outcomes.nc")
    found = read_netcdf(tmp_path / "outcomes.nc")
    xr.testing.assert_equal(found, outcomes)
    assert found.attrs["classes_without_training"] == ""
    for metric in task.metrics:
        assert metric.value(found) == metric.value(outcomes)


def test_removed_patches_are_predicted_as_no_class(task: Segmentation) -> None:
    evaluated, annotations = scenes(4, 1)
    head = task.fit(*scenes(12, 0))
    whole = task.measure(evaluated, head, annotations)
    run = evaluated.copy(deep=True).compute()
    run.patches[0, 0, :4] = np.nan  # the first row of patches of image 0, 24 x 32 pixels without any to ignore
    outcomes = task.measure(run, head, annotations)
    # Interpolation carries the gap to the centres of the second row of patches: 6 rows and half of the next 6.
    assert int(whole.predicted[0].sum() - outcomes.predicted[0].sum()) == 9 * 32
    xr.testing.assert_equal(outcomes.annotated, whole.annotated)
    xr.testing.assert_equal(outcomes.isel(image=slice(1, None)), whole.isel(image=slice(1, None)))

    everything = run.assign(patches=run.patches * np.nan)
    lost = task.measure(everything, head, annotations)
    assert int(lost.predicted.sum()) == int(lost.intersection.sum()) == 0
    assert task.metrics[0].value(lost) == 0


def test_fits_leave_out_removed_and_unreadable_patches(task: Segmentation) -> None:
    train, annotations = scenes(12, 0)
    damaged = train.copy(deep=True).compute()
    damaged.patches[:, 0, 5] = np.nan
    damaged.patches[3] = np.nan
    damaged.readable[3] = False
    head = task.fit(damaged, annotations)
    assert head.probe.patches == 11 * 15
    assert np.isfinite(head.probe.weight).all()


def test_at_most_so_many_patches_are_fitted() -> None:
    train, annotations = scenes(12, 0)
    limited = Segmentation(training_patches=50, strength=0.1)
    head = limited.fit(train, annotations)
    assert head.probe.patches == 50
    again = Segmentation(training_patches=50, strength=0.1).fit(train, annotations)
    np.testing.assert_array_equal(again.probe.weight, head.probe.weight)
    other = Segmentation(training_patches=50, strength=0.1, seed=1).fit(train, annotations)
    assert (other.probe.weight != head.probe.weight).any()
    assert limited.settings["training_patches"] == 50
    assert limited.settings != Segmentation(strength=0.1).settings != Segmentation().settings


def test_masks_are_decoded_once_for_all_arms(task: Segmentation) -> None:
    train, train_annotations = scenes(12, 0)
    evaluated, annotations = scenes(8, 1)
    for _ in range(3):
        task.measure(evaluated, task.fit(train, train_annotations), annotations)
    assert set(train_annotations.decoded.values()) == set(annotations.decoded.values()) == {1}


def test_images_without_annotated_pixels_change_nothing(task: Segmentation) -> None:
    train, train_annotations = scenes(12, 0)
    evaluated, annotations = scenes(8, 1)
    assert annotations.masks is not None
    annotations.masks[4][:] = 255  # type: ignore[index]
    outcomes = task.measure(evaluated, task.fit(train, train_annotations), annotations)
    assert all(int(outcomes[name][4].sum()) == 0 for name in ("intersection", "predicted", "annotated"))
    for metric in task.metrics:
        assert metric.value(outcomes) == metric.value(outcomes.isel(image=[0, 1, 2, 3, 5, 6, 7]))


def test_classes_that_no_training_patch_shows_are_named_and_count_as_missed(task: Segmentation) -> None:
    train, train_annotations = scenes(12, 0)
    assert train_annotations.masks is not None
    for mask in train_annotations.masks:
        mask[mask == 1] = 255
    evaluated, annotations = scenes(8, 1)
    outcomes = task.measure(evaluated, task.fit(train, train_annotations), annotations)
    assert outcomes.attrs["classes_without_training"] == "tree"
    assert int(outcomes.predicted.sel(mask_class="tree").sum()) == 0
    assert per_class(outcomes)["iou"][1] == 0
    assert task.metrics[0].value(outcomes) == pytest.approx(per_class(outcomes)["iou"].mean())


def test_other_classes_are_refused(task: Segmentation) -> None:
    head = task.fit(*scenes(12, 0))
    evaluated, annotations = scenes(4, 1)
    annotations.mask_names = ("sky", "road", "tree")
    with pytest.raises(
        DatasetError,
        match="1 is road in stand-in and tree in stand-in; 2 is tree in stand-in and road in stand-in; "
        "3 is no class in stand-in and car in stand-in; name a training set",
    ):
        task.measure(evaluated, head, annotations)


def test_annotations_of_other_images_are_refused(task: Segmentation) -> None:
    evaluated, annotations = scenes(8, 1)
    head = task.fit(*scenes(12, 0))
    shorter = task.measure(evaluated.isel(image=slice(0, 6)), head, annotations)  # a run made before the cache grew
    assert shorter.sizes["image"] == 6
    with pytest.raises(DatasetError, match="are not of the store's 8 images in their order"):
        task.measure(evaluated.isel(image=slice(None, None, -1)), head, annotations)
    with pytest.raises(DatasetError, match="are not of the store's 8 images"):
        task.fit(evaluated.isel(image=[0, 1, 2, 3, 4, 5, 7, 6]), annotations)


def test_obstacles(task: Segmentation) -> None:
    evaluated, annotations = scenes(4, 1)
    assert task.obstacle(evaluated, annotations) is None  # type: ignore[arg-type]
    assert annotations.decoded.total() == 0
    cropped = MaskAnnotations(annotations.masks, NAMES, crop="center")
    cases = [
        (evaluated, MaskAnnotations(annotations.masks, None), "stand-in has no masks"),
        (evaluated, cropped, r"its images were cropped \(center\)"),
        (evaluated.drop_vars("patches"), annotations, "holds no patch tokens: extract"),
        (evaluated.assign_coords(readable=("image", np.zeros(4, dtype=bool))), annotations, "no image of stand-in"),
        (
            evaluated.assign(patches=evaluated.patches * np.nan).assign_attrs(kind="cache"),
            annotations,
            "no patch tokens at the state that is read",
        ),
    ]
    cases.append((evaluated.assign_attrs(depth=24), annotations, "state 24, the model's last, is needed"))
    for data, of, message in cases:
        with pytest.raises(MissingDataError, match=f"cannot measure segmentation: .*{message}"):
            task.fit(data, of)  # type: ignore[arg-type]
        with pytest.raises(MissingDataError, match=message):
            task.measure(data, None, of)  # type: ignore[arg-type]


def test_impossible_settings_are_all_named() -> None:
    with pytest.raises(UnknownNameError, match=r"at least 1, got 0; strength lies above 0, got -1\.0; seed .* got -3"):
        Segmentation(training_patches=0, strength=-1.0, seed=-3)


def test_it_is_found_by_name() -> None:
    task = parse_task("segmentation")
    assert task == Segmentation()
    assert (task.name, task.tokens, task.fitted) == ("segmentation", ("patches",), True)
    assert [metric.name for metric in task.metrics] == ["miou", "pixel_accuracy"]


def test_embedded_model_and_data(tmp_path: Path) -> None:
    """Stored patches of tiny-reg tell shapes from their background; patches of other images do not."""
    task = Segmentation(strength=0.01)
    cache = cachetool.extract("tiny-reg", "shapes#val", limit=100, root=tmp_path, layers=[12], tokens=["patches"])
    annotations = cachetool.open_annotations(cache)
    # Marking the others as unreadable makes two disjoint sets of one cache.
    first = np.arange(100) < 70
    train, evaluated = (cache.assign_coords(readable=("image", part)) for part in (first, ~first))
    head = task.fit(train, annotations)
    assert head.probe.patches == 70 * 64
    outcomes = task.measure(evaluated, head, annotations)
    miou, accuracy = task.metrics
    assert miou.value(outcomes) > 0.4
    assert accuracy.value(outcomes) > np.mean([(annotations.mask(image) == 0).mean() for image in range(70, 100)])
    assert outcomes.sizes["image"] == 30
    assert int(outcomes.annotated.sum()) == 30 * 128 * 128
    swapped = evaluated.assign(patches=evaluated.patches.roll(image=1))
    assert miou.value(task.measure(swapped, head, annotations)) < 0.2


@pytest.mark.slow
def test_real_photographs(shared: Path, tmp_path: Path) -> None:
    """A supervised ViT-Tiny on MSRC-21: 77.5 % were measured when this was written."""
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    train, evaluated = (
        cachetool.extract(
            "timm:vit_tiny_patch16_224",
            f"segmentation:{shared / 'data' / 'msrc21'}#{split}",
            weights=weights,
            root=tmp_path,
            layers=[12],
            tokens=["patches"],
        )
        for split in ("train", "val")
    )
    task = Segmentation()
    head = task.fit(train, cachetool.open_annotations(train))
    outcomes = task.measure(evaluated, head, cachetool.open_annotations(evaluated))
    assert task.metrics[0].value(outcomes) == pytest.approx(0.775, abs=0.01)
    assert task.metrics[1].value(outcomes) == pytest.approx(0.898, abs=0.01)
    assert (per_class(outcomes)["annotated_pixels"] > 0).all()
