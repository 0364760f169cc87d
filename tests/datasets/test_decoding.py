from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cachetool.datasets.decoding import decode_image, encode_rgb, image_size
from cachetool.errors import ImageError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(data: bytes, **options: object) -> np.ndarray:
    image = decode_image(data, "folder/file", **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def rgb_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG assembled by hand: Pillow cannot write every kind that it reads."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_greyscale_is_repeated() -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(GREY))), np.repeat(GREY[:, :, None], 3, axis=2))


def test_greyscale_jpeg_and_bilevel_become_rgb() -> None:
    assert pixels(encoded(Image.fromarray(GREY), "JPEG")).shape == (6, 8, 3)
    bilevel = Image.fromarray(GREY > 100)
    assert set(np.unique(pixels(encoded(bilevel)))) == {0, 255}


def test_alpha_is_dropped_not_blended() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    assert np.array_equal(pixels(encoded(Image.fromarray(rgba))), rgba[:, :, :3])
    grey_alpha = Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (8, 6), 3)))
    assert np.array_equal(pixels(encoded(grey_alpha))[:, :, 0], GREY)


def test_palette_is_looked_up_and_its_transparency_dropped_without_a_warning() -> None:
    image = Image.fromarray(GREY % 4).convert("P")
    image.putdata((GREY % 4).ravel().tolist())
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], dtype=np.uint8)
    assert np.array_equal(pixels(encoded(image, transparency=b"\x00\x80\xff\x10")), table[GREY % 4])


def test_cmyk_jpeg_becomes_rgb() -> None:
    found = pixels(encoded(Image.new("CMYK", (8, 6), (255, 0, 0, 0)), "JPEG"))
    assert abs(found.astype(int).mean(axis=(0, 1)) - [0, 255, 255]).max() < 3


def test_16_bit_greyscale_keeps_its_high_byte() -> None:
    values = np.array([[0, 255, 256, 0x1234], [0x7FFF, 0x8000, 0xFF00, 0xFFFF]], dtype=np.uint16)
    expected = np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    assert np.array_equal(pixels(encoded(Image.fromarray(values))), expected)
    assert np.array_equal(pixels(encoded(Image.fromarray(values), "TIFF")), expected)
    assert np.array_equal(pixels(b"P5 4 2 65535\n" + values.astype(">u2").tobytes()), expected)


def test_16_bit_colour_and_greyscale_agree() -> None:
    values = np.array([0x0180, 0xABCD, 0xFFFF], dtype=">u2")
    colour = pixels(rgb_png(3, 1, 16, 2, b"\0" + np.repeat(values, 3).tobytes()))
    grey = pixels(rgb_png(3, 1, 16, 0, b"\0" + values.tobytes()))
    assert np.array_equal(colour, grey)


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "32-bit integer"), (np.float32, "floating-point")])
def test_pixels_without_a_range_are_refused(dtype: type, kind: str) -> None:
    data = encoded(Image.fromarray(np.arange(12, dtype=dtype).reshape(3, 4)), "TIFF")
    with pytest.raises(ImageError, match=f"folder/file holds {kind}"):
        decode_image(data, "folder/file")


def test_exif_orientation_is_ignored_unless_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    data = encoded(Image.fromarray(GREY), "PNG", exif=exif)
    assert np.array_equal(pixels(data)[:, :, 0], GREY)
    assert np.array_equal(pixels(data, exif="applied")[:, :, 0], np.rot90(GREY, -1))
    assert image_size(data, "file") == (8, 6)
    assert image_size(data, "file", exif="applied") == (6, 8)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels(data), np.asarray(frames[0]))


def test_format_is_taken_from_the_content() -> None:
    assert np.array_equal(np.asarray(decode_image(encoded(Image.fromarray(GREY)), "lies.JPEG"))[:, :, 0], GREY)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncation_is_refused_at_any_length(file_format: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    for kept in (0, 1, 4, 20, len(data) // 3, len(data) // 2):
        with pytest.raises(ImageError, match="folder/file"):
            decode_image(data[:kept], "folder/file")


def test_damage_never_raises_anything_else() -> None:
    random = np.random.default_rng(2)
    noise = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for file_format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        data = np.frombuffer(encoded(Image.fromarray(noise), file_format), dtype=np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
            try:
                decode_image(damaged.tobytes(), "file")
            except ImageError:
                continue
            except Warning:  # a warning that the tests turn into an error; users see it and get their pixels
                continue


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (30, 20)))
    assert decode_image(data, "file").size == (30, 20)
    for limit in (599, 250):  # Pillow warns above the first and raises above its double; both are refused
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match="folder/file is too large"):
            decode_image(data, "folder/file")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_where_the_warning_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(ImageError, match=r"30 x 20 pixels, at most 599"):
        decode_image(encoded(Image.new("RGB", (30, 20))), "folder/file")


def test_formats_that_start_programs_are_refused() -> None:
    with pytest.raises(ImageError, match="no image in a known format"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "drawing.png")


def test_raw_pixels_come_back() -> None:
    values = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(pixels(encode_rgb(values)), values)
    assert encode_rgb(np.asfortranarray(values)) == encode_rgb(values)
    assert encode_rgb(values) != encode_rgb(values.reshape(7, 5, 3))
