"""Image files: every mode and many formats, brought to a network's input; and what is no image."""

import io
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

import fullback
from fullback.data import load_image
from fullback.data.image_files.image_formats import FORMATS
from fullback.data.image_files.image_sizes import opened
from fullback.errors import DataError, InputError, ShapeError
from fullback.pixels import ImageRecord
from support.files import as_png, header, png

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

    @pytest.mark.parametrize("name", ["image.png", "image.tif", "big-endian.tif", "image.pgm"])
    def test_sixteen_bits_keep_their_precision(self, saved, tmp_path, name):
        wide = RNG.integers(600, 661, (28, 20)).astype(np.uint16)
        path = tmp_path / name
        if name == "image.pgm":
            path.write_bytes(b"P5 20 28 65535\n" + wide.astype(">u2").tobytes())
        elif name.startswith("big"):
            Image.frombytes("I;16B", (20, 28), wide.astype(">u2").tobytes()).save(path)
        else:
            saved(wide, name)
        for channels in (1, 3):
            ready = load_image(path, (channels, 28, 20))
            assert (ready.depth, ready.mode[0], ready.pixels.dtype) == ("16-bit", "I", np.float32)
            wanted = np.broadcast_to(wide / 65535, (channels, 28, 20))
            np.testing.assert_allclose(ready.pixels, wanted, rtol=1e-6)
        inverted = load_image(path, SHAPE, invert=True)
        np.testing.assert_allclose(inverted.pixels[0], 1 - wide / 65535, rtol=1e-6)

    def test_sixteen_bits_whose_zero_is_white(self, saved):
        """Photometric interpretation 0 of TIFF 6.0, section 4, which Pillow ignores in 16 bits."""
        wide = np.arange(28 * 20, dtype=np.uint16).reshape(28, 20)
        path = saved(wide, "image.tif", tiffinfo={262: 0})
        np.testing.assert_allclose(load_image(path, SHAPE).pixels[0], 1 - wide / 65535, rtol=1e-6)

    @pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
    def test_resizing_sixteen_bits(self, saved, resize):
        wide = np.zeros((40, 60), np.uint16)
        wide[:, 30:] = 65535
        ready = load_image(saved(wide), (1, 10, 10), resize=resize).pixels
        assert (ready.min(), ready.max()) == (0, 1)  # no overshoot
        assert (len(np.unique(ready)) == 2) == (resize == "pad") or ready.shape == (1, 10, 10)

    def test_a_transparent_level_of_sixteen_bits(self, saved):
        wide = np.full((28, 20), 600, np.uint16)
        wide[0] = 7
        path = saved(wide, transparency=7)
        ready = load_image(path, SHAPE).pixels[0]
        assert (ready[0] == 1).all()
        np.testing.assert_allclose(ready[1:], 600 / 65535, rtol=1e-6)

    def test_whole_numbers_whose_white_is_not_known(self, saved):
        for low, high in ((-5, 9), (0, 70_000)):
            values = np.full((28, 20), low, np.int32)
            values[0] = high
            with pytest.raises(DataError, match=f"holds whole numbers from {low} to {high}, of"):
                load_image(saved(values, "image.tif"), SHAPE)

    def test_floating_point_pixels_are_as_they_are(self, saved):
        values = RNG.normal(-3, 500, (28, 20)).astype(np.float32)
        ready = load_image(saved(values, "image.tif"), SHAPE)
        np.testing.assert_array_equal(ready.pixels[0], values)
        assert (ready.depth, ready.mode) == ("float", "F")
        small = load_image(saved(values, "image.tif"), (1, 9, 9), resize="pad").pixels
        assert values.min() <= small.min() < small.max() <= values.max()
        with pytest.raises(DataError, match="floating-point pixels, whose black and white are not"):
            load_image(saved(values, "image.tif"), SHAPE, invert=True)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_floating_point_pixels_that_are_no_numbers(self, saved, bad):
        values = np.zeros((28, 20), np.float32)
        values[3, 4] = bad
        with pytest.raises(DataError, match=r"image\.tif: has .* of which 1 are NaN or infinite"):
            load_image(saved(values, "image.tif"), SHAPE)

    def test_colours_of_sixteen_bits_are_reduced(self, tmp_path):
        wide = RGB.astype(">u2") * 257
        (tmp_path / "i.ppm").write_bytes(b"P6 20 28 65535\n" + wide.tobytes())
        rows = b"".join(b"\0" + row.tobytes() for row in wide)
        head = struct.pack(">IIBBBBB", 20, 28, 16, 2, 0, 0, 0)
        content = png((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        (tmp_path / "i.png").write_bytes(content)
        for name in ("i.ppm", "i.png"):
            ready = read(tmp_path / name, (3, 28, 20))
            assert (ready.depth, ready.reduced) == ("8-bit", True)
            np.testing.assert_array_equal(ready.pixels, RGB.transpose(2, 0, 1))

    def test_pixels_for_a_network(self, saved):
        record = {"low": 0, "high": 255, "mean": 9, "border": 9}
        known = ImageRecord(**record, black=10.0, white=250.0)
        unknown = ImageRecord(**record, black=None, white=None)
        eight, wide = load_image(saved(GREY), SHAPE), load_image(saved(np.uint16(GREY) * 9), SHAPE)
        floats = load_image(saved(np.float32(GREY), "image.tif"), SHAPE)
        for image in (eight, floats):
            for trained_on in (None, known, unknown):
                assert image.for_network(trained_on) is image.pixels
        assert wide.for_network(None) is wide.pixels
        np.testing.assert_allclose(
            wide.for_network(known)[0], 10 + np.uint16(GREY) * 9 / 65535 * 240, rtol=1e-6
        )
        with pytest.raises(InputError, match="pixel_range"):
            wide.for_network(unknown)

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

    @pytest.mark.parametrize("name", ["image.png", "image.tif"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, saved, orientation, name):
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
        path = saved(np.ascontiguousarray(stored), name, exif=exif)
        ready = read(path)
        np.testing.assert_array_equal(ready.pixels[0], GREY)
        assert opened(path).size == GREY.shape
        assert sorted(ready.size) == sorted(stored.shape)


@pytest.mark.parametrize(
    "name", ["i.bmp", "i.gif", "i.jpg", "i.ppm", "i.tga", "i.tif", "i.webp", "i.avif"]
)
def test_formats(saved, name):
    """The name says nothing: what counts is what is in the file."""
    kind = name.removeprefix("i.")
    if kind in ("webp", "avif") and not features.check(kind):
        pytest.skip(f"Pillow was built without {kind}")
    smooth = np.add.outer(np.arange(28) * 4, np.arange(20) * 5).astype(np.uint8)
    path = saved(smooth, name)
    misnamed = path.rename(path.with_suffix(".txt"))
    np.testing.assert_allclose(read(misnamed).pixels[0], smooth, rtol=0, atol=8)


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


OTHER = ("EPS", "ICO", "PDF", "PCX", "SGI", "JPEG2000")


class TestOneDoor:
    """Only readers that do nothing but decode pixels are tried, wherever an image comes from."""

    @pytest.mark.parametrize("kind", OTHER)
    def test_other_formats_are_not_opened(self, tmp_path, kind, monkeypatch):
        Image.init()
        path = tmp_path / "image.png"
        Image.fromarray(RGB).save(path, kind)

        def refuse(*arguments):
            raise AssertionError("a reader that is not on the list was started")

        for name in set(Image.OPEN) - set(FORMATS):
            monkeypatch.setitem(Image.OPEN, name, (refuse, None))
        with pytest.raises(DataError, match="is not an image of a known format"):
            load_image(path, SHAPE)
        assert opened(path) is None

    def test_what_the_file_is_instead(self, tmp_path):
        path = tmp_path / "photo.jpg"
        for content, text in (
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"TGA\) but HEIC; convert it to PNG"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "but EPS; convert"),
            (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "is a TIFF file whose pixels cannot be read; save it"),
        ):
            path.write_bytes(content)
            with pytest.raises(DataError, match=text):
                load_image(path, SHAPE)

    def test_images_are_opened_in_one_place(self):
        source = Path(fullback.__path__[0])
        found = [path.name for path in source.rglob("*.py") if "Image.open(" in path.read_text()]
        assert found == ["image_formats.py"]

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.parametrize(
        ("columns", "rows", "colour", "text"),
        [
            (7, 6_488_073, 6, "expected at most 65,535 in a row or column"),
            (5_000, 5_000, 6, "uint8"),  # 100 MB of RGBA
        ],
    )
    def test_peak_memory(self, tmp_path, columns, rows, colour, text):
        """A PNG of some hundred kilobytes takes twice its pixels at most, or is refused."""
        head = struct.pack(">IIBBBBB", columns, rows, 8, colour, 0, 0, 0)
        data = zlib.compress(bytes(rows * (1 + columns * 4)), 1)
        content = png((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
        (tmp_path / "i.png").write_bytes(content)
        script = f"""
from pathlib import Path
from fullback.data import load_image
try:
    print(load_image({str(tmp_path / "i.png")!r}, (1, 28, 28)).pixels.dtype)
except ValueError as error:
    print(error)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        told, peak = done.stdout.splitlines()
        assert text in told
        assert int(peak) < 300_000  # KiB

    def test_tiles_that_are_larger_than_the_image(self, tmp_path):
        path = tmp_path / "i.tif"
        short = {256: 20, 257: 28, 258: 8, 259: 1, 262: 1, 277: 1, 322: 40_000, 323: 40_000}
        entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in short.items()]
        entries += [struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((324, 8), (325, 9))]
        fields = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
        path.write_bytes(b"II*\0" + struct.pack("<I", 8) + fields)
        with pytest.raises(DataError, match="tiles of 40000 x 40000 pixels"):
            load_image(path, SHAPE)


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
        with pytest.raises(DataError, match="is not a file; expected an image: check the path"):
            load_image(tmp_path, SHAPE)

    @pytest.mark.parametrize("shape", [(2, 28, 28), (784,), (4, 8, 8), ()])
    def test_networks_that_take_no_pictures(self, saved, shape):
        with pytest.raises(ShapeError, match=r"take \(1, H, W\) or \(3, H, W\), not \("):
            load_image(saved(GREY), shape)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA"])
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
