"""Data sets: what they check, the built-in digits, and finding one by name or path."""

import ast
import gzip
from pathlib import Path

import numpy as np
import pytest

import fullback.data
from fullback.data import Dataset, digits, load_data
from fullback.errors import DataError, InputError, ShapeError
from support.files import idx_bytes

X = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
GOOD = {"x_train": X, "y_train": [0, 4], "x_test": X[:1], "y_test": [2]}


def test_public_names():
    names = (
        "Dataset ImageFile LoadedImages digits load_data load_idx load_idx_pair load_image "
        "load_images load_npz mnist unpack_data"
    )
    assert fullback.data.__all__ == names.split()


def test_slow_imports_wait_until_needed():
    for file in Path(fullback.data.__path__[0]).glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            slow = {"sklearn", "pooch", "PIL", "rich", "requests"}
            assert not slow & {name.split(".")[0] for name in names}, file.name


class TestDataset:
    def test_properties(self):
        data = Dataset("toy", **GOOD)
        assert data.image_shape == (3, 4, 5)
        assert data.classes == 5
        assert data.class_names == ("0", "1", "2", "3", "4")
        assert data.x_train is X
        assert data.y_train.dtype == data.y_test.dtype == np.int64
        assert repr(data) == (
            "Dataset('toy': 2 training and 1 test images of 3x4x5 uint8, 5 classes)"
        )

    def test_the_largest_label_may_be_in_the_test_part(self):
        assert Dataset("toy", X, [0, 1], X[:1], [6]).classes == 7

    def test_named_classes(self):
        names = ("no", "yes", "a", "b", "c", "not shown")
        data = Dataset("toy", **GOOD, class_names=names)
        assert data.class_names == names
        assert data.classes == 6

    def test_frozen_and_compared_by_identity(self):
        data = Dataset("toy", **GOOD)
        with pytest.raises(AttributeError, match="cannot assign"):
            data.name = "other"
        assert data != Dataset("toy", **GOOD)

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
    def test_image_dtypes_stay(self, dtype):
        data = Dataset("toy", **{**GOOD, "x_train": X.astype(dtype), "x_test": X.astype(dtype)[:1]})
        assert data.x_train.dtype == dtype

    @pytest.mark.parametrize("y", [np.array([0.0, 4.0]), np.array([0, 4], np.uint64), (False, 4)])
    def test_whole_labels_of_any_dtype(self, y):
        assert Dataset("toy", **{**GOOD, "y_train": y}).y_train.tolist() == [0, 4]

    @pytest.mark.parametrize(
        ("part", "value", "error", "text"),
        [
            (
                "x_train",
                X[0],
                ShapeError,
                r"x_train has shape \(3, 4, 5\); expected \(N, C, H, W\)",
            ),
            ("x_test", X[:0], ShapeError, r"x_test has shape \(0, 3, 4, 5\); .* each at least 1"),
            ("x_train", X[:, :, :0], ShapeError, r"x_train has shape \(2, 3, 0, 5\); expected"),
            ("x_train", X[:1], ShapeError, "x_train has 1 images but y_train has 2 labels; give"),
            (
                "x_test",
                X[:1, :1],
                ShapeError,
                r"of shape \(3, 4, 5\) but x_test of shape \(1, 4, 5",
            ),
            ("y_train", [[0, 4]], ShapeError, r"y_train has shape \(1, 2\); expected \(N,\)"),
            ("x_train", X.astype(int), InputError, r"x_train has dtype int64; .*astype\('uint8'\)"),
            ("x_train", X > 0, InputError, "x_train has dtype bool; expected uint8"),
            ("x_test", X[:1].astype(">f4"), InputError, "x_test has dtype >f4; expected uint8"),
            (
                "x_test",
                X[:1].astype("f4"),
                InputError,
                "x_train is uint8 but x_test is float32; br",
            ),
            ("y_train", ["a", "b"], InputError, "y_train has dtype <U1; expected whole numbers"),
            ("y_train", [0, 0.5], InputError, r"y_train holds 0\.5 at index 1; labels are whole"),
            ("y_train", [np.nan, 0], InputError, "y_train holds nan at index 0; labels are whole"),
            ("y_test", [np.inf], InputError, "y_test holds inf at index 0; labels are whole"),
            ("y_test", [-1], InputError, "y_test holds -1 at index 0; labels are whole numbers"),
            ("y_train", [0, 65536], InputError, "y_train holds 65536 at index 1; .* 0 to 65535"),
            ("class_names", ("a", "b"), InputError, "has 2 names but the largest label is 4; give"),
        ],
    )
    def test_refused(self, part, value, error, text):
        with pytest.raises(error, match=text) as caught:
            Dataset("toy", **{**GOOD, part: value})
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_images_that_are_not_finite(self, value):
        x = np.zeros((9, 1, 4, 4), np.float32)
        x[4, 0, 1, 2] = x[7, 0, 0, 0] = value
        with pytest.raises(InputError, match=r"NaN or infinity in 2 of 9 .* index 4"):
            Dataset("toy", x, np.zeros(9, int), x[:4], np.zeros(4, int))


def test_digits():
    data = digits()
    assert data.name == "digits"
    assert data.x_train.shape == (1437, 1, 28, 28)
    assert data.x_test.shape == (360, 1, 28, 28)
    assert data.x_train.dtype == np.uint8
    assert data.classes == 10
    x = np.concatenate([data.x_train, data.x_test])[:, 0]
    edge = np.ones((28, 28), bool)
    edge[1:-1, 1:-1] = False
    assert not x[:, edge].any()
    # Ringing that wraps around in uint8 would put white beside the black corners.
    assert x[:, :4, :2].max() < 20
    assert x.max() == 255
    shares = np.bincount(data.y_test) / np.bincount(np.concatenate([data.y_train, data.y_test]))
    assert np.all(abs(shares - 0.2) < 0.005)
    np.testing.assert_array_equal(digits().x_test, data.x_test)


def test_enlarged_digits_are_still_told_apart():
    data = digits()
    means = np.stack([data.x_train[data.y_train == k].mean(axis=0).ravel() for k in range(10)])
    x = data.x_test.reshape(360, 1, -1).astype(float)
    nearest = ((x - means) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == data.y_test) > 0.88  # the 8x8 images give 0.89


class TestLoadData:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("FULLBACK_DATA", raising=False)

    def put(self, name, n=10, labels=True, folder="."):
        """Write n images, with their labels beside them."""
        Path(folder).mkdir(exist_ok=True)
        x = np.random.default_rng(n).integers(0, 256, (n, 6, 6), np.uint8)
        pairs = [(name, x)]
        if labels:
            stem = name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1")
            pairs.append((stem, np.arange(n, dtype=np.uint8) % 2))
        for file, array in pairs:
            content = idx_bytes(array)
            content = gzip.compress(content) if file.endswith(".gz") else content
            (Path(folder) / file).write_bytes(content)

    def refuses(self, source, text):
        with pytest.raises(DataError, match=text) as caught:
            load_data(source)
        assert "\n" not in str(caught.value)

    def test_digits(self):
        assert load_data("digits").name == "digits"

    def test_a_path_is_never_taken_for_a_name(self):
        self.put("images-idx3-ubyte", folder="digits")
        assert load_data("digits").image_shape == (1, 28, 28)
        assert load_data("./digits").image_shape == (1, 6, 6)
        assert load_data(Path("digits")).image_shape == (1, 6, 6)

    @pytest.mark.parametrize("source", ["digits", "a.npz", Path("folder")])
    def test_data_dir_goes_with_mnist_only(self, source):
        text = r"data_dir \(='d'\) goes with 'mnist' only, but .* '(digits|a.npz|folder)'; leave"
        with pytest.raises(InputError, match=text):
            load_data(source, "d")

    def test_data_dir_with_mnist(self):
        with pytest.raises(DataError, match="nowhere: cannot be listed"):
            load_data("mnist", "nowhere")

    @pytest.mark.parametrize("name", ["minst", "MNIST", "mnits"])
    def test_did_you_mean(self, name):
        self.refuses(name, f"unknown data set '{name}', and no such file; .*: did you mean 'mnist'")

    @pytest.mark.parametrize("name", ["", "x/y.npz", "a\0b", "z" * 5000, Path("cifar")])
    def test_neither_name_nor_path(self, name):
        self.refuses(
            name,
            "unknown data set .* expected 'digits', 'mnist', .* check the p",
        )

    def test_npz(self):
        np.savez("a.NPZ.npz", x=np.zeros((10, 6, 6), np.uint8), y=np.arange(10) % 2)
        Path("a.NPZ.npz").rename("a.NPZ")
        assert len(load_data("a.NPZ").x_test) == 2

    @pytest.mark.parametrize(
        "name", ["images-idx3-ubyte", "x-train-images-idx3-ubyte.gz", "train-images.idx3-ubyte"]
    )
    def test_images_file_is_split(self, name):
        self.put(name)
        self.put("t10k-images-idx3-ubyte", labels=False)
        data = load_data(name)
        assert data.name == name
        assert (len(data.x_train), len(data.x_test)) == (8, 2)

    def test_labels_may_differ_in_compression(self):
        self.put("images-idx3-ubyte.gz")
        Path("labels-idx1-ubyte").write_bytes(
            gzip.decompress(Path("labels-idx1-ubyte.gz").read_bytes())
        )
        Path("labels-idx1-ubyte.gz").unlink()
        assert len(load_data("images-idx3-ubyte.gz").x_train) == 8

    def test_images_file_without_labels(self):
        self.put("a-train-images-idx3-ubyte.gz", labels=False)
        text = "its labels are missing; expected a-train-labels-idx1-ubyte or .*gz beside it: put"
        self.refuses("a-train-images-idx3-ubyte.gz", text)

    def test_images_file_with_bad_content(self):
        self.put("images-idx3-ubyte", n=1)
        self.refuses("images-idx3-ubyte", "images-idx3-ubyte: class 0 has one image, which cannot")
        Path("images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((1, 6, 6), np.int32)))
        self.refuses("images-idx3-ubyte", "images-idx3-ubyte: x has dtype int32; expected uint8")

    @pytest.mark.parametrize("name", ["labels-idx1-ubyte", "train-images"])
    def test_other_files(self, name):
        Path(name).write_bytes(b"1234")
        self.refuses(name, f"{name}: is neither .npz nor named as an IDX images file, such as .*:")

    @pytest.mark.parametrize("test", ["t10k", "test"])
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_folder(self, test, suffix):
        self.put(f"emnist-letters-{test}-images-idx3-ubyte{suffix}", n=4, folder="letters")
        self.put(f"emnist-letters-train-images-idx3-ubyte{suffix}", n=7, folder="letters")
        Path("letters/readme.txt").write_text("")
        Path("letters/old-images-idx3-ubyte").mkdir()
        data = load_data("letters")
        assert data.name == "letters"
        assert (len(data.x_train), len(data.x_test)) == (7, 4)

    def test_folder_with_plain_and_compressed_copies(self):
        for suffix in ("", ".gz"):
            self.put(f"train-images-idx3-ubyte{suffix}")
            self.put(f"t10k-images-idx3-ubyte{suffix}", n=4)
        assert len(load_data(".").x_test) == 4

    def test_folder_with_one_pair(self, tmp_path):
        self.put("train-images-idx3-ubyte")
        data = load_data(".")
        assert data.name == tmp_path.name
        assert (len(data.x_train), len(data.x_test)) == (8, 2)

    def test_empty_folder(self):
        self.refuses(
            ".",
            r"\.: holds no images and no IDX, \.npy or \.parquet files; expected a folder a class",
        )

    @pytest.mark.parametrize(
        "names",
        [
            ["a-train", "b-train"],
            ["a-train", "b-test"],
            ["t10k", "test"],
            ["", "train-"],
            ["t10k", "test", "train"],
        ],
    )
    def test_ambiguous_folder(self, names):
        names = [f"{name}-images-idx3-ubyte".replace("--", "-").lstrip("-") for name in names]
        for name in names:
            self.put(name)
        self.refuses(".", f"found the IDX images {', '.join(sorted(names))}; expected .* one data")

    def test_folder_with_labels_missing(self):
        self.put("train-images-idx3-ubyte")
        self.put("t10k-images-idx3-ubyte", labels=False)
        self.refuses(".", "t10k-images-idx3-ubyte: its labels are missing; expected t10k-labels-i")

    def test_folder_that_cannot_be_read(self, monkeypatch):
        Path("closed").mkdir()

        def denied(_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", denied)
        self.refuses("closed", r"closed: cannot be listed \(Permission denied\); expected a folder")
