from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from cachetool.datasets.transform import Transform
from cachetool.errors import ImageError, UnknownNameError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SIDE = st.integers(1, 150)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def reference(transform: Transform, interpolation: transforms.InterpolationMode) -> transforms.Compose:
    size = transform.size
    fraction = transform.crop_fraction
    resize = math.floor(size / fraction) if transform.crop == "center" else (size, size)
    steps = [transforms.Resize(resize, interpolation=interpolation), transforms.CenterCrop(size)]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(transform.mean, transform.std)])


@settings(max_examples=80, deadline=None)
@given(SIDE, SIDE, st.integers(1, 64), st.sampled_from([1.0, 0.95, 0.875, 0.5]), st.sampled_from(["center", "none"]))
def test_pixels_equal_torchvision(width: int, height: int, size: int, fraction: float, crop: str) -> None:
    transform = Transform(size, crop, fraction, "bicubic", MEAN, STD)
    image = noise(width, height)
    expected = reference(transform, transforms.InterpolationMode.BICUBIC)(image).numpy()
    found = transform.apply(image)
    assert found.dtype == np.float32
    assert found.shape == (3, size, size)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_filters_equal_torchvision(name: str) -> None:
    transform = Transform(32, "center", 0.875, name, MEAN, STD)
    mode = transforms.InterpolationMode[name.upper()]
    for size in ((90, 61), (20, 25)):
        assert np.array_equal(transform.apply(noise(*size)), reference(transform, mode)(noise(*size)).numpy())


def test_pixels_equal_timm() -> None:
    from timm.data import create_transform

    evaluation = create_transform(224, interpolation="bicubic", mean=MEAN, std=STD, crop_pct=0.9)
    image = noise(500, 375)
    assert np.array_equal(Transform(224, "center", 0.9, "bicubic", MEAN, STD).apply(image), evaluation(image).numpy())


def dot(width: int, height: int, x: int, y: int, radius: int) -> Image.Image:
    """A white disc, symmetric about the centre of pixel (x, y), on black."""
    columns, rows = np.arange(width) - x, np.arange(height)[:, None] - y
    disc = (columns**2 + rows**2 <= radius**2).astype(np.uint8) * 255
    return Image.fromarray(np.repeat(disc[:, :, None], 3, axis=2))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(120, 300),
    st.integers(120, 300),
    st.sampled_from(["center", "none"]),
    st.floats(-0.5, 0.5),
    st.floats(-0.5, 0.5),
)
def test_a_drawn_dot_goes_where_the_geometry_says(
    width: int, height: int, crop: str, across: float, down: float
) -> None:
    shorter = min(width, height)
    x, y = round((width - 1) / 2 + 0.5 * across * shorter), round((height - 1) / 2 + 0.5 * down * shorter)
    transform = Transform(96, crop, 0.9, "bilinear", *PLAIN)
    brightness = transform.apply(dot(width, height, x, y, radius=12))[0].astype(np.float64)
    columns, rows = np.meshgrid(np.arange(96), np.arange(96))
    centroid = [(brightness * columns).sum() / brightness.sum(), (brightness * rows).sum() / brightness.sum()]
    assert np.abs(transform.geometry(width, height).forward(np.array([x, y])) - centroid).max() < 0.03


@given(
    SIDE,
    SIDE,
    st.integers(1, 64),
    st.sampled_from(["center", "none"]),
    st.tuples(st.floats(-5, 200), st.floats(-5, 200)),
)
def test_geometry_can_be_undone(width: int, height: int, size: int, crop: str, point: tuple[float, float]) -> None:
    geometry = Transform(size, crop, 0.875, "bicubic", *PLAIN).geometry(width, height)
    xy = np.array(point)
    assert np.allclose(geometry.inverse(geometry.forward(xy)), xy, rtol=0, atol=1e-9)


@given(SIDE, SIDE, st.integers(1, 64))
def test_without_a_crop_corners_go_to_corners(width: int, height: int, size: int) -> None:
    geometry = Transform(size, "none", 1.0, "bicubic", *PLAIN).geometry(width, height)
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    assert np.allclose(geometry.forward(corners), [[-0.5, -0.5], [size - 0.5, size - 0.5]])


def test_crop_alone_shifts_by_whole_pixels() -> None:
    image = noise(96, 64)
    transform = Transform(48, "center", 0.75, "bicubic", *PLAIN)
    x, y = transform.geometry(96, 64).forward(np.array([40, 30]))
    assert (x, y) == (40 - 24, 30 - 8)
    assert np.array_equal(transform.apply(image)[:, int(y), int(x)] * np.float32(255.0), np.asarray(image)[30, 40])


def test_key_holds_what_decides_the_pixels() -> None:
    center = Transform(224, "center", 0.875, "bicubic", MEAN, STD)
    assert center.to_json() == {
        "size": 224,
        "crop": "center",
        "crop_fraction": 0.875,
        "interpolation": "bicubic",
        "mean": list(MEAN),
        "std": list(STD),
    }
    uncropped = [Transform(224, "none", fraction, "bicubic", MEAN, STD).to_json() for fraction in (0.875, 1.0)]
    assert uncropped[0] == uncropped[1]


def test_every_wrong_parameter_is_named() -> None:
    with pytest.raises(UnknownNameError) as caught:
        Transform(0, "middle", 1.5, "cubic", (0.5, 0.5), (0.0, 1.0, 1.0))  # type: ignore[arg-type]
    for word in ("size", "crop is", "crop_fraction", "interpolation", "mean and std"):
        assert word in str(caught.value)


def test_elongated_images_are_refused_before_they_fill_the_memory() -> None:
    transform = Transform(224, "center", 0.875, "bicubic", MEAN, STD)
    transform.check(4000, 3000, "file")
    with pytest.raises(ImageError, match="folder/file is too elongated"):
        transform.check(1, 20000, "folder/file")
    Transform(224, "none", 0.875, "bicubic", MEAN, STD).check(1, 20000, "file")
