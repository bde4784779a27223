"""Image files: every mode and many formats, brought to a network's input; and what is no image."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features

from fullback.data import load_image
from fullback.errors import DataError, ShapeError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (28, 20), np.uint8)
RGB = RNG.integers(0, 256, (28, 20, 3), np.uint8)
SHAPE = (1, 28, 20)


@pytest.fixture
def saved(tmp_path):
    """Save an array or an image, and return its path."""

    def save(image, name="image.png", **options):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def luma(rgb):
    """The grey of RGB, by ITU-R 601-2, as Pillow documents it."""
    return rgb @ np.array([0.299, 0.587, 0.114])


def read(path, shape=SHAPE, **options):
    image = load_image(path, shape, **options)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == shape
    assert image.pixels.flags.c_contiguous
    return image


class TestModes:
    def test_grey(self, saved):
        image = read(saved(GREY))
        np.testing.assert_array_equal(image.pixels[0], GREY)
        assert (image.mode, image.size) == ("L", (20, 28))

    def test_colour(self, saved):
        image = read(saved(RGB), (3, 28, 20))
        np.testing.assert_array_equal(image.pixels, RGB.transpose(2, 0, 1))
        assert image.mode == "RGB"

    def test_colour_to_grey_and_back(self, saved):
        np.testing.assert_allclose(read(saved(RGB)).pixels[0], luma(RGB), rtol=0, atol=1)
        np.testing.assert_array_equal(read(saved(GREY), (3, 28, 20)).pixels, np.stack([GREY] * 3))

    def test_invert(self, saved):
        np.testing.assert_array_equal(read(saved(GREY), invert=True).pixels[0], 255 - GREY)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_what_is_transparent_is_white(self, saved, mode):
        alpha = np.full_like(GREY, 255)
        alpha[:, :10] = 0
        image = Image.fromarray(GREY).convert(mode)
        image.putalpha(Image.fromarray(alpha))
        wanted = GREY.copy()
        wanted[:, :10] = 255
        ready = read(saved(image))
        np.testing.assert_array_equal(ready.pixels[0], wanted)
        assert ready.mode == mode

    def test_half_transparent(self, saved):
        image = Image.new("RGBA", (20, 28), (0, 0, 0, 127))
        np.testing.assert_allclose(read(saved(image)).pixels, 128, rtol=0, atol=1)

    @pytest.mark.parametrize("transparency", [7, bytes([255] * 7 + [0])])
    def test_palette_with_a_transparent_colour(self, saved, transparency):
        image = Image.fromarray(GREY % 8).convert("P")
        image.putpalette([level for k in range(8) for level in (k * 20, 0, k * 10)])
        red = GREY % 8 * 20
        wanted = np.where(GREY % 8 == 7, 255, red)
        ready = read(saved(image, transparency=transparency), (3, 28, 20))
        np.testing.assert_array_equal(ready.pixels[0], wanted)
        assert ready.mode == "P"

    def test_transparent_grey_level(self, saved):
        level = int(GREY[0, 0])
        ready = read(saved(GREY, transparency=level))
        np.testing.assert_array_equal(ready.pixels[0], np.where(np.equal(GREY, level), 255, GREY))

    def test_bilevel(self, saved):
        image = Image.fromarray(np.where(GREY > 99, 255, 0).astype(np.uint8)).convert("1")
        np.testing.assert_array_equal(read(saved(image)).pixels[0], np.where(GREY > 99, 255, 0))

    @pytest.mark.parametrize("name", ["image.png", "image.tif", "image.pgm"])
    def test_sixteen_bits_keep_their_range(self, saved, tmp_path, name):
        wide = GREY.astype(np.uint16) * 257
        if name == "image.pgm":
            path = tmp_path / name
            path.write_bytes(b"P5 20 28 65535\n" + wide.astype(">u2").tobytes())
        else:
            path = saved(wide, name)
        ready = read(path)
        np.testing.assert_array_equal(ready.pixels[0], GREY)
        assert ready.mode.startswith("I")

    def test_floating_point_has_no_known_range(self, saved):
        with pytest.raises(DataError, match=r"image\.tif: has floating-point pixels.*8 bits"):
            read(saved(GREY / np.float32(255), "image.tif"))

    def test_inks(self, saved):
        image = Image.new("CMYK", (20, 28), (0, 255, 255, 0))
        ready = read(saved(image, "image.tif"), (3, 28, 20))
        np.testing.assert_array_equal(ready.pixels[:, 0, 0], [255, 0, 0])

    def test_the_first_frame_of_an_animation(self, saved):
        frames = [Image.new("L", (20, 28), level) for level in (10, 200, 30)]
        path = saved(frames[0], "image.gif", save_all=True, append_images=frames[1:])
        assert (read(path).pixels == 10).all()


class TestSizes:
    @pytest.mark.parametrize("size", [(1, 1), (300, 7), (7, 300), (20, 28)])
    def test_any_size_becomes_the_networks(self, saved, size):
        ready = read(saved(Image.new("L", size, 77)))
        assert (ready.pixels == 77).all()
        assert ready.size == size

    def test_enlarged_pixels_stay_in_place(self, saved):
        small = np.zeros((7, 5), np.uint8)
        small[5, 1] = 255
        row, column = np.unravel_index(read(saved(small)).pixels[0].argmax(), (28, 20))
        assert (row // 4, column // 4) == (5, 1)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, saved, orientation):
        """The eight orientations, from the EXIF standard: where its row 0 and column 0 are."""
        stored = {
            1: GREY,
            2: GREY[:, ::-1],
            3: GREY[::-1, ::-1],
            4: GREY[::-1],
            5: GREY.T,
            6: GREY.T[::-1],
            7: GREY.T[::-1, ::-1],
            8: GREY.T[:, ::-1],
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        ready = read(saved(np.ascontiguousarray(stored), exif=exif))
        np.testing.assert_array_equal(ready.pixels[0], GREY)
        assert ready.size == stored.shape[::-1]


@pytest.mark.parametrize("name", ["i.bmp", "i.gif", "i.jpg", "i.ppm", "i.tga", "i.tif", "i.webp"])
def test_formats(saved, name):
    """The name says nothing: what counts is what is in the file."""
    if name == "i.webp" and not features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    smooth = np.add.outer(np.arange(28) * 4, np.arange(20) * 5).astype(np.uint8)
    path = saved(smooth, name)
    misnamed = path.rename(path.with_suffix(".txt"))
    np.testing.assert_allclose(read(misnamed).pixels[0], smooth, rtol=0, atol=8)


def png(*chunks):
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        parts.append(struct.pack(">I", len(content)) + kind + content + checksum)
    return b"".join(parts)


def header(columns, rows):
    return b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)


def as_png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"><path d="M0 0"/></svg>'
DATA = b"IDAT", b""
REFUSED = {
    "empty": (b"", "is not an image of a known format .*; convert it to PNG"),
    "text": (b"28 28 " * 99, "is not an image of a known format .*; convert it to PNG"),
    "svg": (SVG, "is not an image of a known format .*; convert it to PNG"),
    "zeros": (bytes(5000), "is not an image of a known format .*; convert it to PNG"),
    "signature": (png(), "is not an image of a known format"),
    "cut": (as_png(RGB)[:-900], r"cannot be read as an image \(.+\)"),
    "cut header": (as_png(RGB)[:30], "image"),
    "no pixels": (
        png(header(20, 28), DATA, (b"IEND", b"")),
        "cannot be read as an image",
    ),
    "bad checksum": (as_png(GREY)[:-20] + b"12345678" + as_png(GREY)[-12:], "cannot be read"),
    "no columns": (png(header(0, 28), (b"IEND", b"")), "image"),
    "large": (
        png(header(10_000, 5_001), DATA),
        r"10000 x 5001 pixels; expected at most 50,000,000 in",
    ),
    "larger": (png(header(10_000, 10_000), DATA), "has too many pixels; make it smaller"),
    "bomb": (png(header(2**31 - 1, 2**31 - 1), DATA), "has too many pixels; make it smaller"),
}


class TestRefused:
    @pytest.mark.parametrize("case", REFUSED)
    def test_damaged_and_foreign_files(self, tmp_path, case):
        content, text = REFUSED[case]
        path = tmp_path / "image.png"
        path.write_bytes(content)
        with pytest.raises(DataError, match=text) as caught:
            load_image(path, SHAPE)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere\.png: no such file; expected an image"):
            load_image(tmp_path / "nowhere.png", SHAPE)
        with pytest.raises(DataError, match="is no file; expected an image: check the path"):
            load_image(tmp_path, SHAPE)

    @pytest.mark.parametrize("shape", [(2, 28, 28), (784,), (4, 8, 8), ()])
    def test_networks_that_take_no_pictures(self, saved, shape):
        with pytest.raises(ShapeError, match=r"take \(1, H, W\) or \(3, H, W\), not \("):
            load_image(saved(GREY), shape)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "ICO", "PPM", "TGA"])
def test_damage_anywhere(tmp_path, kind):
    """With any byte changed or any end missing it is an image of the right shape, or refused."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 20
    file, options = io.BytesIO(), {"exif": exif} if kind in ("PNG", "JPEG") else {}
    Image.fromarray(RGB[:20]).save(file, kind, **options)
    whole, rng, path = file.getvalue(), random.Random(0), tmp_path / "image"
    refused = []
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 10])):
            place = rng.randrange(rng.choice([40, 200, len(whole)])) % len(whole)
            damaged[place] = rng.randrange(256)
        path.write_bytes(damaged if rng.random() < 0.7 else damaged[: rng.randrange(len(whole))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged EXIF data
            try:
                read(path)
            except DataError as error:
                refused.append(str(error))
    assert 0 < len(refused) < 120
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in refused)
