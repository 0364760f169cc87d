"""Arrays as pictures inside the page: photographs as JPEG, maps as small PNGs that the browser enlarges."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

QUALITY = 85
"""JPEG quality: patches stay recognisable, and a photograph of 224 x 224 takes about 15 KB."""


def photograph(picture: npt.NDArray[np.uint8]) -> str:
    """Data URI of a picture (row, column, rgb)."""
    return _encoded(Image.fromarray(picture), "JPEG", quality=QUALITY)


def coloured(colours: npt.NDArray[np.floating]) -> str:
    """Data URI of colours (row, col, rgb) from 0 to 1, a pixel a cell; cells that are NaN are clear."""
    known = np.isfinite(colours).all(axis=-1, keepdims=True)
    rgba = np.concatenate([np.where(known, colours, 0), known], axis=-1)
    return _encoded(Image.fromarray(np.rint(rgba * 255).astype(np.uint8)), "PNG")


def mapped(values: npt.NDArray[np.floating], low: float, high: float, colours: str) -> str:
    """Data URI of values (row, col) in a colour map between two ends, a pixel a cell; cells that are NaN are clear."""
    span = high - low if high > low else 1.0
    shares = np.clip((values - low) / span, 0, 1)
    rgba = mpl.colormaps[colours](np.nan_to_num(shares))
    rgba[..., 3] = np.isfinite(values)
    return _encoded(Image.fromarray(np.rint(rgba * 255).astype(np.uint8)), "PNG")


def scale(colours: str) -> str:
    """Data URI of the colour map itself, from left to right."""
    return mapped(np.linspace(0, 1, 64)[None], 0, 1, colours)


def _encoded(image: Image.Image, kind: str, **settings: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
