"""People's own data: folders of images, .npy files that stay on the disk."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.errors import DataError, FullbackWarning, InputError, OptionError, ShapeError
from support.command import posix

RNG = np.random.default_rng(0)


def with_one_gibibyte():
    import resource  # POSIX only

    resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))


def picture(path, size=(6, 5), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Ten pictures a class."""
    for name in ("cat", "dog 2", "dog 10"):
        for n in range(10):
            picture(tmp_path / "pets" / name / f"{n}.png")
    return tmp_path / "pets"


class TestImageFolder:
    def test_classes_are_folders(self, folder):
        data = fb.load_data(folder)
        assert data.name == "pets"
        assert data.class_names == ("cat", "dog 2", "dog 10")  # 2 comes before 10
        assert data.image_shape == (1, 5, 6)
        assert (len(data.x_train), len(data.x_test)) == (24, 6)
        assert data.x_train.dtype == np.uint8
        assert np.bincount(data.y_test).tolist() == [2, 2, 2]

    @pytest.mark.parametrize("test", ["test", "val", "Validation"])
    def test_folders_for_training_and_testing(self, tmp_path, test):
        wanted = picture(tmp_path / "train" / "a" / "1.png")
        picture(tmp_path / "train" / "b" / "1.png")
        held = picture(tmp_path / test / "b" / "1.png")
        data = fb.load_data(tmp_path)
        np.testing.assert_array_equal(data.x_train[0, 0], wanted)
        np.testing.assert_array_equal(data.x_test[0, 0], held)
        assert data.y_train.tolist() == [0, 1]
        assert data.y_test.tolist() == [1]

    def test_the_commonest_size_and_the_colours_in_use(self, folder):
        for n in range(3):
            picture(folder / "cat" / f"large {n}.png", (60, 50))
        assert fb.load_data(folder).image_shape == (1, 5, 6)
        picture(folder / "cat" / "colour.jpg", mode="RGB")
        assert fb.load_data(folder).image_shape == (3, 5, 6)

    def test_photographs_of_different_sizes_are_made_small(self, tmp_path):
        for n in range(8):
            picture(tmp_path / "ab"[n % 2] / f"{n}.jpg", (400, 300 + n // 6))
        assert fb.load_data(tmp_path).image_shape == (1, 48, 64)

    @pytest.mark.parametrize("shape", [(4, 3), (1, 4, 3), (3, 4, 3)])
    def test_a_shape_of_ones_own(self, folder, shape):
        assert fb.load_data(folder, image_shape=shape).image_shape[-len(shape) :] == shape

    def test_photographs_that_lie_on_their_side(self, tmp_path):
        for n in range(4):
            exif = Image.Exif()
            exif[0x0112] = 6
            picture(tmp_path / "ab"[n % 2] / f"{n // 2}.jpg", (40, 30), exif=exif)
            picture(tmp_path / "ab"[n % 2] / f"{n // 2 + 9}.jpg", (40, 30), exif=exif)
        assert fb.load_data(tmp_path).image_shape == (1, 40, 30)

    def test_files_that_are_no_images_are_left_out_and_told(self, folder):
        (folder / "cat" / "notes.txt").write_text("a cat")
        (folder / "cat" / "empty.png").write_bytes(b"")
        whole = (folder / "cat" / "0.png").read_bytes()
        (folder / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
        (folder / "cat" / ".DS_Store").write_bytes(b"hidden")
        with pytest.warns(FullbackWarning) as told:
            data = fb.load_data(folder)
        assert len(data.x_train) + len(data.x_test) == 30
        texts = [str(warning.message) for warning in told]
        assert len(texts) == 4
        for name in ("notes.txt", "empty.png", "cut.png"):
            assert sum(f"{name}: " in text for text in texts) == 1
        assert texts[-1].startswith("3 of 33 files in ")

    @posix
    def test_what_is_no_file_is_not_opened(self, folder):
        os.mkfifo(folder / "cat" / "pipe.png")
        (folder / "cat" / "loop").symlink_to(folder)
        with pytest.warns(FullbackWarning, match="loop and 1 more; images are looked for in"):
            assert len(fb.load_data(folder).x_train) == 24

    def test_an_image_that_is_refused_does_not_decide(self, folder):
        picture(folder / "cat" / "f.eps", (20, 20), mode="RGB")
        with (
            pytest.warns(FullbackWarning, match="not an image of a known format"),
            pytest.warns(FullbackWarning, match="1 of 31 files"),
        ):
            assert fb.load_data(folder).image_shape == (1, 5, 6)

    def test_empty_folders_and_dangling_links_are_told(self, folder):
        (folder / "empty").mkdir()
        (folder / "cat" / "link.png").symlink_to(folder / "nowhere")
        with pytest.warns(FullbackWarning) as caught:
            fb.load_data(folder)
        told = " ".join(str(own.message) for own in caught)
        assert "empty" in told
        assert "link.png" in told

    def test_images_in_other_places_are_told(self, folder):
        picture(folder / "loose.png")
        picture(folder / "cat" / "deep" / "1.png")
        with pytest.warns(FullbackWarning) as told:
            fb.load_data(folder)
        texts = [str(warning.message) for warning in told]
        assert ["loose.png" in text for text in texts] == [True, False]
        assert "deep" in texts[1]

    def test_a_bomb_is_left_out(self, folder, monkeypatch):
        monkeypatch.setattr("fullback.data.image_files.image_formats.MOST_PIXELS", 100)
        picture(folder / "cat" / "bomb.png", (20, 20))
        with pytest.warns(FullbackWarning) as told:
            fb.load_data(folder)
        assert "bomb.png: has 20 x 20 pixels" in str(told[0].message)

    def test_what_is_refused(self, tmp_path, folder):
        (tmp_path / "none" / "a").mkdir(parents=True)
        picture(tmp_path / "half" / "train" / "a" / "1.png")
        picture(tmp_path / "more" / "train" / "a" / "1.png")
        picture(tmp_path / "more" / "test" / "b" / "1.png")
        picture(tmp_path / "few" / "a" / "1.png")
        picture(tmp_path / "more" / "train" / "c" / "1.png")
        picture(tmp_path / "half" / "train" / "c" / "1.png")
        (tmp_path / "text" / "b").mkdir(parents=True)
        (tmp_path / "text" / "b" / "1.png").write_text("no image")
        picture(tmp_path / "only" / "test" / "a" / "1.png")
        (tmp_path / "text" / "a").mkdir(parents=True)
        (tmp_path / "text" / "a" / "1.png").write_text("no image")
        for name, message in (
            ("none", "holds no images; expected a folder a class"),
            ("half", "has a folder train, but none for testing"),
            ("more", "has the class 'b', which .* does not have"),
            ("few", "all its images are of one class, 'a', and a classifier needs two or more"),
            ("text", "not one file in it can be read"),
            ("only", "has images for testing, but no folder train"),
        ):
            with pytest.raises(DataError, match=message):
                fb.load_data(tmp_path / name)
        for shape in ((5,), (0, 5), (2, 5, 5), (5.0, 5), (70_000, 5)):
            with pytest.raises(OptionError, match="image_shape must be"):
                fb.load_data(folder, image_shape=shape)
        with pytest.raises(DataError, match="need more than"):
            fb.load_data(folder, image_shape=(3, 20_000, 20_000))


class TestArrayFolder:
    def test_arrays_stay_on_the_disk(self, tmp_path):
        x, y = RNG.integers(0, 256, (30, 8, 6), dtype=np.uint8), np.arange(30) % 3
        for name, array in (("x_train", x), ("y_train", y), ("x_test", x[:9]), ("y_test", y[:9])):
            np.save(tmp_path / f"{name}.npy", array)
        data = fb.load_data(tmp_path)
        assert not data.x_train.flags.owndata
        np.testing.assert_array_equal(data.x_train[:, 0], x)
        networks = [fb.Network.parse("conv2 tanh flatten dense3", (1, 8, 6)) for _ in range(2)]
        fb.fit(networks[0], data.x_train, data.y_train, epochs=2, batch_size=8, verbose=False)
        fb.fit(networks[1], x[:, None], y, epochs=2, batch_size=8, verbose=False)
        np.testing.assert_array_equal(
            networks[0].parameters["conv1.weight"], networks[1].parameters["conv1.weight"]
        )

    def test_one_pair_is_split(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((30, 1, 4, 4), np.float32))
        np.save(tmp_path / "y.npy", np.arange(30) % 3)
        assert len(fb.load_data(tmp_path).x_test) == 6

    def test_damaged_files(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((30, 1, 4, 4), np.uint8))
        np.save(tmp_path / "y.npy", np.arange(30) % 3)
        good = (tmp_path / "x.npy").read_bytes()
        for content in (b"", b"nonsense", good[:60], good[:-1], good.replace(b"(30,", b"(3000,")):
            (tmp_path / "x.npy").write_bytes(content)
            with pytest.raises(DataError, match=r"x\.npy: (is not an array|should have)"):
                fb.load_data(tmp_path)
        np.save(tmp_path / "x.npy", np.array([{}] * 30), allow_pickle=True)
        with pytest.raises(DataError, match=r"x\.npy: has dtype object; expected plain numbers"):
            fb.load_data(tmp_path)
        np.save(tmp_path / "x.npy", np.array(["a"] * 30))
        with pytest.raises(DataError, match="expected plain numbers"):
            fb.load_data(tmp_path)

    @posix
    def test_more_images_than_there_is_memory_for(self, tmp_path):
        """A process that may use 1 GiB trains on 2 GiB, of which the disk stores no zeros."""
        shape = (2 * 2**30 // (64 * 64), 64, 64)
        np.lib.format.open_memmap(tmp_path / "x_train.npy", "w+", np.uint8, shape)
        np.save(tmp_path / "y_train.npy", np.arange(shape[0]) % 2)
        np.save(tmp_path / "x_test.npy", np.zeros((4, 64, 64), np.uint8))
        np.save(tmp_path / "y_test.npy", np.arange(4) % 2)
        script = f"""
import fullback as fb
data = fb.load_data({str(tmp_path)!r})
net = fb.Network.parse("avgpool16 flatten dense2", (1, 64, 64))
history = fb.fit(net, data.x_train, data.y_train, epochs=1, batch_size=1024, verbose=False)
assert len(history) == 1
"""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            capture_output=True,
            text=True,
            preexec_fn=with_one_gibibyte,
        )
        assert done.returncode == 0, done.stderr


class TestResizing:
    """A grey picture of 8 x 4 on its way to 4 x 4."""

    @pytest.fixture
    def wide(self, tmp_path):
        pixels = np.full((4, 8), 100, np.uint8)
        pixels[:, 2:6] = 200
        for n in range(6):
            path = tmp_path / "wide" / "ab"[n % 2] / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return tmp_path / "wide"

    def load(self, folder, resize):
        return fb.load_data(folder, image_shape=(4, 4), resize=resize, test_share=0.4)

    def test_pad_keeps_the_proportions(self, wide):
        data = self.load(wide, "pad")
        assert (data.x_train[0, 0, [0, 3]] == 0).all()
        assert data.x_train[0, 0, 1:3].min() >= 95

    def test_crop_cuts_off_the_sides(self, wide):
        assert (self.load(wide, "crop").x_train == 200).all()

    def test_stretch_shows_all(self, wide):
        image = self.load(wide, "stretch").x_train[0, 0]
        assert image[:, 0].max() < 150 < 180 < image[:, 1].min()

    def test_what_was_done_is_noted(self, wide):
        notes = self.load(wide, "pad").notes
        assert notes == ("images of 4 x 8 are brought to 4 x 4, padded with black",)
        assert fb.load_data(wide, test_share=0.4).notes == ()

    def test_what_is_no_way_to_resize(self, wide):
        with pytest.raises(OptionError, match="resize must be one of stretch, pad, crop"):
            self.load(wide, "fill")

    def test_palettes_of_greys_have_no_colours(self, tmp_path):
        grey = Image.fromarray(RNG.integers(0, 255, (5, 6), dtype=np.uint8))
        for name in "ab":
            for n in range(5):
                path = tmp_path / "p" / name / f"{n}.gif"
                path.parent.mkdir(parents=True, exist_ok=True)
                grey.convert("P").save(path)
        assert fb.load_data(tmp_path / "p").image_shape == (1, 5, 6)


class TestSplit:
    def test_share_and_seed(self, folder):
        data = fb.load_data(folder, test_share=0.5, split_seed=3)
        assert (len(data.x_train), len(data.x_test)) == (15, 15)
        assert np.bincount(data.y_test).tolist() == [5, 5, 5]
        same = fb.load_data(folder, test_share=0.5, split_seed=3)
        other = fb.load_data(folder, test_share=0.5, split_seed=4)
        np.testing.assert_array_equal(same.x_test, data.x_test)
        assert not np.array_equal(other.x_test, data.x_test)

    def test_of_the_digits(self):
        assert len(fb.load_data("digits", test_share=0.1).x_test) == 180

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"test_share": 1.5}, "test_share must be a number"),
            ({"split_seed": -1}, "split_seed must be a whole number"),
            ({"split_seed": 2**40}, "split_seed must be less than"),
        ],
    )
    def test_numbers_out_of_range(self, options, message):
        with pytest.raises(OptionError, match=message):
            fb.load_data("digits", **options)

    def test_test_images_that_are_there_are_not_made(self, tmp_path):
        for part in ("train", "test"):
            for name in "ab":
                picture(tmp_path / part / name / "1.png")
        with pytest.raises(InputError, match="has test images of its own"):
            fb.load_data(tmp_path, test_share=0.3)
        with pytest.raises(InputError, match="has test images of its own"):
            fb.load_data("mnist", test_share=0.3)


class TestBatches:
    def batches(self):
        for n in range(4):
            yield RNG.integers(0, 256, (10, 5, 6), dtype=np.uint8), np.arange(10) % 2 + (n == 3)

    def test_any_iterable(self):
        data = fb.load_data(self.batches())
        assert data.image_shape == (1, 5, 6)
        assert (len(data.x_train), len(data.x_test)) == (32, 8)
        assert data.classes == 3

    def test_an_array_that_is_used_again(self):
        x = np.zeros((5, 1, 2, 2), np.uint8)

        def batches():
            for n in range(4):
                x[...] = n
                yield x, np.arange(5) % 2

        data = fb.load_data(batches())
        assert set(np.unique(data.x_train)) == {0, 1, 2, 3}

    @pytest.mark.parametrize(
        ("batches", "error", "message"),
        [
            ([], DataError, "there are no batches"),
            ([np.zeros((3, 4, 4))], InputError, "batch 0 must be a pair"),
            (
                [(np.zeros((3, 4, 4)), [0, 1, 0]), (np.zeros((3, 4, 5)), [0, 1, 0])],
                ShapeError,
                r"batch 1 has images of shape \(4, 5\)",
            ),
            ([(np.zeros((3, 4, 4)), [0, 1])] * 3, ShapeError, r"labels of shape \(2,\)"),
            ([(5, 3)], ShapeError, "batch 0 has images of shape"),
            ([(np.zeros((2, 4, 4)), [[0, 1], [1, 0]])], ShapeError, r"labels of shape \(2, 2\)"),
            ([([[1, 2], [3]], [0, 1])], InputError, "x of batch 0 cannot be read as an array"),
        ],
    )
    def test_what_is_refused(self, batches, error, message):
        with pytest.raises(error, match=message):
            fb.load_data(batches)

    def test_batches_whose_sums_alone_agree(self):
        x = np.zeros((6, 4, 4), np.uint8)
        with pytest.raises(ShapeError, match=r"batch 0 .* labels of shape \(5,\)"):
            fb.load_data([(x, np.zeros(5, int)), (x, np.zeros(7, int))])

    @pytest.mark.parametrize("source", [5, None])
    def test_what_is_no_source(self, source):
        with pytest.raises(InputError, match="a name, a path or an iterable"):
            fb.load_data(source)

    def test_more_than_there_is_room_for(self, monkeypatch):
        monkeypatch.setattr("fullback.data.store.MAX_BYTES", 1000)
        with pytest.raises(DataError, match=r"write them to x_train\.npy"):
            fb.load_data(self.batches())


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class TestParquet:
    """The form of the Hugging Face hub: encoded images in a struct, names in the metadata."""

    @pytest.fixture(autouse=True)
    def _needs_pyarrow(self):
        pytest.importorskip("pyarrow")

    def write(self, path, images, labels, names=("cat", "dog"), **columns):
        import pyarrow as pa
        import pyarrow.parquet

        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        described = json.dumps({"info": {"features": features}}).encode()
        column = [{"bytes": image, "path": None} for image in images]
        table = pa.table({"image": column, "label": labels, **columns})
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": described}), path)
        return path

    def some(self, count, size=(5, 6)):
        return RNG.integers(0, 256, (count, *size), dtype=np.uint8), np.arange(count) % 2

    def test_train_and_test_files(self, tmp_path):
        x, y = self.some(30)
        z, w = self.some(7)
        images = list(map(encoded, x))
        self.write(tmp_path / "data" / "train-00000-of-00002.parquet", images[:20], y[:20])
        self.write(tmp_path / "data" / "train-00001-of-00002.parquet", images[20:], y[20:])
        self.write(tmp_path / "data" / "test-00000-of-00001.parquet", map(encoded, z), w)
        data = fb.load_data(tmp_path)
        np.testing.assert_array_equal(data.x_train[:, 0], x)
        np.testing.assert_array_equal(data.y_train, y)
        np.testing.assert_array_equal(data.x_test[:, 0], z)
        assert data.class_names == ("cat", "dog")

    def test_one_file_is_split(self, tmp_path):
        x, y = self.some(30, (8, 8, 3))
        path = self.write(tmp_path / "pets.parquet", map(encoded, x), y, names=())
        data = fb.load_data(path, image_shape=(1, 4, 4), test_share=0.5)
        assert (data.name, data.image_shape, len(data.x_test)) == ("pets", (1, 4, 4), 15)
        assert data.class_names == ("0", "1")
        assert data.notes == ("images of 8 x 8 are brought to 4 x 4, stretched",)

    def test_plain_bytes_and_one_column_of_numbers(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet

        x, y = self.some(20)
        table = pa.table({"picture": list(map(encoded, x)), "kind": y, "note": ["a"] * 20})
        pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
        assert len(fb.load_data(tmp_path / "p.parquet").x_train) == 16

    def test_images_that_cannot_be_read_are_left_out(self, tmp_path):
        x, y = self.some(20)
        images = list(map(encoded, x))
        images[3], images[4] = b"no image", None
        path = self.write(tmp_path / "p.parquet", images, y)
        with pytest.warns(FullbackWarning) as caught:
            data = fb.load_data(path)
        assert len(data.x_train) + len(data.x_test) == 18
        told = [str(own.message) for own in caught]
        assert "image 3: is not an image of a known format" in told[0]
        assert "2 of 20 files in" in told[-1]

    def test_what_is_refused(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet

        (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing of use PAR1")
        with pytest.raises(DataError, match="is not an intact Parquet file"):
            fb.load_data(tmp_path / "a.parquet")
        pyarrow.parquet.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "b.parquet")
        with pytest.raises(DataError, match="has the columns text, n; expected one of encoded"):
            fb.load_data(tmp_path / "b.parquet")
        x, y = self.some(20)
        labels = [None, *y.tolist()[1:]]
        self.write(tmp_path / "c.parquet", map(encoded, x), labels)
        with pytest.raises(DataError, match="labels are whole numbers"):
            fb.load_data(tmp_path / "c.parquet")
        whole = self.write(tmp_path / "d.parquet", map(encoded, x), y).read_bytes()
        for cut in (10, len(whole) // 2, len(whole) - 3):
            (tmp_path / "d.parquet").write_bytes(whole[:cut])
            with pytest.raises(DataError, match="is not an intact Parquet file"):
                fb.load_data(tmp_path / "d.parquet")

    def test_files_that_are_not_used_are_told(self, tmp_path):
        x, y = self.some(20)
        for name in ("train-0", "test-0", "validation-0", "more"):
            self.write(tmp_path / "a" / f"{name}.parquet", map(encoded, x), y)
        with pytest.warns(FullbackWarning, match=r"left out: more.parquet, of 4"):
            data = fb.load_data(tmp_path / "a")
        assert (len(data.x_train), len(data.x_test), len(data.x_val)) == (20, 20, 20)
        for name in ("train-0", "validation-0"):
            self.write(tmp_path / "c" / f"{name}.parquet", map(encoded, x), y)
        data = fb.load_data(tmp_path / "c")
        assert data.x_val is None
        assert len(data.x_test) == 20
        assert "the validation files are the test images" in data.notes[0]
        for name in ("test-0", "test-1"):
            self.write(tmp_path / "b" / f"{name}.parquet", map(encoded, x), y)
        with pytest.raises(DataError, match="none whose name begins with train"):
            fb.load_data(tmp_path / "b")

    def test_sixteen_bits_and_formats_that_are_not_opened(self, tmp_path):
        x, y = self.some(20)
        images = list(map(encoded, x.astype(np.uint16) * 257))
        file = io.BytesIO()
        Image.new("RGB", (6, 5)).save(file, "EPS")
        images[3] = file.getvalue()
        path = self.write(tmp_path / "p.parquet", images, y)
        with pytest.warns(FullbackWarning) as caught:
            data = fb.load_data(path)
        assert "image 3: is not an image of a known format" in str(caught[0].message)
        assert data.x_train.dtype == np.float32
        every = np.concatenate([data.x_train, data.x_test])
        wanted = np.delete(x, 3, axis=0) / np.float32(255)
        assert {a.tobytes() for a in every[:, 0]} == {a.tobytes() for a in wanted}
        assert data.notes == ("16-bit images are float32 from 0 (black) to 1 (white)",)

    def test_labels_that_no_class_has(self, tmp_path):
        import pyarrow as pa

        x, _ = self.some(20)
        labels = pa.array([2**63 + 5] * 20, pa.uint64())
        path = self.write(tmp_path / "p.parquet", map(encoded, x), labels)
        with pytest.raises(DataError, match="labels are whole numbers"):
            fb.load_data(path)

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        path = self.write(tmp_path / "p.parquet", [], [])
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(DataError, match=r"pip install 'fullback\[parquet\]'"):
            fb.load_data(path)


def test_the_same_images_in_every_form_train_the_same_network(tmp_path):
    """A folder of PNG files, IDX, .npz, .npy, Parquet: the same weights, bit for bit."""
    pytest.importorskip("pyarrow")
    digits = fb.load_data("digits")
    parts = {}
    for part, count in (("train", 60), ("test", 20)):
        x, y = getattr(digits, f"x_{part}")[:count, 0], getattr(digits, f"y_{part}")[:count]
        order = np.argsort(y, kind="stable")  # the order of a folder a class
        parts[part] = x[order], y[order]
    arrays = {
        f"{name}_{part}": own
        for part, pair in parts.items()
        for name, own in zip("xy", pair, strict=True)
    }
    for part, (x, y) in parts.items():
        for n, (image, label) in enumerate(zip(x, y, strict=True)):
            path = tmp_path / "folder" / part / str(label) / f"{n:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        TestParquet().write(
            tmp_path / "parquet" / f"{part}-0.parquet", map(encoded, x), y, "0123456789"
        )
        prefix = {"train": "train", "test": "t10k"}[part]
        (tmp_path / "idx").mkdir(exist_ok=True)
        for kind, own, code in (("images-idx3", x, 3), ("labels-idx1", y.astype(np.uint8), 1)):
            header = bytes([0, 0, 8, code]) + b"".join(n.to_bytes(4, "big") for n in own.shape)
            (tmp_path / "idx" / f"{prefix}-{kind}-ubyte").write_bytes(header + own.tobytes())
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "npy").mkdir()
    for name, own in arrays.items():
        np.save(tmp_path / "npy" / f"{name}.npy", own)
    trained = []
    for form in ("folder", "parquet", "idx", "a.npz", "npy"):
        data = fb.load_data(tmp_path / form)
        net = fb.Network.parse("conv2 tanh pool flatten dense10", data.image_shape)
        fb.fit(net, data.x_train, data.y_train, epochs=2, verbose=False, batch_size=16)
        trained.append(
            (net.parameters["dense1.weight"].tobytes(), net.logits(data.x_test).tobytes())
        )
    assert len(set(trained)) == 1


@posix
def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("a.npz", "a.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="is a pipe"):
            fb.load_data(tmp_path / name)
