"""Folders of images as others made them: how they lie, their sizes, their depths, their parts."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.data import Dataset, load_image
from fullback.data.describe import describe
from fullback.data.image_files.image_sizes import Opened, chosen_shape
from fullback.errors import DataError, FullbackWarning, InputError, ShapeError
from support.command import posix, run

RNG = np.random.default_rng(0)


def picture(path, size=(20, 20), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def array(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def classes(folder, names=("cat", "dog"), count=6, **options):
    for name in names:
        for n in range(count):
            picture(folder / name / f"{n}.png", **options)
    return folder


def refused(folder, **options):
    with pytest.raises(DataError) as caught:
        fb.load_data(folder, **options)
    text = str(caught.value)
    assert text.startswith(str(folder))
    assert "\n" not in text
    return text.replace(str(folder), "FOLDER")


class TestWrongFolder:
    """What is given in place of the folder in which the class folders lie."""

    def test_one_too_high(self, tmp_path):
        classes(tmp_path / "photos" / "dataset")
        text = refused(tmp_path / "photos")
        assert "has the one folder dataset, in which there are folders and no images" in text
        assert text.endswith("the classes are cat, dog: give FOLDER/dataset")

    def test_two_too_high_beside_what_a_mac_leaves(self, tmp_path):
        for part in ("train", "test", "val"):
            classes(tmp_path / "a" / "chest" / part)
        (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
        (tmp_path / ".DS_Store").write_bytes(b"")
        (tmp_path / "desktop.ini").write_text("")
        assert refused(tmp_path).endswith("the classes are test, train, val: give FOLDER/a/chest")
        assert len(fb.load_data(tmp_path / "a" / "chest").x_val) == 12

    def test_one_too_deep(self, tmp_path):
        text = refused(classes(tmp_path / "photos") / "cat")
        assert (
            "FOLDER: holds 6 files (0.png, 1.png, 2.png, 3.png, ...) and no class folders" in text
        )
        assert "expected a folder a class" in text
        assert text.endswith(f"if 'cat' is one of the classes, give {tmp_path / 'photos'}")

    def test_images_that_lie_flat(self, tmp_path):
        for n in range(6):
            picture(tmp_path / "photos" / f"{('cat', 'dog')[n % 2]}.{n}.jpg")
        text = refused(tmp_path / "photos")
        assert "begin with cat, dog: if these are the classes, move the files into folders" in text

    def test_a_table_beside_the_images(self, tmp_path):
        classes(tmp_path, ("images",))
        (tmp_path / "labels.csv").write_text("file,label\n0.png,cat\n")
        with pytest.warns(FullbackWarning, match="labels.csv"):
            text = refused(tmp_path)
        assert text.endswith("or give FOLDER/labels.csv, if it says the class of each image")

    def test_one_class(self, tmp_path):
        classes(tmp_path, ("cat",))
        (tmp_path / "dog").mkdir()
        text = refused(tmp_path)
        assert "all its images are of one class, 'cat' (dog: no images)" in text
        assert "needs two or more" in text

    @pytest.mark.parametrize("name", ["train", "Training"])
    def test_training_images_alone(self, tmp_path, name):
        classes(tmp_path / name)
        text = refused(tmp_path)
        assert f"has a folder {name}, but none for testing; call it one of test, testing" in text
        assert f"or give FOLDER/{name}, of which a share is then kept for testing" in text
        assert len(fb.load_data(tmp_path / name).x_test) == 3

    def test_classes_one_deeper(self, tmp_path):
        classes(tmp_path / "animal")
        classes(tmp_path / "plant", ("rose", "tulip"))
        text = refused(tmp_path)
        assert "its folders animal, plant hold folders and no images; with --nested" in text
        assert text.endswith("or give the folder in which your classes are, as FOLDER/animal")
        data = fb.load_data(tmp_path, nested=True)
        assert data.class_names == ("animal", "plant")
        assert len(data.x_train) + len(data.x_test) == 24
        done = run("data", tmp_path, "--nested", "--json")
        assert (done.code, '"class_names": ["animal", "plant"]' in done.out) == (0, True)

    @pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "photo.JPG"])
    def test_a_file(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"PK")
        text = refused(tmp_path / name)
        wanted = "is one image" if name.endswith("JPG") else "is an archive; unpack it"
        assert text.startswith(f"FOLDER: {wanted}")

    def test_nothing(self, tmp_path):
        assert "holds no images and no IDX, .npy or .parquet files" in refused(tmp_path)

    def test_at_the_command_line(self, tmp_path):
        classes(tmp_path / "photos" / "dataset")
        done = run("train", "--data", tmp_path / "photos", "--out", tmp_path / "m.safetensors")
        assert done.code == 1
        assert f"give {tmp_path / 'photos' / 'dataset'}" in done.err.replace("\n", "")
        assert not (tmp_path / "m.safetensors").exists()


class TestOneClass:
    """Whatever the data comes from; but a data set that is made by hand may have one class."""

    def test_arrays(self, tmp_path):
        x, y = np.zeros((20, 1, 4, 4), np.uint8), np.full(20, 3)
        message = "all training images have the label 3, and a classifier needs two classes or more"
        np.savez(tmp_path / "a.npz", x=x, y=y)
        np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x, y_test=np.arange(20))
        for name in ("a.npz", "b.npz"):
            with pytest.raises(DataError, match=message):
                fb.load_data(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            fb.load_data([(x, y)])
        data = Dataset("hand", x, y, x, y)
        assert "all training images are of one class" in describe(data).remarks[0]


class TestParts:
    def test_validation_images_of_its_own(self, tmp_path):
        for part, count in (("train", 6), ("test", 3), ("valid", 2)):
            classes(tmp_path / part, count=count)
        data = fb.load_data(tmp_path)
        assert (len(data.x_train), len(data.x_test), len(data.x_val)) == (12, 6, 4)
        assert data.y_val.tolist() == [0, 0, 1, 1]
        assert data.notes == ()
        assert "12 training, 4 validation and 6 test images" in repr(data)
        done = run("data", tmp_path)
        assert done.code == 0
        assert "validation" in done.out
        assert max(map(len, done.out.splitlines())) <= 80

    @pytest.mark.parametrize("parts", [("train", "val"), ("Training", "Testing")])
    def test_two_parts(self, tmp_path, parts):
        for part in parts:
            classes(tmp_path / part)
        data = fb.load_data(tmp_path)
        assert data.x_val is None
        assert (len(data.x_train), len(data.x_test)) == (12, 12)
        wanted = ("the images of val are the test images, as there is no folder test",)
        assert data.notes == (wanted if "val" in parts else ())

    @pytest.mark.parametrize("val", [False, True])
    def test_test_images_without_labels(self, tmp_path, val):
        """As competitions have them."""
        for n in range(4):
            picture(tmp_path / "test" / f"{n}.jpg")
        for part in ("train", "val")[: 1 + val]:
            classes(tmp_path / part, count=10)
        with pytest.warns(FullbackWarning, match="test; its images are not in class folders"):
            data = fb.load_data(tmp_path)
        assert len(data.x_test) == (20 if val else 4)
        assert len(data.notes) == 1

    def test_a_class_that_is_not_trained_on(self, tmp_path):
        for part in ("train", "test"):
            classes(tmp_path / part)
        classes(tmp_path / "val", ("cat", "cow"))
        assert "FOLDER/val: has the class 'cow', which FOLDER/train does not have" in refused(
            tmp_path
        )

    def test_checks_of_a_data_set(self):
        x, y = np.zeros((4, 1, 3, 3), np.uint8), np.arange(4)
        four = ("toy", x, y, x, y)
        assert Dataset(*four, x_val=x, y_val=y + 2).classes == 6
        for val, error, text in (
            ({"x_val": x}, InputError, "x_val and y_val go together"),
            ({"x_val": x[:, :, 1:], "y_val": y}, ShapeError, "but x_val of shape"),
            ({"x_val": x / 255, "y_val": y}, InputError, "but x_val is float64"),
            ({"x_val": x, "y_val": y[1:]}, ShapeError, "y_val has 3 labels"),
        ):
            with pytest.raises(error, match=text):
                Dataset(*four, **val)


class TestNames:
    def test_a_class_that_is_called_train(self, tmp_path):
        data = fb.load_data(classes(tmp_path, ("bus", "car", "train")))
        assert data.class_names == ("bus", "car", "train")
        classes(tmp_path, ("test1",))  # now it is rather a part
        with pytest.warns(FullbackWarning, match="bus and 2 more"):
            assert "train: holds 6 files" in refused(tmp_path)

    def test_one_class_in_two_unicode_forms(self, tmp_path):
        """Composed and decomposed: files from Windows and from a Mac."""
        forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
        assert forms[0] != forms[1]
        for form in forms:
            classes(tmp_path / "train", (form, "thé"), count=3)
        classes(tmp_path / "test", (forms[1],), count=3)
        data = fb.load_data(tmp_path)
        assert data.class_names == (forms[0], "thé")
        assert np.bincount(data.y_train).tolist() == [6, 3]
        assert data.y_test.tolist() == [0, 0, 0]

    def test_nearly_the_same(self, tmp_path):
        data = fb.load_data(classes(tmp_path, ("Cat", "cat ", "dog")))
        assert "the classes 'Cat' and 'cat ' have nearly the same name" in describe(data).remarks


class TestLeftOut:
    @posix
    def test_links_that_lead_back(self, tmp_path):
        classes(tmp_path)
        (tmp_path / "cat" / "loop").symlink_to(tmp_path)
        (tmp_path / "dog" / "loop.png").symlink_to("loop.png")
        for nested in (False, True):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                data = fb.load_data(tmp_path, nested=nested)
            text = " ".join(str(warning.message) for warning in told)
            assert "loop.png" in text
            assert ("deeper without --nested" in text) == (not nested)
            # By way of the link, the images of both classes lie below cat.
            assert len(data.x_train) + len(data.x_test) == (24 if nested else 12) - 6 * nested

    def test_what_systems_leave_is_not_told(self, tmp_path):
        classes(tmp_path)
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png"):
            (tmp_path / "cat" / name).write_bytes(b"x")
        assert len(fb.load_data(tmp_path).x_train) == 9

    def test_a_folder_that_cannot_be_listed(self, tmp_path, monkeypatch):
        classes(tmp_path, ("cat", "cow", "dog"))
        listed = Path.iterdir

        def iterdir(path):
            if path.name == "cow":
                raise PermissionError(13, "Permission denied")
            return listed(path)

        monkeypatch.setattr(Path, "iterdir", iterdir)
        with pytest.warns(FullbackWarning, match=r"cow: cannot be listed \(Permission denied\)"):
            assert fb.load_data(tmp_path).classes == 2


class TestSizes:
    def test_thumbnails_do_not_decide(self, tmp_path):
        """40 photographs of 40 sizes, and the commonest size is that of 4 thumbnails."""
        for n in range(40):
            picture(tmp_path / "ab"[n % 2] / f"{n}.jpg", (200 + 7 * n, 210 + 5 * (7 * n % 40)))
        for n in range(4):
            picture(tmp_path / "ab"[n % 2] / f"thumbnail {n}.jpg", (9, 9))
        data = fb.load_data(tmp_path)
        assert data.image_shape == (3, 64, 64)
        (note,) = data.notes
        assert note.startswith("images of 41 sizes from 9 x 9 to ")
        assert note.endswith(
            "are brought to 64 x 64, stretched; --image-size (image_shape) sets another size"
        )

    @pytest.mark.parametrize(
        ("sizes", "wanted"),
        [
            ([(28, 28)] * 9, (28, 28)),
            ([(600, 400)] * 9, (600, 400)),  # all alike: nothing is lost
            ([(28, 28)] * 6 + [(90, 90)] * 4, (28, 28)),
            ([(300, 400)] * 6 + [(90, 90)] * 4, (48, 64)),
            ([(30 + n, 40 + n) for n in range(9)], (34, 44)),
            ([(300 + n, 400) for n in range(9)], (49, 64)),
            ([(400, 300 + n) for n in range(9)], (64, 49)),
            ([(300 + n, 400) for n in range(9)] + [(400, 300 + n) for n in range(5)], (64, 64)),
            ([(20, 20)] * 5 + [(40, 40)] * 5, (30, 30)),
        ],
    )
    def test_a_size_that_fits_most(self, sizes, wanted):
        found = [Opened(size, coloured=False, deep=False) for size in sizes]
        assert chosen_shape(found, None, "stretch")[0] == (1, *wanted)

    @pytest.mark.parametrize(
        ("sizes", "text"),
        [
            ([(2000 + n, 3000) for n in range(9)], "100% of the images shrink to 1/8"),
            ([(9, 9)] * 7 + [(200, 200)] * 3, "30% of the images shrink to 1/8 .* at 9 x 9"),
            ([(60, 60)] * 7 + [(20, 20)] * 3, "30% of the images grow to 2 times"),
        ],
    )
    def test_strong_changes_are_told(self, sizes, text):
        found = [Opened(size, coloured=False, deep=False) for size in sizes]
        with pytest.warns(FullbackWarning, match=text):
            chosen_shape(found, None, "stretch")
        chosen_shape(found, (32, 32), "stretch")  # asked for: no warning

    def test_a_large_size_that_is_kept_is_told(self):
        found = [Opened((300, 400), coloured=True, deep=False)] * 3
        shape, notes = chosen_shape(found, None, "stretch")
        assert shape == (3, 300, 400)
        assert "images keep their 300 x 400; --image-size" in notes[0]


class TestDepths:
    def test_sixteen_bits(self, tmp_path):
        """As radiographs come: with 8 bits all values would be 2."""
        for n in range(12):
            pixels = RNG.integers(600, 661, (20, 20)).astype(np.uint16)
            array(tmp_path / "ab"[n % 2] / f"{n}.png", pixels)
        with pytest.warns(FullbackWarning, match=r"up to 0\.01007.*660 of 65535.*with normalize"):
            data = fb.load_data(tmp_path)
        assert data.x_train.dtype == data.x_test.dtype == np.float32
        assert len(np.unique(data.x_train)) == 61
        assert (data.x_train.min(), data.x_train.max()) == pytest.approx((600 / 65535, 660 / 65535))
        assert data.notes == ("16-bit images are float32 from 0 (black) to 1 (white)",)
        with pytest.warns(FullbackWarning, match="normalize"):
            assert "all images are dark" in describe(fb.load_data(tmp_path)).remarks[0]

    @pytest.mark.parametrize("first", [True, False])
    def test_eight_and_sixteen_bits(self, tmp_path, first):
        for part, wide in (("train", not first), ("test", first)):
            for n in range(4):
                path = tmp_path / part / "ab"[n % 2] / f"{n}.png"
                array(path, np.full((5, 5), 51 * n, np.uint8))
            if wide:
                array(tmp_path / part / "a" / "wide.png", np.full((5, 5), 16_383, np.uint16))
        data = fb.load_data(tmp_path)
        both = np.concatenate([data.x_train, data.x_test])
        assert both.dtype == np.float32
        assert np.unique(both) == pytest.approx([0, 0.2, 16_383 / 65535, 0.4, 0.6])
        assert data.notes == (
            "16-bit images and 8-bit images are float32 from 0 (black) to 1 (white)",
        )

    def test_floating_point_pixels(self, tmp_path):
        values = RNG.normal(400, 900, (12, 20, 20)).astype(np.float32)
        for n, pixels in enumerate(values):
            array(tmp_path / "ab"[n % 2] / f"{n}.tif", pixels)
        data = fb.load_data(tmp_path)
        assert data.x_train.max() in values
        assert data.notes == (
            "floating-point pixels are float32, with the values that the files have",
        )
        assert "begin the network with normalize" in describe(data).remarks[0]
        values[0, 3, 3] = np.nan
        array(tmp_path / "a" / "0.tif", values[0])
        with pytest.warns(FullbackWarning) as told:
            fb.load_data(tmp_path)
        assert "0.tif: has floating-point pixels of which 1 are NaN" in str(told[0].message)
        picture(tmp_path / "b" / "8 bits.png", mode="L")
        text = refused(tmp_path)
        assert "FOLDER/a/2.tif has floating-point pixels, whose black and white are not" in text
        assert "FOLDER/b/8 bits.png has pixels of 8 bits; bring all images to one kind" in text

    def test_colours_of_sixteen_bits(self, tmp_path):
        for n in range(12):
            pixels = RNG.integers(0, 2**16, (5, 5, 3)).astype(">u2")
            path = tmp_path / "ab"[n % 2] / f"{n}.ppm"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"P6 5 5 65535\n" + pixels.tobytes())
        data = fb.load_data(tmp_path)
        assert data.x_train.dtype == np.uint8
        assert data.notes == ("12 colour images of 16 bits a channel are read with 8 bits",)

    def test_from_training_to_an_answer(self, tmp_path):
        """A network that was trained on 16-bit files answers to them at the command line."""
        for n in range(60):
            low = 600 if n % 2 else 640
            pixels = RNG.integers(low, low + 20, (8, 8)).astype(np.uint16)
            array(tmp_path / "x" / "ab"[n % 2] / f"{n}.png", pixels)
        with pytest.warns(FullbackWarning, match="normalize"):
            data = fb.load_data(tmp_path / "x")
        net = fb.Network.parse("normalize flatten dense2", data.image_shape, seed=0)
        fb.fit(net, data.x_train, data.y_train, epochs=20, batch_size=8, verbose=False)
        assert net.score(data.x_test, data.y_test) == 1
        fb.save(net, tmp_path / "m.safetensors")
        done = run(
            "predict", tmp_path / "x" / "a" / "0.png", tmp_path / "x" / "b" / "1.png",
            "--model", tmp_path / "m.safetensors", "--json",
        )  # fmt: skip
        assert done.code == 0
        assert ['"label": 0' in done.out, '"label": 1' in done.out] == [True, True]
        image = load_image(tmp_path / "x" / "a" / "0.png", (1, 8, 8))
        assert image.for_network(net.trained_on) == pytest.approx(image.pixels)
        picture(tmp_path / "8 bits.png", mode="L")
        files = (tmp_path / "x" / "a" / "0.png", tmp_path / "8 bits.png")
        done = run("predict", *files, "--model", tmp_path / "m.safetensors")
        text = " ".join(done.err.split())
        assert "but the network was trained on images from 0.0091" in text


def test_files_of_many_kinds(tmp_path):
    """Every mode and format that photographs, scans and drawings come in, in one folder."""
    for name in "ab":
        for mode in ("RGB", "L", "P", "1", "LA", "RGBA"):
            picture(tmp_path / name / f"{mode}.png", mode=mode)
        for mode in ("1", "L", "CMYK", "RGB"):
            picture(tmp_path / name / f"{mode}.tif", mode=mode)
        picture(tmp_path / name / "CMYK.jpg", mode="CMYK")
        picture(tmp_path / name / "progressive.jpg", progressive=True)
        frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
        for kind in ("gif", "webp"):
            frames[0].save(tmp_path / name / f"i.{kind}", save_all=True, append_images=frames[1:])
        picture(tmp_path / name / "cut.jpg")
        whole = (tmp_path / name / "cut.jpg").read_bytes()
        (tmp_path / name / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(FullbackWarning) as told:
        data = fb.load_data(tmp_path)
    assert len(data.x_train) + len(data.x_test) == 28
    assert data.image_shape == (3, 20, 20)
    assert "2 of 30 files in" in str(told[-1].message)
