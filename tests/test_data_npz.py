"""Data sets from .npz files, and every way for such a file to be wrong."""

import contextlib
import io
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullback.data import load_npz
from fullback.errors import DataError

RNG = np.random.default_rng(0)
KERAS = {
    "x_train": RNG.integers(0, 256, (6, 5, 4), np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
    "x_test": RNG.integers(0, 256, (3, 5, 4), np.uint8),
    "y_test": np.array([2, 1, 0], np.uint8),
}


def saved(arrays, save=np.savez):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(members, compression=zipfile.ZIP_STORED):
    """A zip file of (name, content) members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as z:
        for name, content in members:
            z.writestr(name, content)
    return file.getvalue()


def keras_with(**changed):
    """The members of a good file, some with other content."""
    return archive([(f"{k}.npy", changed.get(k) or npy(a)) for k, a in KERAS.items()])


def write(path, content):
    path.write_bytes(content)
    return path


def refuses(path, text):
    with pytest.raises(DataError, match=text) as caught:
        load_npz(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_form(tmp_path, save):
    data = load_npz(str(write(tmp_path / "faces.npz", saved(KERAS, save))))
    assert data.name == "faces"
    assert data.image_shape == (1, 5, 4)
    assert data.classes == 3
    assert data.x_train.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train[:, 0], KERAS["x_train"])
    np.testing.assert_array_equal(data.x_test[:, 0], KERAS["x_test"])
    assert data.y_train.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.y_test.tolist() == [2, 1, 0]


def test_x_and_y_are_split_in_proportion_and_always_alike(tmp_path):
    x = np.arange(50, dtype=np.float32)[:, None, None] * np.ones((50, 2, 2), np.float32)
    path = write(tmp_path / "a.npz", saved({"x": x, "y": np.arange(50)[:, None] % 5}))
    data = load_npz(path)
    assert len(data.x_train) == 40
    assert np.bincount(data.y_train).tolist() == [8] * 5
    assert np.bincount(data.y_test).tolist() == [2] * 5
    ids = np.concatenate([data.x_train, data.x_test])[:, 0, 0, 0]
    assert sorted(ids) == list(range(50))
    np.testing.assert_array_equal(ids % 5, np.concatenate([data.y_train, data.y_test]))
    np.testing.assert_array_equal(load_npz(path).x_test, data.x_test)


def test_split_of_a_class_with_one_image(tmp_path):
    y = np.array([0] * 20 + [7])
    path = write(tmp_path / "a.npz", saved({"x": np.zeros((21, 4, 4), "u1"), "y": y}))
    refuses(path, "class 7 has one image, .* or give x_test and y_test as well")


def test_split_of_too_few_images(tmp_path):
    for n in (15, 16):  # 4 of 16 images are kept: one of each class
        y = np.arange(n) % 4
        path = write(tmp_path / "a.npz", saved({"x": np.zeros((n, 4, 4), "u1"), "y": y}))
        if n == 15:
            refuses(
                path,
                "15 images of 4 classes are too few to keep a fifth for testing; give more",
            )
    assert sorted(load_npz(path).y_test) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((6, 5, 4), (1, 5, 4)),
        ((6, 8, 5, 4), (8, 5, 4)),
        ((6, 8, 8, 4), (4, 8, 8)),
        ((6, 3, 5, 9), (3, 5, 9)),
        ((6, 5, 4, 3), (3, 5, 4)),
        ((6, 5, 4, 1), (1, 5, 4)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", ">f4", "<f8"])
@pytest.mark.filterwarnings("ignore:x has shape .6, 3, 5, 3.:fullback.FullbackWarning")
def test_layouts(tmp_path, stored, shape, order, dtype):
    x = np.asarray(RNG.integers(0, 256, stored), dtype, order=order)
    arrays = {"x_train": x, "y_train": np.arange(6), "x_test": x, "y_test": np.arange(6)}
    data = load_npz(write(tmp_path / "a.npz", saved(arrays)))
    assert data.image_shape == shape
    assert data.x_train.dtype == np.dtype(dtype).newbyteorder("=")
    assert data.x_train.flags.c_contiguous
    expected = x.reshape(6, *shape) if x.ndim == 3 else x
    if stored[1:] != shape and x.ndim == 4:
        expected = np.moveaxis(x, 3, 1)
    np.testing.assert_array_equal(data.x_train, expected)


def test_extra_odd_and_repeated_members_do_not_matter(tmp_path):
    members = [(f"{k}.npy", npy(a)) for k, a in KERAS.items()]
    odd = [("../../x.npy", b"?"), ("folder/", b""), ("naïve.txt", b"hello"), (".npy", b"")]
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = archive([("x_train.npy", b"stale"), *odd, *members])
    data = load_npz(write(tmp_path / "a.npz", content))
    np.testing.assert_array_equal(data.x_train[:, 0], KERAS["x_train"])


def test_missing_file_and_folder(tmp_path):
    refuses(tmp_path / "none.npz", "no such file; expected an .npz file: check the path")
    refuses(tmp_path, "is a folder; expected an .npz file: give a file in it")


@pytest.mark.parametrize("content", [b"", b"hello", npy(np.zeros(3))])
def test_no_zip(tmp_path, content):
    refuses(write(tmp_path / "a.npz", content), "is not an intact .npz file .*zip.* copy it again")


def test_missing_arrays(tmp_path):
    three = {k: a for k, a in KERAS.items() if k != "y_test"}
    text = "has the arrays 'x_test', 'x_train', 'y_train'; expected x_train, y_train"
    refuses(write(tmp_path / "a.npz", saved(three)), text)
    refuses(write(tmp_path / "a.npz", archive([])), r"has the arrays \(none\); expected")
    many = archive([(f"a{i}\n.npy", b"") for i in range(2000)])
    refuses(
        write(tmp_path / "a.npz", many), r"has the arrays 'a0\\n', .*, \.\.\.; expected x_train"
    )


def header(text, version=1):
    """An .npy header with any text in it."""
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin1")


def described(descr, shape):
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "content",
    [
        b"junk",
        b"\x93NUMPY",
        header("", 9),
        header("{}"),
        header("{'descr': "),
        header(described("nonsense", (6, 5, 4))),
        header(described("|u1", "(6, 'a')")),
        header("-" * 9000 + "1"),
        header("(" * 9000),
        header("1if 1else 2"),  # Python warns of such syntax
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (6, " + "5 " * 9999),
        b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{" * 70_000,
    ],
)
def test_damaged_array_header(tmp_path, content):
    path = write(tmp_path / "a.npz", keras_with(x_test=content))
    refuses(path, "x_test is not an array in .npy form, version 1 or 2; save it with np.savez")


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([{}, None]), "x_train has dtype object; expected plain numbers: save it as"),
        (np.array(["a", "b"]), "x_train has dtype <U1; expected plain numbers"),
        (np.zeros(2, "i4,f4"), "x_train has dtype .*; expected plain numbers"),
        (np.zeros((6, 5, 4), complex), "x_train has dtype complex128; expected plain numbers"),
        (np.zeros((6, 0, 4), "u1"), r"x_train has shape \(6, 0, 4\); expected at least one"),
        (np.uint8(3), r"x_train has shape \(\); expected \(N, C, H, W\)"),
        (np.zeros((6, 20), "u1"), r"x_train has shape \(6, 20\); expected \(N, C, H, W\)"),
        (np.zeros((6, 5, 4), "i4"), "x_train has dtype int32; expected uint8"),
        (np.zeros((6, 5, 4), "f2"), "x_train has dtype float16; expected uint8"),
        (np.zeros((5, 5, 4), "u1"), "x_train has 5 images but y_train has 6 labels"),
        (np.zeros((6, 5, 5), "u1"), r"images of shape \(1, 5, 5\) but x_test of shape \(1, 5, 4\)"),
        (np.full((6, 5, 4), np.nan, "f4"), "x_train holds NaN or infinity in 6 of 6 images"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, text):
    refuses(write(tmp_path / "a.npz", saved({**KERAS, "x_train": array})), text)


def test_negative_shape(tmp_path):
    content = header(described("|u1", (-6, -5, 4))) + bytes(120)
    path = write(tmp_path / "a.npz", keras_with(x_train=content))
    refuses(path, r"x_train has shape \(-6, -5, 4\); expected at least one")


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5, 5), (2**40, 2**40, 9)])
def test_size_that_disagrees_with_the_shape(tmp_path, shape):
    content = header(described("|u1", shape)) + bytes(120)
    path = write(tmp_path / "a.npz", keras_with(x_train=content))
    refuses(
        path, rf"x_train should have \d+ bytes for its shape {re.escape(str(shape))} .* has 120"
    )


def with_declared_size(content, name, size):
    """Rewrite the unpacked size that the zip file states for a member."""
    content = bytearray(content)
    name = name.encode()
    for place in (content.find(name) - 30 + 22, content.rfind(name) - 46 + 24):
        struct.pack_into("<I", content, place, size)
    return bytes(content)


def test_memory_follows_the_data_not_the_claims(tmp_path):
    shape = (2**10, 2**10, 2**10)  # 1 GiB
    head = header(described("|u1", shape))
    claims = archive([(f"{k}.npy", head) for k in KERAS], zipfile.ZIP_DEFLATED)
    one = with_declared_size(claims, "x_train.npy", len(head) + 2**30)
    far = with_declared_size(claims, "x_train.npy", 2**32 - 2)
    bomb = archive([(f"{k}.npy", bytes(30_000_000)) for k in KERAS], zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        text = "x_train ends after 0 of 1073741824 bytes|not an intact .npz file"
        refuses(write(tmp_path / "a.npz", one), text)
        text = "its arrays of 4,294,96.* need more than 4,294,967,296 bytes; save fewer images, or "
        refuses(write(tmp_path / "a.npz", far), text)
        refuses(write(tmp_path / "a.npz", bomb), "x_train is not an array in .npy form")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_foreign_compression_and_encryption(tmp_path):
    members = [(f"{k}.npy", npy(a)) for k, a in KERAS.items()]
    path = write(tmp_path / "a.npz", archive(members, zipfile.ZIP_BZIP2))
    refuses(path, "x_train is compressed by method 12; expected none or deflate: save it with np")
    content = bytearray(archive(members))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.find(signature) + offset] |= 1
    refuses(write(tmp_path / "a.npz", content), "is not an intact .npz file .*password")


def test_changed_data_fails_its_checksum(tmp_path):
    content = saved(KERAS)
    place = content.find(KERAS["x_train"].tobytes())
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    refuses(write(tmp_path / "a.npz", changed), "is not an intact .npz file .*CRC-32.*copy it")


FILES = [saved(KERAS), saved(KERAS, np.savez_compressed)]


@given(content=st.sampled_from(FILES), data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_truncation_is_refused(folder, content, data):
    end = data.draw(st.integers(0, len(content) - 1))
    refuses(write(folder / "cut.npz", content[:end]), "is not an intact .npz file")


@given(
    content=st.sampled_from(FILES),
    flips=st.lists(st.tuples(st.integers(0, 2**12), st.integers(1, 255)), min_size=1, max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_flipped_bytes_are_refused_or_harmless(folder, content, flips):
    content = bytearray(content)
    for place, flip in flips:
        content[place % len(content)] ^= flip
    with contextlib.suppress(DataError):
        load_npz(write(folder / "flipped.npz", content))
