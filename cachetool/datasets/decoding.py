"""From encoded bytes to RGB pixels, by rules that every data set shares.

The rules are those of torchvision and timm, on which published numbers rest, and where these give garbage, better ones:

- **Colour**: `PIL.Image.convert("RGB")`. Alpha is dropped, not blended over a background; greyscale is repeated; a
  palette is looked up; CMYK is converted without a colour profile. Embedded profiles are not applied.
- **16 bits**: the high byte is kept, as Pillow itself does for 16-bit colour. A plain conversion of 16-bit greyscale
  would clip nearly all pixels to white. Integer or float pixels without a stated range are refused.
- **EXIF orientation**: ignored unless a data set says otherwise, since masks and keypoints of all public sets are in
  stored pixels, and reference accuracies were measured that way.
- **Animations**: the first frame.
- **Refused**, with an `ImageError` that names the file: truncated or otherwise damaged data, formats other than those
  listed here, images without pixels, and images beyond `PIL.Image.MAX_IMAGE_PIXELS`.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cachetool.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

DECODING_RULES = 1
"""Version of the rules above; part of the key of a cache, so that new pixels never pass for old ones."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats as Pillow names them. The list is closed because some of Pillow's plugins start other programs."""

Exif = Literal["ignored", "applied"]
"""Whether the orientation tag of a file turns its image."""

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # values of the orientation tag that swap rows and columns


def decode_image(data: bytes, source: str, *, exif: Exif = "ignored") -> Image.Image:
    """Decode one image to RGB at its own size. Raises `ImageError`; `source` is the file that it names."""
    with refusing(source):
        image = open_image(data, source)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image) if exif == "applied" else image, source)


def image_size(data: bytes, source: str, *, exif: Exif = "ignored") -> tuple[int, int]:
    """Return width and height in pixels of what `decode_image` would give, from the header alone."""
    with refusing(source):
        image = open_image(data, source)
        sideways = exif == "applied" and image.getexif().get(_ORIENTATION) in _SIDEWAYS
        return image.size[::-1] if sideways else image.size


def encode_rgb(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 pixels (row, column, rgb) as binary PPM: size and raw values, the same bytes on every machine."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()


@contextmanager
def refusing(source: str) -> Iterator[None]:
    """Turn whatever goes wrong with an image into an `ImageError` that names it."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{source} is too large to decode safely: {error}; reduce it first") from error
    except Exception as error:  # plugins raise whatever a damaged file makes them stumble over
        raise ImageError(f"cannot decode {source}: {error}; replace the file or take it out of the data set") from error


def open_image(data: bytes, source: str) -> Image.Image:
    """Read the header of an image. Raises `ImageError` for what is none, and for one of too many pixels."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{source} is no image in a known format ({', '.join(FORMATS)}), or damaged at its start: "
            f"{len(data)} bytes, beginning with {data[:8]!r}"
        ) from error
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ImageError(
            f"{source} is too large to decode safely: {image.width} x {image.height} pixels, "
            f"at most {limit} are allowed (PIL.Image.MAX_IMAGE_PIXELS); reduce it first"
        )
    if image.width < 1 or image.height < 1:
        raise ImageError(f"{source} has no pixels: its size is {image.width} x {image.height}")
    return image


def _to_rgb(image: Image.Image, source: str) -> Image.Image:
    # Pillow warns about transparency that it is about to drop; dropping it is the rule here.
    image.info.pop("transparency", None)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        high_byte = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{source} holds {'32-bit integer' if image.mode == 'I' else 'floating-point'} pixels without a stated "
            "range, so their brightness is unknown: convert it to 8 or 16 bits"
        )
    return image.convert("RGB")
