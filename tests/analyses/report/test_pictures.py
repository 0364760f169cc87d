"""Pictures in the page decode to what they were made from."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from analyses.report.pictures import coloured, mapped, photograph


def decoded(uri: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_maps_are_a_pixel_a_cell_and_clear_where_nothing_is_known() -> None:
    values = np.array([[0.0, 5.0, 10.0], [20.0, -3.0, np.nan]])
    picture = decoded(mapped(values, 0, 10, "viridis"))
    assert picture.shape == (2, 3, 4)
    ends = (np.array(mpl.colormaps["viridis"]([0.0, 1.0])) * 255).round()
    np.testing.assert_array_equal(picture[0, 0], ends[0])
    np.testing.assert_array_equal(picture[0, 2], ends[1])
    np.testing.assert_array_equal(picture[1, 0], ends[1])
    np.testing.assert_array_equal(picture[1, 1], ends[0])
    assert picture[1, 2, 3] == 0


def test_a_constant_map_has_the_colour_of_its_low_end() -> None:
    assert len(np.unique(decoded(mapped(np.full((2, 2), 3.0), 3, 3, "viridis")).reshape(-1, 4), axis=0)) == 1


def test_colours_and_photographs() -> None:
    colours = np.array([[[1, 0, 0.5], [np.nan] * 3]])
    np.testing.assert_array_equal(decoded(coloured(colours))[0], [[255, 0, 128, 255], [0, 0, 0, 0]])
    smooth = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (1, 32, 3))
    assert np.abs(decoded(photograph(smooth)).astype(int) - smooth).max() <= 12
