"""IDX files: round trips, the IDX form of MNIST, and every way for a file to be wrong."""

import errno
import gzip
import math
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullback.data import load_idx, load_idx_pair
from fullback.errors import DataError, FullbackWarning
from support.files import CODES, idx_bytes


def write(path, content):
    path.write_bytes(content)
    return path


def refuses(path, text):
    """Check that load_idx gives one line that names the file and matches `text`."""
    with pytest.raises(DataError, match=text) as caught:
        load_idx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def outcome(path):
    """The array, or the message where the file is refused."""
    try:
        return load_idx(path)
    except DataError as error:
        return str(error)


IMAGES = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)
PLAIN = idx_bytes(IMAGES)
GZIPPED = gzip.compress(PLAIN, mtime=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=1, max_dims=5, max_side=4))
)


@given(array=arrays, compressed=st.booleans())
@settings(max_examples=100, deadline=None)
def test_reads_back_any_array(folder, array, compressed):
    content = idx_bytes(array)
    # The name says the opposite of the content: only the content counts.
    path = write(folder / ("a" if compressed else "a.gz"), content)
    if compressed:
        write(path, gzip.compress(content, 1))
    read = load_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


def test_gzip_of_several_members_reads_as_one(tmp_path):
    path = write(tmp_path / "a", gzip.compress(PLAIN[:30]) + gzip.compress(PLAIN[30:]))
    np.testing.assert_array_equal(load_idx(str(path)), IMAGES)


@given(content=st.sampled_from([PLAIN, GZIPPED]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_truncation_is_refused(folder, content, data):
    end = data.draw(st.integers(0, len(content) - 1))
    refuses(write(folder / "cut", content[:end]), "again|starts with")


@given(place=st.integers(0, 15), flip=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_header_is_refused_or_harmless(folder, place, flip):
    content = bytearray(PLAIN)
    content[place] ^= flip
    read = outcome(write(folder / "flipped", content))
    if isinstance(read, str):
        assert "\n" not in read
    else:  # another element type or shape of the same size: uint8 as int8
        assert read.nbytes == IMAGES.nbytes


@given(place=st.integers(0, len(GZIPPED) - 1), flip=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_flipped_gzip_is_refused_or_harmless(folder, place, flip):
    content = bytearray(GZIPPED)
    content[place] ^= flip
    read = outcome(write(folder / "flipped.gz", content))
    if isinstance(read, str):
        assert "\n" not in read
    else:  # the time, the operating system: the checksum covers the rest
        np.testing.assert_array_equal(read, IMAGES)


@given(content=st.binary(max_size=60), magic=st.sampled_from([b"", b"\0\0\x08\x03", b"\x1f\x8b"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_raise_nothing_but_data_error(folder, content, magic):
    read = outcome(write(folder / "any", magic + content))
    assert isinstance(read, np.ndarray) or "\n" not in read


def test_missing(tmp_path):
    refuses(tmp_path / "none", "no such file; expected an IDX file: check the path")


def test_folder(tmp_path):
    refuses(tmp_path, "is a folder; expected an IDX file: give a file in it")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "denied"), "no permission to read it; .* copy it"),
        (OSError(errno.EMFILE, "Too many open files"), r"cannot be opened \(.*Too many open"),
    ],
)
def test_file_that_does_not_open(tmp_path, monkeypatch, error, text):
    def fail(*_):
        raise error

    path = write(tmp_path / "a", PLAIN)
    monkeypatch.setattr(Path, "open", fail)
    refuses(path, text)


def test_path_that_cannot_be():
    refuses("a\0b", "cannot be opened .*null")
    refuses("a" * 5000, "cannot be opened .*too long")


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
def test_empty(tmp_path, content):
    refuses(write(tmp_path / "a", content), "is empty; expected an IDX file: download or copy")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\x89PNG\r\n", "89 50 4e 47"),
        (b"\0\0", "00 00"),
        (b"\0\0\x0a\x03", "00 00 0a 03"),
        (b"\0\0\x08\x00", "00 00 08 00"),
        (b"\0\0\x08\x21" + bytes(33 * 4), "00 00 08 21"),
        (gzip.compress(b"hello world", mtime=0), "68 65 6c 6c"),
    ],
)
def test_wrong_magic(tmp_path, content, found):
    text = f"starts with bytes {found}; expected IDX.* 00 00, a type .08, 09, .* give an IDX file"
    refuses(write(tmp_path / "a", content), text)


def test_header_cut_short(tmp_path):
    refuses(write(tmp_path / "a", PLAIN[:10]), "ends inside its header of 16 bytes; download")


def test_zero_length(tmp_path):
    content = struct.pack(">4B3I", 0, 0, 8, 3, 0, 2**32 - 1, 2**32 - 1)
    refuses(write(tmp_path / "a", content), r"says shape \(0, .*\), which holds nothing")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_too_few_and_too_many_bytes(tmp_path, pack):
    path = write(tmp_path / "a", pack(PLAIN[:-7]))
    refuses(path, "says 5 x 3 x 4 uint8 = 60 bytes of data but the file ends after 53 bytes; down")
    path = write(tmp_path / "a", pack(PLAIN + b"!"))
    refuses(path, "says 5 x 3 x 4 uint8 = 60 bytes of data but the file goes on after that; down")


def test_damaged_gzip(tmp_path):
    path = write(tmp_path / "a", GZIPPED[:-9])
    refuses(path, "is cut short or damaged .*ended before.* intact gzip file: download or copy")
    refuses(write(tmp_path / "a", GZIPPED + b"junk"), "is cut short or damaged .*Not a gzipped")
    crc = bytearray(GZIPPED)
    crc[-8] ^= 1
    refuses(write(tmp_path / "a", crc), "is cut short or damaged .*CRC")
    deflate = bytearray(GZIPPED)
    deflate[10] = 0xFF
    refuses(write(tmp_path / "a", deflate), "is cut short or damaged .*Error -3")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        # A header that claims 4 GiB, and one that claims far more, before almost nothing.
        (struct.pack(">4B2I", 0, 0, 8, 2, 2**16, 2**16) + b"1234", "ends after 4 bytes"),
        (
            gzip.compress(struct.pack(">4B2I", 0, 0, 8, 2, 2**16, 2**16), mtime=0),
            "ends after 0 bytes",
        ),
        (
            struct.pack(">4B8I", 0, 0, 14, 8, *[2**32 - 1] * 8),
            "need more than 4,294,967,296 bytes; split",
        ),
        # Little that unpacks to much.
        (gzip.compress(PLAIN + bytes(100_000_000), 1, mtime=0), "goes on after that"),
    ],
)
def test_memory_follows_the_data_not_the_header(tmp_path, content, text):
    path = write(tmp_path / "a", content)
    tracemalloc.start()
    try:
        refuses(path, text)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((5, 6, 4), (5, 1, 6, 4)),
        ((5, 1, 6, 4), (5, 1, 6, 4)),
        ((5, 3, 6, 4), (5, 3, 6, 4)),
        ((5, 6, 4, 3), (5, 3, 6, 4)),
    ],
)
def test_pair(tmp_path, stored, shape):
    images = np.arange(math.prod(stored), dtype=np.int16).reshape(stored)
    a = write(tmp_path / "images", idx_bytes(images))
    b = write(tmp_path / "labels", idx_bytes(np.arange(5, dtype=np.uint8)))
    x, y = load_idx_pair(a, str(b))
    assert x.shape == shape
    assert x.dtype == np.int16
    assert x.flags.c_contiguous
    if shape[1] == 3 and stored[-1] == 3:
        np.testing.assert_array_equal(x[:, 2], images[..., 2])
    assert y.dtype == np.int64
    assert y.tolist() == [0, 1, 2, 3, 4]


def test_a_layout_that_is_a_guess_is_told(tmp_path):
    a = write(tmp_path / "images", idx_bytes(np.zeros((5, 3, 6, 1), np.uint8)))
    b = write(tmp_path / "labels", idx_bytes(np.arange(5, dtype=np.uint8)))
    with pytest.warns(FullbackWarning, match="images has shape .* 3 channels of 6 x 1"):
        x, _ = load_idx_pair(a, b)
    assert x.shape == (5, 3, 6, 1)


@pytest.mark.parametrize(
    ("x_shape", "y", "text"),
    [
        ((5,), np.zeros(5, "u1"), r"images: has shape \(5,\); expected images, \(N, H, W\).*first"),
        ((5, 8, 6, 4), np.zeros(5, "u1"), r"has shape \(5, 8, 6, 4\); expected 1 or 3 channels"),
        ((5, 6, 4), np.zeros((5, 2), "u1"), r"labels: has shape \(5, 2\); expected labels, \(N,\)"),
        ((5, 6, 4), np.zeros(4, "u1"), "images: has 5 images but .*labels has 4 labels; give two"),
        ((2, 6, 4), np.array([3, -1], "i1"), "labels holds -1 at index 1; labels are whole"),
        ((2, 6, 4), np.array([0.5, 1], "f4"), r"labels holds 0\.5 at index 0; labels are whole"),
    ],
)
def test_pair_that_does_not_fit(tmp_path, x_shape, y, text):
    a = write(tmp_path / "images", idx_bytes(np.zeros(x_shape, "u1")))
    b = write(tmp_path / "labels", idx_bytes(y))
    with pytest.raises(DataError, match=text) as caught:
        load_idx_pair(a, b)
    assert re.match(re.escape(str(tmp_path)), str(caught.value))
    assert "\n" not in str(caught.value)
