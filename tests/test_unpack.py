"""Data written once to files that are trained on from the disk: the same data, or none."""

import csv
import gzip
import io
import json
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.data import unpack
from fullback.data.image_files import many_images
from fullback.errors import DataError, FullbackWarning, InputError
from support.command import done, run
from support.mpi import fullback, mpi, need_mpi

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 3
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val")


def encoded(pixels, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def same(one, other):
    """Whether two data sets hold the same."""
    for name in ARRAYS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b, strict=True)
    for name in ("name", "class_names", "notes", "numbers"):
        assert getattr(one, name) == getattr(other, name)
    return True


def idx(array):
    kind = {np.dtype(np.uint8): 8, np.dtype(np.float32): 13}[array.dtype]
    head = struct.pack(f">4B{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def parquet(path, images, labels, **more):
    import pyarrow as pa
    import pyarrow.parquet

    column = [{"bytes": image, "path": None} for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": column, "label": labels})
    pyarrow.parquet.write_table(table, path, **more)
    return path.parent


# Sources: each writes one into a folder, and returns what load_data takes.


def folder_of_images(folder):
    for n, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        path = folder / "pets" / f"class {label}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels))
    return folder / "pets", {}


def parts_of_images(folder):
    for part, count in (("train", 20), ("val", 9), ("test", 11)):
        for n in range(count):
            path = folder / "pets" / part / str(n % 3) / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(PIXELS[n]))
    return folder / "pets", {}


def sixteen_bits_come_late(folder):
    source, _ = folder_of_images(folder)
    wide = PIXELS[39].astype(np.uint16) * 200
    (source / "class 2" / "999.png").write_bytes(encoded(wide))
    return source, {}


def sizes_differ(folder):
    source, _ = folder_of_images(folder)
    large = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (source / "class 0" / "large.jpg").write_bytes(encoded(large, "JPEG"))
    return source, {"resize": "pad", "image_shape": (3, 7, 7), "test_share": 0.4, "split_seed": 1}


def one_is_no_image(folder):
    source, _ = folder_of_images(folder)
    (source / "class 0" / "text.png").write_bytes(b"nothing")
    return source, {}


def shards(folder):
    pytest.importorskip("pyarrow")
    images = list(map(encoded, PIXELS))
    parquet(folder / "hub" / "train-0.parquet", images[:17], LABELS[:17], row_group_size=1)
    parquet(folder / "hub" / "train-1.parquet", [], LABELS[:0])
    parquet(folder / "hub" / "train-2.parquet", images[17:30], LABELS[17:30])
    parquet(folder / "hub" / "test-0.parquet", images[30:], LABELS[30:], row_group_size=4)
    return folder / "hub", {}


def shard_with_texts(folder):
    pytest.importorskip("pyarrow")
    texts = np.array(["dog", "cat", "élan"])[LABELS].tolist()
    return parquet(folder / "hub" / "a.parquet", map(encoded, PIXELS), texts), {}


def list_of_files(folder):
    folder_of_images(folder)
    with (folder / "list.csv").open("w", newline="") as file:
        rows = [
            [f"pets/class {label}/{n}.png", "abc"[label], 1.5 * n] for n, label in enumerate(LABELS)
        ]
        csv.writer(file).writerows([["file", "class", "size"], *rows])
    return folder / "list.csv", {"label_column": "class"}


def numbers_of_files(folder):
    list_of_files(folder)
    return folder / "list.csv", {"label_column": "size", "numbers": True}


def pixels_in_a_table(folder):
    with (folder / "pixels.csv").open("w", newline="") as file:
        square = PIXELS[:, :5].reshape(40, 25)
        csv.writer(file).writerows(np.column_stack([LABELS, square]).tolist())
    return folder / "pixels.csv", {"label_column": 0}


def archive(folder):
    parts = {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:9], "y_test": LABELS[:9]}
    np.savez_compressed(folder / "a.npz", **parts)
    return folder / "a.npz", {}


def archive_of_floats(folder):
    x = np.asfortranarray(RNG.random((40, 6, 5, 3)))
    np.savez(folder / "a.npz", x=x, y=LABELS)
    return folder / "a.npz", {}


def idx_files(folder):
    own = folder / "own"
    own.mkdir()
    for part, n in (("train", 40), ("t10k", 12)):
        (own / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[:n])))
        labels = idx(LABELS[:n].astype(np.uint8))
        (own / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return own, {}


def idx_of_floats(folder):
    (folder / "images-idx3-ubyte").write_bytes(idx(PIXELS.astype(np.float32)))
    (folder / "labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8)))
    return folder / "images-idx3-ubyte", {}


def arrays(folder):
    (folder / "own").mkdir()
    np.save(folder / "own" / "x.npy", np.repeat(PIXELS[..., None], 3, axis=3))
    np.save(folder / "own" / "y.npy", LABELS[:, None])
    return folder / "own", {"test_share": 0.5}


def digits(folder):
    return "digits", {"test_share": 0.3}


SOURCES = [
    *(folder_of_images, parts_of_images, sixteen_bits_come_late, sizes_differ, one_is_no_image),
    *(shards, shard_with_texts, list_of_files, numbers_of_files, pixels_in_a_table),
    *(archive, archive_of_floats, idx_files, idx_of_floats, arrays, digits),
]


@pytest.mark.filterwarnings("ignore::fullback.errors.FullbackWarning")
@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_what_is_unpacked_is_what_is_loaded(make, tmp_path):
    source, options = make(tmp_path)
    loaded = fb.load_data(source, **options)
    out = tmp_path / "deep" / "out"
    unpacked = fb.unpack_data(source, out, **options)
    assert same(unpacked, loaded)
    assert same(fb.load_data(out, numbers=options.get("numbers", False)), loaded)
    assert all(isinstance(getattr(unpacked, n).base, np.memmap) for n in ("x_train", "x_test"))
    names = {"dataset.json", *(f"{n}.npy" for n in ARRAYS if getattr(loaded, n) is not None)}
    assert {path.name for path in out.iterdir()} == names
    assert list(out.parent.iterdir()) == [out]
    before = (out / "x_train.npy").stat().st_mtime_ns, (out / "x_train.npy").stat().st_ino
    assert same(fb.unpack_data(source, out, **options), loaded)
    assert before == ((out / "x_train.npy").stat().st_mtime_ns, (out / "x_train.npy").stat().st_ino)


def test_the_same_weights(tmp_path):
    source, _ = folder_of_images(tmp_path)
    nets = []
    for data in (fb.load_data(source), fb.unpack_data(source, tmp_path / "out")):
        net = fb.Network.parse("conv4 relu pool flatten dense3", (1, 6, 5), seed=0)
        given = {"validation_data": (data.x_test, data.y_test), "mixup": 0.2, "batch_size": 7}
        fb.fit(net, data.x_train, data.y_train, epochs=3, verbose=False, **given)
        nets.append(net)
    for name, array in nets[0].parameters.items():
        np.testing.assert_array_equal(nets[1].parameters[name], array, strict=True)


def test_batches_of_a_program(tmp_path):
    def batches():
        x = np.empty((10, 6, 5), np.uint8)  # used again and again
        for n in range(0, 40, 10):
            x[...] = PIXELS[n : n + 10]
            yield x, LABELS[n : n + 10]

    loaded = fb.load_data(batches())
    assert same(fb.unpack_data(batches(), tmp_path / "out"), loaded)
    assert same(fb.load_data(tmp_path / "out"), loaded)
    with pytest.raises(InputError, match="was unpacked from batches: another source"):
        fb.unpack_data(batches(), tmp_path / "out")


def test_black_images_take_no_room(tmp_path):
    if sys.platform != "linux":
        pytest.skip("files of other systems may have no holes")
    x = np.zeros((64, 256, 256), np.uint8)
    x[3] = 1
    data = fb.unpack_data([(part, np.arange(1) % 2 + n % 2) for n, part in enumerate(x[:, None])],
                          tmp_path / "out")  # fmt: skip
    assert sum(int(path.stat().st_blocks) for path in (tmp_path / "out").iterdir()) < 2000
    assert data.x_train.sum() + data.x_test.sum() == 256 * 256


class TestFolder:
    def test_another_source_is_refused(self, tmp_path):
        source, _ = folder_of_images(tmp_path)
        out = tmp_path / "out"
        fb.unpack_data(source, out)
        for options in ({"resize": "crop"}, {"test_share": 0.3}, {"image_shape": (4, 4)}):
            with pytest.raises(
                InputError, match=r"was unpacked from .*pets: another source, or one"
            ):
                fb.unpack_data(source, out, **options)
        with pytest.raises(InputError, match="another source"):
            fb.unpack_data("digits", out)
        (source / "class 0" / "new.png").write_bytes(encoded(PIXELS[0]))
        with pytest.raises(InputError, match="that has changed"):
            fb.unpack_data(source, out)

    def test_what_was_not_unpacked_is_left_alone(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        (tmp_path / "file").write_text("mine")
        for name in ("out", "file"):
            with pytest.raises(InputError, match="is there already, and was not unpacked"):
                fb.unpack_data("digits", tmp_path / name)
        with pytest.raises(InputError, match=r"out cannot be made \("):
            fb.unpack_data("digits", tmp_path / "file" / "out")
        assert (tmp_path / "out" / "mine").read_text() == "mine"
        (tmp_path / "images").mkdir()
        source, _ = folder_of_images(tmp_path / "images")
        with pytest.raises(InputError, match="give a folder that is not in the source"):
            fb.unpack_data(source, source / "out")
        (tmp_path / "empty").mkdir()
        fb.unpack_data("digits", tmp_path / "empty")
        assert (tmp_path / "empty" / "dataset.json").exists()

    def test_two_at_a_time_write_it_once(self, tmp_path, monkeypatch):
        source, _ = folder_of_images(tmp_path)
        written, write = [], unpack._write
        monkeypatch.setattr(unpack, "_write", lambda *given: (written.append(1), write(*given)))
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(fb.unpack_data(source, tmp_path / "out")))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 3
        assert written == [1]

    def test_what_it_says_of_itself_is_checked(self, tmp_path):
        out = tmp_path / "out"
        fb.unpack_data("digits", out)
        good = json.loads((out / "dataset.json").read_text())
        for changed in (
            {"format": 2},
            {"class_names": "abc"},
            {"class_names": [1, 2]},
            {"class_names": ["a"] * 70_000},
            {"notes": None},
            {"name": 5},
            {"numbers": 1},
            {"read_with": []},
            {"source": "x"},
        ):
            (out / "dataset.json").write_text(json.dumps({**good, **changed}))
            with pytest.raises(DataError, match=r"dataset\.json: does not describe a data set"):
                fb.load_data(out)
        for text in ("", "{", "[]", "[" * 100_000, "\0"):
            (out / "dataset.json").write_text(text)
            with pytest.raises(DataError, match="does not describe a data set"):
                fb.load_data(out)
        (out / "dataset.json").write_text(json.dumps({**good, "class_names": ["a", "b"]}))
        with pytest.raises(DataError, match="class_names has 2 names but the largest label is 9"):
            fb.load_data(out)
        (out / "dataset.json").unlink()
        assert fb.load_data(out).class_names == tuple("0123456789")

    def test_numbers_are_no_classes(self, tmp_path):
        source, options = numbers_of_files(tmp_path)
        fb.unpack_data(source, tmp_path / "out", **options)
        with pytest.raises(DataError, match="holds numbers to predict, and no classes"):
            fb.load_data(tmp_path / "out")


class TestFailures:
    """Whatever goes wrong, no folder is left, and no part of one."""

    def left(self, folder):
        return [path.name for path in folder.iterdir() if "out" in path.name]

    def test_a_damaged_shard_in_the_middle(self, tmp_path):
        source, _ = shards(tmp_path)
        path = source / "train-2.parquet"
        content = bytearray(path.read_bytes())
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-2\.parquet: is not an intact Parquet file"):
            fb.unpack_data(source, tmp_path / "out")
        assert self.left(tmp_path) == [".out.lock"]

    def test_a_label_that_no_training_image_has(self, tmp_path):
        pytest.importorskip("pyarrow")
        images = list(map(encoded, PIXELS[:20]))
        parquet(tmp_path / "hub" / "train.parquet", images, ["a", "b"] * 10)
        parquet(tmp_path / "hub" / "test.parquet", images, ["a"] * 19 + ["c"])
        with pytest.raises(DataError, match="image 19 has the label 'c', which no training image"):
            fb.unpack_data(tmp_path / "hub", tmp_path / "out")

    def test_no_room_is_told_before_anything_is_read(self, tmp_path, monkeypatch):
        source, _ = folder_of_images(tmp_path)
        usage = type("Usage", (), {"free": 2**26 + 1000})
        monkeypatch.setattr("fullback.data.store.shutil.disk_usage", lambda path: usage)
        with pytest.raises(
            DataError, match=r"pets: 40 images of 1 x 6 x 5 need 0 MiB in .*, where 0"
        ):
            fb.unpack_data(source, tmp_path / "out")
        assert self.left(tmp_path) == [".out.lock"]

    @pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
    def test_a_disk_that_gets_full(self, tmp_path):
        source, _ = folder_of_images(tmp_path)
        script = (
            "import sys, resource, signal, fullback as fb\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "fb.unpack_data(sys.argv[1], sys.argv[2])\n"
        )
        command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ran.stderr.splitlines()[-1].endswith(
            "out cannot be written (File too large); nothing was left of it: make room, or give "
            "another folder"
        )
        assert self.left(tmp_path) == [".out.lock"]

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    @pytest.mark.parametrize("number", [signal.SIGINT, getattr(signal, "SIGKILL", None)])
    def test_one_that_is_killed_is_begun_anew(self, number, tmp_path):
        source, _ = folder_of_images(tmp_path)
        script = (
            "import signal, sys, time, fullback as fb\n"
            "from fullback.data.image_files import many_images\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "read = many_images._read\n"
            "def slow(file, name, *given):\n"
            "    sys.stdout.write('read\\n'); sys.stdout.flush()\n"
            "    time.sleep(0.05)\n"
            "    return read(file, name, *given)\n"
            "many_images._read, many_images._SMALL = slow, 1\n"
            "fb.unpack_data(sys.argv[1], sys.argv[2])\n"
        )
        command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            for _ in range(8):
                assert process.stdout.readline() == "read\n"
            process.send_signal(number)
            process.communicate(timeout=60)
        killed = number == signal.SIGKILL
        assert (".out.unpacking" in self.left(tmp_path)) == killed
        assert "out" not in self.left(tmp_path)
        assert same(fb.unpack_data(source, tmp_path / "out"), fb.load_data(source))
        assert self.left(tmp_path) == ["out"]

    def test_memory_that_is_not_there_names_the_way_out(self, tmp_path, monkeypatch):
        source, _ = folder_of_images(tmp_path)
        monkeypatch.setattr("fullback.data.store.MAX_BYTES", 1000)
        wanted = "need more than 1,000 bytes; .*fullback data SOURCE --unpack FOLDER"
        with pytest.raises(DataError, match=wanted):
            fb.load_data(source)
        own, _ = arrays(tmp_path)
        with pytest.raises(DataError, match=wanted):
            fb.load_data(own)
        with pytest.raises(DataError, match=wanted):
            fb.load_data(archive(tmp_path)[0])
        (tmp_path / "idx").mkdir()
        with pytest.raises(DataError, match=wanted):
            fb.load_data(idx_of_floats(tmp_path / "idx")[0])
        with pytest.raises(DataError, match=r"fb\.unpack_data\(batches, FOLDER\)"):
            fb.load_data([(PIXELS, LABELS)])
        for n, each in enumerate((source, own, tmp_path / "a.npz", [(PIXELS, LABELS)])):
            fb.unpack_data(each, tmp_path / f"out {n}")
        monkeypatch.setattr("fullback.data.store.MAX_BYTES", 2**32)
        monkeypatch.setattr("fullback.data.store._LITTLE", 0)
        monkeypatch.setattr("fullback.data.store.available_memory", lambda: 100)
        with pytest.raises(DataError, match="need 0 MiB of memory, and 0 MiB are free"):
            fb.load_data(source)


class TestManyImages:
    def test_they_come_in_order_whatever_the_threads(self, tmp_path, monkeypatch):
        read = many_images._read

        def late(file, name, *given):
            time.sleep(0.002 * (int(name) % 5))
            return read(file, name, *given)

        monkeypatch.setattr(many_images, "_read", late)
        monkeypatch.setattr(many_images, "_SMALL", 90)
        items = [(io.BytesIO(encoded(x)), str(n), n) for n, x in enumerate(PIXELS)]
        items[5] = (io.BytesIO(b"none"), "5", 5)
        found = list(many_images.images_of(items, (1, 6, 5), "stretch"))
        assert [label for _, _, label in found] == list(range(40))
        assert isinstance(found[5][0], DataError)
        np.testing.assert_array_equal(found[7][0].pixels[0], PIXELS[7])

    def test_few_are_in_memory(self, monkeypatch):
        monkeypatch.setattr(many_images, "_WAITING", 10)
        taken = []

        def items():
            for n, x in enumerate(PIXELS):
                taken.append(n)
                yield io.BytesIO(encoded(x)), str(n), n

        monkeypatch.setattr(many_images, "_SMALL", 1)
        reading = many_images.images_of(items(), (1, 6, 5), "stretch")
        for n in range(10):
            assert next(reading)[2] == n
            assert len(taken) <= n + 1
        reading.close()

    def test_an_error_leaves_warnings_as_they_were(self, tmp_path):
        source, _ = folder_of_images(tmp_path)
        float_image = PIXELS[0].astype(np.float32)
        Image.fromarray(float_image).save(source / "class 1" / "f.tif")
        before = list(warnings.filters)
        with pytest.raises(DataError, match="has floating-point pixels") as caught:
            fb.load_data(source)
        assert list(warnings.filters) == before
        assert caught.value is not None  # whose traceback holds what was read

    def test_what_cannot_be_read_is_told(self, tmp_path):
        source, _ = one_is_no_image(tmp_path)
        with pytest.warns(FullbackWarning) as caught:
            fb.unpack_data(source, tmp_path / "out")
        assert ["left out: " in str(own.message) for own in caught] == [True, False]
        assert "1 of 41 files" in str(caught[1].message)


class TestCommand:
    def test_unpack_train_and_test(self, tmp_path):
        source, _ = folder_of_images(tmp_path)
        out, model = tmp_path / "out", tmp_path / "m.safetensors"
        given = ("--resize", "pad", "--image-size", "8x8", "--test-share", "0.4")
        ran = done("data", source, "--unpack", out, *given)
        assert "class names" not in ran.out
        assert "train on it by --data" in " ".join(ran.out.split())
        event = done("data", source, "--unpack", out, *given, "--json").events[0]
        assert event["images"] == {"train": 24, "test": 16}
        assert event["bytes"] == sum(path.stat().st_size for path in out.iterdir())
        options = ("--net", "flatten dense3", "--epochs", "2", "--attempts", "1", "--seed", "3")
        weights = []
        for data in ((out,), (source, *given), (source, *given, "--unpack", out)):
            run("train", "--data", *data, *options, "--out", model)
            found = model if model.exists() else tmp_path / "m.failed.safetensors"
            weights.append(found.read_bytes())
            found.unlink()
        assert len(set(weights)) == 1  # and how the images were read, for eval and predict

    def test_a_run_that_unpacks_goes_on(self, tmp_path):
        source, _ = folder_of_images(tmp_path)
        given = ("--net", "flatten dense3", "--attempts", "1", "--epochs")
        run_folder = tmp_path / "run"
        data = ("--data", source, "--unpack", tmp_path / "out", "--run", run_folder)
        first = run("train", *data, *given, "1", "--json").events
        more = run("train", "--resume", run_folder, "--epochs", "3", "--json").events
        assert [event["epoch"] for event in (*first, *more) if event["event"] == "epoch"] == [
            1,
            2,
            3,
        ]
        model = tmp_path / "m.safetensors"
        fb.save(fb.Network.parse("flatten dense3", (1, 6, 5)), model)
        ran = run("train", "--data", source, "--unpack", tmp_path / "out", "--from", model)
        assert ran.code == 2
        assert "--unpack goes without --from" in ran.err

    def test_images_for_validation_are_read_when_they_are_needed(self, tmp_path):
        source, _ = folder_of_images(tmp_path)
        given = ("--net", "normalize flatten dense3", "--validation", "0.3", "--epochs", "3")
        rows = []
        for data in ((source,), (source, "--unpack", tmp_path / "out")):
            out = tmp_path / "m.safetensors"
            ran = run("train", "--data", *data, *given, "--attempts", "1", "--json", "--out", out)
            events = [event for event in ran.events if event["event"] == "epoch"]
            for event in events:
                del event["seconds"], event["images_per_second"]
            rows.append(events)
        assert len(rows[0]) == 3
        assert rows[0] == rows[1]

    def test_several_processes_unpack_once(self, tmp_path):
        need_mpi()
        source, _ = folder_of_images(tmp_path)
        given = ("train", "--data", source, "--net", "flatten dense3", "--attempts", "1")
        more = ("--unpack", tmp_path / "out", "--out", tmp_path / "b.safetensors")
        ended = mpi(3, *fullback(*given, *more))
        assert (tmp_path / "out" / "dataset.json").exists(), ended.lines
        run(*given, "--out", tmp_path / "a.safetensors")
        models = [*tmp_path.glob("a*.safetensors"), *tmp_path.glob("b*.safetensors")]
        assert len(models) == 2
        assert models[0].read_bytes() == models[1].read_bytes()

    def test_what_does_not_go_together(self, tmp_path):
        ran = run("data", "digits", "--unpack", tmp_path / "out", "--sheet", tmp_path / "a.png")
        assert ran.code == 2
        assert "--unpack goes without --sheet" in ran.err
        ran = run("data", "nothing", "--unpack", tmp_path / "out")
        assert "unknown data set 'nothing'" in ran.err
        assert not (tmp_path / "out").exists()
