from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity as reference_cosine

from analyses.tasks.matching import PatchGrid, best_patches, centre_positions, cosine_similarity, soft_positions
from cachetool.datasets import Transform

GRID = PatchGrid(rows=3, columns=4, patch_size=16)


def transform(size: int, crop: str, fraction: float = 1.0) -> Transform:
    return Transform(size, crop, fraction, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # type: ignore[arg-type]


def test_every_pixel_lies_in_the_patch_that_covers_it() -> None:
    expected = np.kron(np.arange(12).reshape(3, 4), np.ones((16, 16), dtype=int))
    y, x = np.mgrid[:48, :64]
    assert (GRID.containing(np.stack([x, y], axis=-1).astype(float)) == expected).all()


def test_border_of_the_input_belongs_to_the_outermost_patches() -> None:
    points = np.array([[-0.5, -0.5], [63.5, 47.5], [63.5 + 1e-9, 0.0], [63.6, 0.0], [0.0, -0.6], [np.nan, np.nan]])
    assert GRID.containing(points).tolist() == [0, 11, 3, -1, -1, -1]


def test_centres_are_the_mean_pixel_of_each_patch() -> None:
    y, x = np.mgrid[:48, :64]
    patch = GRID.containing(np.stack([x, y], axis=-1).astype(float))
    for index in range(12):
        assert GRID.centres[index].tolist() == [x[patch == index].mean(), y[patch == index].mean()]


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(20, 900),
    height=st.integers(20, 900),
    crop=st.sampled_from(["none", "center"]),
    fraction=st.floats(0.5, 1.0),
    columns=st.integers(1, 40),
    across=st.floats(0, 1),
    down=st.floats(0, 1),
)
def test_a_point_goes_to_its_patch_and_back(
    width: int, height: int, crop: str, fraction: float, columns: int, across: float, down: float
) -> None:
    """The containing patch's centre, in original pixels, is within half a patch of the point, unless it was cropped."""
    size = 224
    grid = PatchGrid(columns, columns, size / columns)
    geometry = transform(size, crop, fraction).geometry(width, height)
    point = np.array([across * width - 0.5, down * height - 0.5])
    assert geometry.inverse(geometry.forward(point)) == pytest.approx(point, abs=1e-6)

    there = geometry.forward(point)
    patch = int(grid.containing(there))
    if patch == -1:
        assert crop == "center"
        assert (there < -0.5).any() or (there > size - 0.5).any()
        return
    back = geometry.inverse(grid.centres[patch])
    reach = grid.patch_size / 2 / np.array(geometry.scale)
    assert (np.abs(back - point) <= reach + 1e-5).all()


@pytest.mark.parametrize(("crop", "fraction"), [("none", 1.0), ("center", 1.0), ("center", 0.875)])
@pytest.mark.parametrize("size", [(120, 80), (80, 120), (300, 100)])
def test_a_drawn_dot_appears_in_the_patch_that_the_geometry_names(
    crop: str, fraction: float, size: tuple[int, int]
) -> None:
    width, height = size
    chosen = transform(64, crop, fraction)
    grid = PatchGrid(8, 8, 8)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rng = np.random.default_rng(0)
    seen = 0
    for point in rng.uniform([3, 3], [width - 4, height - 4], size=(40, 2)):
        there = chosen.geometry(width, height).forward(point)
        # A dot on the edge of a patch would be a matter of rounding.
        if np.any((there < 3) | (there > 60)) or np.any(np.abs((there + 0.5 + 4) % 8 - 4) < 1):
            continue
        dot = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 6)
        image = Image.fromarray(np.repeat(dot[..., None], 3, axis=2).astype(np.uint8))
        brightness = chosen.apply(image)[0].reshape(8, 8, 8, 8).sum(axis=(1, 3))
        assert int(brightness.argmax()) == grid.containing(there)
        seen += 1
    assert seen >= 5


def test_cosine_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((5, 8)), rng.standard_normal((12, 8)).astype(np.float32)
    assert cosine_similarity(first, second) == pytest.approx(reference_cosine(first, second), abs=1e-6)


def test_vectors_without_direction_never_match() -> None:
    tokens = np.random.default_rng(2).standard_normal((12, 8))
    descriptors = tokens[[3, 4, 5]].copy()
    descriptors[1] = 0
    descriptors[2, 0] = np.nan
    assert best_patches(cosine_similarity(descriptors, tokens)).tolist() == [3, -1, -1]
    tokens[3], tokens[7] = np.nan, 0.0
    similarity = cosine_similarity(descriptors, tokens)
    assert np.isneginf(similarity[:, [3, 7]]).all()
    assert best_patches(similarity)[0] not in (3, 7)


def test_ties_match_nothing() -> None:
    similarity = np.array([[0.1, 0.9, 0.9, 0.2], [0.1, 0.9, 0.8, 0.2], [0.5, 0.5, 0.5, 0.5], [-np.inf] * 4])
    assert best_patches(similarity).tolist() == [-1, 1, -1, -1]


def test_copies_that_were_stored_in_half_precision_still_tie() -> None:
    rng = np.random.default_rng(3)
    vector = rng.standard_normal(192)
    copies = (vector + 1e-4 * rng.standard_normal((12, 192))).astype(np.float16)
    assert len(np.unique(copies, axis=0)) == 12
    assert best_patches(cosine_similarity(vector[None], copies)).tolist() == [-1]


def test_centre_positions() -> None:
    found = centre_positions(np.array([5, -1]), GRID)
    assert found[0].tolist() == [23.5, 23.5]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("radius", [1, 2])
def test_soft_positions_against_a_direct_sum(radius: int) -> None:
    rng = np.random.default_rng(4)
    similarity = rng.uniform(-1, 1, size=(30, 12))
    similarity[3, 5] = -np.inf  # a removed patch
    best = best_patches(similarity)
    found = soft_positions(similarity, best, GRID, radius, temperature=0.3)
    for point, chosen in enumerate(best):
        centre_row, centre_column = divmod(int(chosen), 4)
        total, position = 0.0, np.zeros(2)
        for row in range(max(0, centre_row - radius), min(3, centre_row + radius + 1)):
            for column in range(max(0, centre_column - radius), min(4, centre_column + radius + 1)):
                weight = np.exp(similarity[point, 4 * row + column] / 0.3)
                total += weight
                position += weight * np.array([16 * column + 7.5, 16 * row + 7.5])
        assert found[point] == pytest.approx(position / total)


def test_soft_positions_approach_the_argmax_and_skip_points_without_one() -> None:
    similarity = np.random.default_rng(5).uniform(-1, 1, size=(6, 12))
    similarity[2] = -np.inf
    best = best_patches(similarity)
    found = soft_positions(similarity, best, GRID, radius=2, temperature=1e-4)
    assert np.isnan(found[2]).all()
    assert found == pytest.approx(centre_positions(best, GRID), nan_ok=True)
