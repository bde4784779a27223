"""Tables: CSV files and their relatives, which column of them is the label."""

import csv
import gzip
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fullback as fb
from fullback.data import load_images
from fullback.data.tables.delimited import read_table
from fullback.errors import DataError, FullbackWarning, InputError, OptionError
from support.command import run
from support.files import idx_bytes

RNG = np.random.default_rng(0)


class TestCSV:
    @staticmethod
    def write(path, header, rows):
        lines = [header] * bool(header) + [",".join(map(str, row)) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        return path

    def rows(self, count=30, pixels=16):
        x = RNG.integers(0, 256, (count, pixels))
        return x, np.arange(count) % 3

    def test_labels_first(self, tmp_path):
        x, y = self.rows()
        path = self.write(tmp_path / "d.csv", "", np.column_stack([y, x]))
        data = fb.load_data(path)
        assert data.image_shape == (1, 4, 4)
        assert data.x_train.dtype == np.uint8
        every = np.concatenate([data.x_train, data.x_test]).reshape(30, 16)
        assert {tuple(row) for row in every} == {tuple(row) for row in x}

    def test_a_column_called_label(self, tmp_path):
        x, y = self.rows()
        header = ",".join([f"pixel{n}" for n in range(16)] + ["Label"])
        path = self.write(tmp_path / "d.csv", header, np.column_stack([x, y]))
        assert np.bincount(fb.load_data(path).y_test).tolist() == [2, 2, 2]

    def test_colours_and_floats(self, tmp_path):
        x, y = self.rows(pixels=24)
        path = self.write(tmp_path / "d.csv", "", np.column_stack([y, x / 256]))
        data = fb.load_data(path, image_shape=(3, 2, 4))
        assert data.image_shape == (3, 2, 4)
        assert data.x_train.dtype == np.float32

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no images"),
            ("label,a,b,c,d\n", "holds no images"),
            ("1\n2\n", "holds no images, as it has 1 columns"),
            (",,\n,,\n", "holds no images, as it has 0 columns"),
            ("1,2,3\n1,2\n", "has 2 columns in row 2 but 3 in those before it"),
            ("label,a,b,c,d\n1,2,3,4,5\n1,2,,4,5\n", "an empty field in row 2, column 'b'"),
            ("label,a,b,c,d\n1,2,3,x,5\n2,2,3,4,5\n", "has 'x' in row 1, column 'c'"),
            ("label,a,b,c\n" + "1,2,3,4\n2,3,4,5\n" * 9, "has 3 pixels a line beside its label"),
            ("y,a,b,c,d\n" + "1.5,2,3,4,5\n2.5,2,3,4,5\n" * 9, "has 1.5 in row 1; expected whole"),
            ("y,a,b,c,d\n" + "1,2,3,4,5\n" * 9, "'y' has '1' in all 9 rows; expected at least two"),
            ("y,a,b,c,d\n" + "1,nan,3,4,5\n2,0,0,0,0\n" * 9, "NaN"),
            (
                "y,a,b,c,d\n,2,3,4,5\nu,0,0,0,0\n",
                "an empty field in row 1; give that image a label",
            ),
        ],
    )
    def test_what_is_refused(self, tmp_path, text, message):
        (tmp_path / "d.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            fb.load_data(tmp_path / "d.csv")

    def test_bytes_that_are_no_text(self, tmp_path):
        (tmp_path / "d.csv").write_bytes(bytes(range(256)) * 9)
        with pytest.raises(DataError, match="is not text"):
            fb.load_data(tmp_path / "d.csv")


X, Y = (array[:600] for array in load_digits(return_X_y=True))
X = X.astype(int)
PIXELS = [f"pixel{n}" for n in range(64)]
NAMES = np.array(["zero", "one", "two", "drei", "vier", "fünf", "six", "7", "acht", "-"])


def table(*columns, header=None, mark=","):
    """The text of a table: rows of the columns side by side."""
    rows = [list(map(str, row)) for row in np.column_stack([*map(np.asarray, columns)]).tolist()]
    return "".join(mark.join(row) + "\n" for row in ([header] if header else []) + rows)


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def every(data):
    """The images and labels of a data set, sorted."""
    x = np.concatenate([data.x_train, data.x_test])
    y = np.concatenate([data.y_train, data.y_test])
    rows = np.column_stack([y, x.reshape(len(x), -1)])
    return rows[np.lexsort(rows.T)]


def wanted(y=Y, x=X):
    rows = np.column_stack([y, x])
    return rows[np.lexsort(rows.T)]


class TestLabelColumn:
    @pytest.mark.parametrize(
        ("text", "note"),
        [
            (table(X, Y), "labels are in the last column, by its values: 10 whole numbers from 0"),
            (table(Y, X), "labels are in the first column, by its values"),
            (table(Y, X, header=["label", *PIXELS]), "labels are in column 'label'"),
            (table(X, Y, header=[*PIXELS, "Target"]), "labels are in column 'Target'"),
            (table(X, Y, header=[*PIXELS, "zahl"]), "labels are in column 'zahl'"),
            (
                table(X[:, :30], Y, X[:, 30:], header=[*PIXELS[:30], "digit", *PIXELS[30:]]),
                "labels are in column 'digit'",
            ),
            (table(X, Y, header=list(map(str, range(65)))), "labels are in the last column, by"),
            (
                table(range(len(Y)), X, Y, header=["", *PIXELS, "class"]),
                "column '' names the rows; labels are in column 'class'",
            ),
            (
                table(range(len(Y)), Y, X),
                "column number 0 names the rows; labels are in the first column, by its values",
            ),
            (
                table(RNG.permutation(len(Y)), X, Y),
                "column number 0 names the rows; labels are in th",
            ),
            (table(Y, X, header=["label", *PIXELS], mark=";"), "labels are in column 'label'"),
            (table(Y, X, mark="\t"), "labels are in the first column"),
            (table(X, Y, mark=" "), "labels are in the last column"),
            ("\ufeff" + table(Y, X, header=["label", *PIXELS]), "labels are in column 'label'"),
            (table(Y, X).replace("\n", "\n\n"), "labels are in the first column"),
            (table(Y, X).replace("\n", ",\n"), "labels are in the first column"),
            (table(Y, X, header=['"label"', *PIXELS]).replace("\n", "\r\n"), "column 'label'"),
            (
                table(Y, X, NAMES[Y], header=["label", *PIXELS, "class name"]),
                "labels are in column 'label'",
            ),
        ],
    )
    def test_digits_in_many_forms(self, tmp_path, text, note):
        data = fb.load_data(written(tmp_path / "d.csv", text))
        np.testing.assert_array_equal(every(data), wanted())
        assert "; ".join(data.notes).startswith(note) or note in data.notes[0]

    @pytest.mark.parametrize("column", [30, "30", -35])
    def test_label_in_the_middle_by_its_number(self, tmp_path, column):
        path = written(tmp_path / "d.csv", table(X[:, :30], Y, X[:, 30:]))
        np.testing.assert_array_equal(every(fb.load_data(path, label_column=column)), wanted())
        with pytest.raises(DataError, match="which of its 65 columns holds the labels is not cl"):
            fb.load_data(path)

    def test_optdigits_semeion_and_sign_language(self, tmp_path):
        """The shapes in which public data sets come."""
        binary = (X > 8).astype(int)
        semeion = table(binary, np.eye(10, dtype=int)[Y], mark=" ")
        data = fb.load_data(written(tmp_path / "semeion.data", semeion))
        np.testing.assert_array_equal(every(data), wanted(x=binary))
        without_nine = np.where(Y == 9, 10, Y)  # as J, which is a movement
        header = ["label", *PIXELS]
        data = fb.load_data(written(tmp_path / "s.csv", table(without_nine, X, header=header)))
        np.testing.assert_array_equal(every(data), wanted(without_nine))

    @pytest.mark.parametrize("where", [0, 64])
    def test_texts_are_class_names(self, tmp_path, where):
        quoted = [f'"{name}"' for name in NAMES[Y]]
        columns = (quoted, X) if where == 0 else (X, quoted)
        data = fb.load_data(written(tmp_path / "d.csv", table(*columns)))
        order = ["7", "-", "acht", "drei", "fünf", "one", "six", "two", "vier", "zero"]
        assert data.class_names == tuple(order)
        place = np.array([order.index(name) for name in NAMES])
        np.testing.assert_array_equal(every(data), wanted(place[Y]))

    def test_text_that_comes_late(self, tmp_path):
        """The first hundred labels are numbers, and those after them are letters."""
        order = np.argsort(Y, kind="stable")
        letters = np.array(list("0123456ABC"))[Y[order]]
        data = fb.load_data(written(tmp_path / "d.csv", table(letters, X[order])))
        assert data.class_names == tuple("0123456ABC")
        np.testing.assert_array_equal(every(data), wanted())

    def test_negative_labels_are_names(self, tmp_path):
        text = table(np.where(Y % 2, 1, -1), X, header=["y", *PIXELS])
        data = fb.load_data(written(tmp_path / "d.csv", text))
        assert data.class_names == ("-1", "1")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (table(X), "has 8 x 8 = 64 pixels a line and no label column; expected"),
            (table(X, header=PIXELS), "has 8 x 8 = 64 pixels a line and no label column"),
            (table(range(len(X)), X, header=["id", *PIXELS]), "8 x 8 = 64 pixels a line and no"),
            (table(Y * 0, X, header=["label", *PIXELS]), "has '0' in all 600 rows"),
            (table(X, Y * 0), "which of its 65 columns holds the labels is not clear"),
            (table(Y % 2, (X > 8) + 0), "which of its 65 columns holds the labels is not clear"),
            (
                table(Y, X, Y[::-1], header=["label", *PIXELS, "class"]),
                "'label' and 'class' could both be the label column; name it",
            ),
            (table(Y, X[:, :63], Y[::-1] % 5), "(number 0, number 64 could)"),
        ],
    )
    def test_what_is_not_clear_is_refused(self, tmp_path, text, message):
        with pytest.raises(DataError) as caught:
            fb.load_data(written(tmp_path / "d.csv", text))
        assert message in str(caught.value)
        assert "--label-column" in str(caught.value)

    def test_label_columns_that_are_not_there(self, tmp_path):
        path = written(tmp_path / "d.csv", table(Y, X, header=["label", *PIXELS]))
        with pytest.raises(OptionError, match=r"no column 'klasse'; it has the columns 'label', '"):
            fb.load_data(path, label_column="klasse")
        with pytest.raises(OptionError, match="no column 65; it has the columns 0 to 64"):
            fb.load_data(path, label_column=65)
        path = written(tmp_path / "d.csv", table(Y, X))
        with pytest.raises(OptionError, match="no header: give the column's number"):
            fb.load_data(path, label_column="label")
        with pytest.raises(InputError, match="a label column goes with CSV files"):
            fb.load_data("digits", label_column="label")


class TestHeader:
    def test_a_missing_value_in_the_first_row_is_no_header(self, tmp_path):
        text = table(Y, X).replace(",0,", ",?,", 1)
        with pytest.raises(DataError, match=r"has '\?' in row 1, column number 1, where a pixel"):
            fb.load_data(written(tmp_path / "d.csv", text))

    @pytest.mark.parametrize(
        ("header", "first"),
        [
            ([], ["000a", "beagle"]),
            (["file", "kind"], ["000a", "beagle"]),
            ([], ["000a.png", "beagle"]),
            (["foto", "rasse"], ["000a.png", "beagle"]),
        ],
    )
    def test_no_first_row_of_texts_is_lost(self, tmp_path, header, first):
        """The first class is not met again within the lines that are looked at."""
        rows = [
            first,
            *([f"{n:03}.png" if "." in first[0] else f"{n:03}b", "pug"] for n in range(9)),
        ]
        found = read_table(written(tmp_path / "d.csv", table(rows, header=header)))
        assert found.rows == 10
        assert found.text(0)[0] == first[0]

    @pytest.mark.parametrize("header", [["label", *"0123"], ["label", *"abcd"], ["", *"01234"]])
    def test_short_headers(self, tmp_path, header):
        rows = [[n % 2, 7, 250, n, 9] for n in range(20)]
        rows = rows if header[0] else [[n, *row] for n, row in enumerate(rows)]
        found = read_table(written(tmp_path / "d.csv", table(rows, header=header)))
        assert found.rows == 20
        assert found.names == tuple(header)


class TestForms:
    def test_gzip(self, tmp_path):
        packed = gzip.compress(table(Y, X).encode())
        (tmp_path / "d.csv.gz").write_bytes(packed)
        data = fb.load_data(tmp_path / "d.csv.gz")
        assert data.name == "d"
        np.testing.assert_array_equal(every(data), wanted())
        for damaged in (
            packed[:-9],
            packed[: len(packed) // 2],
            packed[:99] + b"xxxx" + packed[103:],
        ):
            (tmp_path / "d.csv.gz").write_bytes(damaged)
            with pytest.raises(DataError, match="is not an intact gzip file"):
                fb.load_data(tmp_path / "d.csv.gz")

    def test_a_small_file_that_unpacks_to_much(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fullback.data.tables.delimited.MAX_BYTES", 100_000)
        (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"0,1,2,3,4\n" * 100_000))
        with pytest.raises(DataError, match="has more than 100,000 characters"):
            fb.load_data(tmp_path / "d.csv.gz")

    def test_excel_of_a_german(self, tmp_path):
        """Semicolons, decimal commas, UTF-16 or sep= in front."""
        text = table(NAMES[Y], X / 16, header=["Klasse", *PIXELS], mark=";").replace(".", ",")
        for given in (text, "sep=;\n" + text):
            for encoding in ("utf-8-sig", "utf-16"):
                data = fb.load_data(written(tmp_path / "d.csv", given, encoding))
                assert data.x_train.dtype == np.float32
                counts = np.bincount(data.y_train) + np.bincount(data.y_test)
                assert sorted(counts) == sorted(np.bincount(Y))
                np.testing.assert_array_equal(every(data)[:, 1:].max(), 1)

    def test_other_encodings_are_named(self, tmp_path):
        path = written(tmp_path / "d.csv", table(NAMES[Y], X), "latin-1")
        with pytest.raises(DataError, match="is not text in UTF-8"):
            fb.load_data(path)

    def test_large_files_are_read_by_parts(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fullback.data.tables.delimited.AT_ONCE", 1000)
        path = written(tmp_path / "d.csv", table(Y, X))
        np.testing.assert_array_equal(every(fb.load_data(path)), wanted())
        path = written(tmp_path / "d.csv", table(Y, X) + "1,2,3\n")
        with pytest.raises(DataError, match="has 3 columns in row 601"):
            fb.load_data(path)


class TestLoadImages:
    def test_tables_with_and_without_labels(self, tmp_path):
        for text, names, labels in (
            (table(X), None, None),
            (table(X, header=PIXELS), None, None),
            (table(range(7, 7 + len(X)), X, header=["id", *PIXELS]), "7", None),
            (table(Y, X), None, Y),
            (table(X, NAMES[Y], header=[*PIXELS, "kind"]), None, NAMES[Y]),
        ):
            loaded = load_images(written(tmp_path / "d.csv", text), (1, 8, 8))
            np.testing.assert_array_equal(loaded.x.reshape(-1, 64), X)
            assert loaded.names[0] == (names or "0")
            assert loaded.numbered == (names is None)
            assert loaded.errors == []
            np.testing.assert_array_equal(loaded.labels, labels)
        with pytest.raises(DataError, match="has 64 pixels a line; expected 784"):
            load_images(written(tmp_path / "d.csv", table(X)), (1, 28, 28))

    def test_arrays(self, tmp_path):
        x = RNG.integers(0, 256, (9, 3, 5, 4), dtype=np.uint8)
        y = np.arange(9)
        np.savez(tmp_path / "a.npz", x=x.transpose(0, 2, 3, 1), y=y)
        np.savez(tmp_path / "b.npz", x.reshape(9, -1))
        np.save(tmp_path / "c.npy", x)
        (tmp_path / "folder").mkdir()
        np.save(tmp_path / "folder" / "x_test.npy", x)
        for name, labels in (("a.npz", y), ("b.npz", None), ("c.npy", None), ("folder", None)):
            loaded = load_images(tmp_path / name, (3, 5, 4))
            np.testing.assert_array_equal(loaded.x, x)
            np.testing.assert_array_equal(loaded.labels, labels)
            assert loaded.names == tuple("012345678")
            np.testing.assert_array_equal(
                load_images(tmp_path / name, (3, 5, 4), invert=True).x, 255 - x
            )
        with pytest.raises(
            DataError, match=r"has an array of shape \(9, 3, 5, 4\); expected image"
        ):
            load_images(tmp_path / "c.npy", (1, 5, 4))

    def test_folders_and_files(self, tmp_path):
        from PIL import Image

        (tmp_path / "f" / "deep").mkdir(parents=True)
        for n, name in enumerate(("b.png", "deep/a.png", "a.png")):
            Image.fromarray(np.full((8, 8), n, np.uint8)).save(tmp_path / "f" / name)
        (tmp_path / "f" / "notes.txt").write_text("no image")
        loaded = load_images(tmp_path / "f", (1, 8, 8))
        assert loaded.names == ("a.png", "b.png", "deep/a.png")
        assert loaded.x[:, 0, 0, 0].tolist() == [2, 0, 1]
        assert ["notes.txt" in str(error) for error in loaded.errors] == [True]
        assert load_images(tmp_path / "f" / "b.png", (1, 8, 8), invert=True).x.min() == 255
        for name in ("f/notes.txt", "f/none.png"):
            with pytest.raises(DataError, match=r"no such file|no image"):
                load_images(tmp_path / name, (1, 8, 8))


class TestParts:
    def test_a_column_says_what_a_row_is_for(self, tmp_path):
        said = np.array(["Training", "PublicTest", "PrivateTest"])[np.arange(len(Y)) % 3]
        text = table(Y, X, said, header=["emotion", *PIXELS, "Usage"])
        data = fb.load_data(written(tmp_path / "d.csv", text))
        np.testing.assert_array_equal(data.x_train.reshape(-1, 64), X[::3])
        np.testing.assert_array_equal(data.y_val, Y[1::3])
        np.testing.assert_array_equal(data.y_test, Y[2::3])

    def test_what_is_refused(self, tmp_path):
        for said, message in (
            (["train", "fest"], "column 'split' says 'fest' in row 2; expected train, test or val"),
            (["test", "val"], "column 'split' says of no row that it is for training"),
        ):
            column = [said[n % 2] for n in range(len(Y))]
            text = table(Y, X, column, header=["label", *PIXELS, "split"])
            with pytest.raises(DataError, match=message):
                fb.load_data(written(tmp_path / "d.csv", text))


class TestNumbers:
    """Numbers to predict, in place of classes."""

    def test_csv(self, tmp_path):
        y = RNG.normal(40, 30, (len(X), 2))
        header = ["age", *PIXELS, "height"]
        for text, column, wanted_y in (
            (table(y[:, 0], X), None, y[:, 0]),
            (table(X, y[:, 1], header=[*PIXELS, "age"]), None, y[:, 1]),
            (table(y[:, 0], X, y[:, 1], header=header), "age,height", y),
            (table(y[:, 0], X, y[:, 1]), "0,-1", y),
        ):
            path = written(tmp_path / "d.csv", text)
            data = fb.load_data(path, numbers=True, label_column=column)
            assert data.numbers
            assert data.classes == 0
            assert data.outputs == (1 if wanted_y.ndim == 1 else 2)
            assert data.y_train.dtype == np.float64
            both = np.concatenate([data.y_train, data.y_test])
            np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(wanted_y, axis=0))
        with pytest.raises(DataError, match="which of its 66 columns holds the numbers to predict"):
            fb.load_data(path, numbers=True)
        path = written(tmp_path / "d.csv", table(NAMES[Y], X, header=["age", *PIXELS]))
        with pytest.raises(DataError, match="the label column 'age' has 'zero' in row 1; expected"):
            fb.load_data(path, numbers=True)

    def test_arrays_and_batches(self, tmp_path):
        x, y = X.reshape(-1, 8, 8).astype(np.uint8), RNG.normal(size=(len(X), 3))
        np.savez(tmp_path / "a.npz", x=x, y=y)
        np.save(tmp_path / "x.npy", x)
        np.save(tmp_path / "y.npy", y)
        first = fb.load_data(tmp_path / "a.npz", numbers=True)
        for source in (tmp_path, [(x[:200], y[:200]), (x[200:], y[200:])]):
            data = fb.load_data(source, numbers=True)
            np.testing.assert_array_equal(data.x_train, first.x_train)
            np.testing.assert_array_equal(data.y_test, first.y_test)
        assert repr(data).endswith("3 numbers each)")
        assert len(data.x_test) == 120
        np.savez(tmp_path / "a.npz", x=x, y=np.where(y > 3, np.nan, y))
        with pytest.raises(DataError, match=r"y holds NaN or infinity in \d+ of 600 rows"):
            fb.load_data(tmp_path / "a.npz", numbers=True)

    def test_idx_files(self, tmp_path):
        x, y = X.reshape(-1, 8, 8).astype(np.uint8), RNG.normal(size=len(X))  # each number once
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(x))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(y))
        for source in (tmp_path, tmp_path / "train-images-idx3-ubyte"):
            data = fb.load_data(source, numbers=True)
            np.testing.assert_array_equal(np.sort([*data.y_train, *data.y_test]), np.sort(y))
            assert data.numbers
            assert len(data.x_test) == 120

    def test_what_has_no_numbers(self, tmp_path):
        (tmp_path / "cat").mkdir()
        with pytest.raises(InputError, match="holds classes, and no numbers to predict"):
            fb.load_data(tmp_path, numbers=True)
        assert fb.load_data("digits", numbers=True).y_train.dtype == np.float64
        with pytest.raises(InputError, match="class_names goes with classes"):
            fb.Dataset("d", *[np.zeros((4, 1, 2, 2)), np.zeros(4)] * 2, ("a",), numbers=True)


class TestImageList:
    @pytest.fixture
    def folder(self, tmp_path):
        from PIL import Image

        (tmp_path / "images").mkdir()
        for n in range(60):
            picture = (X[n].reshape(8, 8) * 15).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / f"{n:03}.png")
        return tmp_path

    def test_labels_parts_and_folders(self, folder):
        files = [f"{n:03}" for n in range(60)]
        within = [f"images/{name}.png" for name in files]
        windows = [name.replace("/", "\\") for name in within]
        parts = ["train"] * 40 + ["val"] * 8 + ["test"] * 12
        images = folder / "images"
        for text, where in (
            (table(within, NAMES[Y[:60]], header=["file", "label"]), None),
            (table(windows, NAMES[Y[:60]]), None),
            (table(files, NAMES[Y[:60]], header=["id", "breed"]), images),
            (table(NAMES[Y[:60]], within, parts, header=["kind", "image", "split"]), None),
        ):
            path = written(folder / "list.csv", text)
            data = fb.load_data(path, image_folder=where)
            assert data.class_names[2:4] == ("acht", "drei")
            assert data.x_train.shape[1:] == (1, 8, 8)
            assert [len(data.x_train), len(data.x_test)] == [40 if "val" in text else 48, 12]
            names = np.array(data.class_names)[data.y_train]
            for image, name in zip(data.x_train, names, strict=True):
                place = np.flatnonzero((X[:60] * 15 == image.reshape(-1)).all(axis=1))[0]
                assert NAMES[Y[place]] == name
            loaded = load_images(path, (1, 8, 8), image_folder=where)
            np.testing.assert_array_equal(loaded.labels, NAMES[Y[:60]])
            np.testing.assert_array_equal(loaded.x.reshape(60, 64), X[:60] * 15)
        assert len(data.x_val) == 8

    def test_numbers(self, folder):
        within = [f"images/{n:03}.png" for n in range(60)]
        y = RNG.normal(size=(60, 2))
        path = written(folder / "list.csv", table(within, y, header=["file", "x", "y"]))
        data = fb.load_data(path, numbers=True)
        assert data.outputs == 2
        both = np.concatenate([data.y_train, data.y_test])
        np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(y, axis=0))

    def test_files_that_cannot_be_read_are_left_out(self, folder):
        within = [f"images/{n:03}.png" for n in range(58)] + ["images/none.png", "list.csv"]
        path = written(folder / "list.csv", table(within, Y[:60] % 3, header=["file", "label"]))
        with pytest.warns(FullbackWarning) as told:
            data = fb.load_data(path)
        assert len(data.x_train) + len(data.x_test) == 58
        assert "2 of 60 files in" in str(told[-1].message)
        loaded = load_images(path, (1, 8, 8))
        assert len(loaded.errors) == 2
        assert loaded.failed == ("images/none.png", "list.csv")
        assert loaded.names == tuple(within[:58])

    @pytest.mark.parametrize(
        "name", ["../secret.png", "/etc/hostname", "images/link.png", "..\\secret.png", "a\x07/.."]
    )
    def test_no_name_leads_out_of_the_folder(self, folder, name):
        from PIL import Image

        inner = folder / "inner"
        inner.mkdir()
        (folder / "images").rename(inner / "images")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "secret.png")
        (inner / "images" / "link.png").symlink_to(folder / "secret.png")
        text = table(["images/001.png", name], [0, 1], header=["file", "label"])
        path = written(inner / "list.csv", text)
        if name.startswith("a"):
            with pytest.warns(FullbackWarning), pytest.raises(DataError, match="one image"):
                fb.load_data(path)
            return
        with pytest.raises(DataError, match="in row 2 leads out of "):
            fb.load_data(path)
        with pytest.raises(DataError, match="in row 2 leads out of "):
            load_images(path, (1, 8, 8))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("file,label\n000.png,1\n001.png,0\n", "not one of its 2 files is in .*--image-folder"),
            ("file\nimages/000.png\nimages/001.png\n", "has no label column beside its files"),
            (
                "file,a,b\n" + "images/000.png,1,2\nimages/001.png,0,1\n" * 2,
                "'a', 'b' could each be the label column",
            ),
        ],
    )
    def test_what_is_refused(self, folder, text, message):
        with pytest.raises(DataError, match=message):
            fb.load_data(written(folder / "list.csv", text))

    def test_options_that_do_not_go_with_it(self, folder, tmp_path):
        for source in ("digits", written(tmp_path / "d.csv", table(Y, X))):
            with pytest.raises(InputError, match="image folder"):
                fb.load_data(source, image_folder=folder)
        with pytest.raises(OptionError, match="label_column must be a name or a number"):
            fb.load_data(tmp_path / "d.csv", label_column=[1])


class TestNames:
    def test_one_unicode_form(self, tmp_path):
        """Composed and decomposed letters are one class, from a table and from Python."""
        names = np.array(["caf\u00e9", "cafe\u0301", "tea"])
        data = fb.load_data(written(tmp_path / "d.csv", table(names[Y % 3], X)))
        assert data.class_names == ("caf\u00e9", "tea")
        assert (np.bincount(data.y_train) + np.bincount(data.y_test)).tolist() == [
            int((Y % 3 < 2).sum()),
            int((Y % 3 == 2).sum()),
        ]
        x, y = np.zeros((6, 1, 2, 2), np.uint8), np.array([0, 1, 2, 3, 1, 3])
        data = fb.Dataset("d", x, y, x, y, ("e\u0301", "b", "\u00e9", "c"))
        assert data.class_names == ("\u00e9", "b", "c")
        assert data.y_train.tolist() == data.y_test.tolist() == [0, 1, 0, 2, 1, 2]


class TestArrayAdvice:
    @pytest.mark.parametrize(
        ("x", "advice"),
        [
            (
                np.full((2, 1, 2, 2), 600, np.uint16),
                "from 600 to 600, do not fit into uint8: .*32'",
            ),
            (
                np.full((2, 1, 2, 2), -3, np.int16),
                r"do not fit into uint8: .*\.astype\('float32'\)",
            ),
            (np.full((2, 1, 2, 2), 255, np.int64), r"fit: convert it with \.astype\('uint8'\)"),
            (np.full((2, 1, 2, 2), 2**40, np.int64), r"\.astype\('float64'\)"),
            (np.zeros((2, 1, 2, 2), bool), r"convert it with \.astype\('float32'\), to 0 and 1"),
            (np.zeros((2, 1, 2, 2), np.float16), r"convert it with \.astype\('float32'\)$"),
            (np.zeros((2, 1, 2, 2), complex), "give an array of numbers"),
            ([[[[1, 2], [3]]]], "x_train cannot be read as an array .*rows are as long as each"),
        ],
    )
    def test_what_to_convert_to(self, x, advice):
        with pytest.raises(InputError, match=advice):
            fb.Dataset("d", x, np.zeros(2, int), x, np.zeros(2, int))

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '|u1', 'fortran_order': False, 'shape': ((0, 6, 5), }",
            "{'descr': '<c16', 'fortran_order': False, 'shape': (-1, 6, 5), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1if 1else 2), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -6, 5), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1, " * 70 + "120), }",
            "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (120,), }",
        ],
    )
    def test_one_reader_of_headers(self, tmp_path, header):
        """What is wrong in an .npy file is wrong in the same words in an .npz file."""
        text = header.encode() + b" " * (245 - len(header)) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(120)
        (tmp_path / "x.npy").write_bytes(content)
        np.save(tmp_path / "y.npy", np.arange(4))
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.write(tmp_path / "x.npy", "x.npy")
            archive.write(tmp_path / "y.npy", "y.npy")
        told = []
        for source in (tmp_path, tmp_path / "a.npz"):
            with pytest.raises(DataError) as caught:
                fb.load_data(source)
            told.append(str(caught.value).split("x", 1)[-1].split(" ", 1)[1])
        assert told[0] == told[1]
        assert "\n" not in told[0]


class TestCommands:
    def test_the_label_column_goes_with_the_model(self, tmp_path):
        path = written(tmp_path / "d.csv", table(X[:, :30], Y, X[:, 30:]))
        model = tmp_path / "m.safetensors"
        text = run("data", path)
        assert text.code == 1
        assert "which of its 65 columns holds the labels is not clear" in text.err
        short = ("--net", "flatten dense10", "--epochs", "1", "--out", model)
        run("train", "--data", path, "--label-column", "30", *short)
        assert fb.load(model).data_options == {"label_column": "30"}
        text = run("eval", model, "--data", path).out
        assert "120 test images" in text
        assert "labels are in column number 30, as given" in text
        text = run("predict", model, path, "--out", tmp_path / "o.csv").out
        assert "labels are in column number 30, as given" in text
        assert "answers are those of the data's labels" in text
        bare = written(tmp_path / "bare.csv", table(X))
        text = run("predict", model, bare, "--out", tmp_path / "o2.csv").out
        assert "written" in text
        assert "labels" not in text
        with (tmp_path / "o.csv").open() as one, (tmp_path / "o2.csv").open() as other:
            assert one.read() == other.read()
        asked = run("eval", model, "--data", path, "--label-column", "nix")
        assert asked.code == 2
        assert "has no header: give the column's number, from 0" in asked.err.replace("\n", " ")

    def test_predict_takes_a_list_of_files(self, tmp_path):
        """A file that is not there gets a line, and the exit code is 1."""
        from PIL import Image

        images = tmp_path / "images"
        images.mkdir()
        for n in range(3):
            Image.fromarray(np.full((8, 8), 80 * n, np.uint8)).save(images / f"{n}.png")
        net = fb.Network.parse("flatten dense2", (1, 8, 8))
        net.save(tmp_path / "m.safetensors")
        path = written(tmp_path / "list.csv", "id\n0.png\n9.png\n2.png\n")
        ran = run("predict", tmp_path / "m.safetensors", path, "--image-folder", images)
        assert ran.code == 1
        assert "9.png" in ran.err
        assert "0.png" in ran.out
        assert "2.png" in ran.out

    def test_notes_are_shown(self, tmp_path):
        path = written(tmp_path / "d.csv", table(X, Y, header=[*PIXELS, "kind"]))
        assert "labels are in column 'kind'" in run("data", path).out


def test_columns_that_are_not_pixels_are_left_out(tmp_path):
    """A text and a number beside the label and the pixels, which are named alike."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (30, 16))
    header = ["kind", "side", "age", *(f"pixel{n}" for n in range(16))]
    rows = [["ab"[n % 2], "lr"[n % 3 == 0], n % 7, *row] for n, row in enumerate(x.tolist())]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    data = fb.load_data(path, label_column="kind")
    assert data.image_shape == (1, 4, 4)
    assert data.class_names == ("a", "b")
    assert data.notes[-1] == "left out, as not named as the 16 pixels are: 'side', 'age'"
    with pytest.raises(DataError, match=r"could|not clear|where a pixel is expected"):
        fb.load_data(path)
    loaded = load_images(path, (1, 4, 4), label_column="kind")
    assert sorted(loaded.x.reshape(30, -1).tolist()) == sorted(x.tolist())
