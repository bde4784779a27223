"""Reading ahead: pages are asked for in time, and nothing else changes."""

import gc
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fullback as fb
from fullback.errors import DataError
from fullback.mapped import Rows
from fullback.training import read_ahead, run
from fullback.training.read_ahead import ReadAhead


def threads():
    return [each for each in threading.enumerate() if each.name == "read ahead"]


@pytest.fixture
def images(tmp_path):
    """A map of 3,000 images of 1 x 12 x 12."""
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (3000, 1, 12, 12), np.uint8))
    return np.load(path, mmap_mode="r")


def touched(monkeypatch, *, advises=False):
    """The images that are touched from now on, in turn: all, on a system that takes no advice."""
    seen = []
    monkeypatch.setattr(read_ahead, "ADVISES", advises)
    touch = read_ahead._touch

    def note(rows, places):
        seen.extend(places.tolist())
        touch(rows, places)

    monkeypatch.setattr(read_ahead, "_touch", note)
    return seen


def until(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestRows:
    @pytest.mark.parametrize(
        "part",
        [
            lambda x: x,
            lambda x: x[7:],
            lambda x: x[5::3],
            lambda x: np.moveaxis(x, 1, 3),
            lambda x: x[:, :, ::-1],
            lambda x: x[:, :, 2:10, 2:10],
            lambda x: np.asarray(x).reshape(3000, 144),
        ],
        ids=["all", "from 7", "every third", "channels last", "upside down", "middle", "flat"],
    )
    def test_bytes_are_those_of_the_images(self, images, part):
        some = part(images)
        rows = Rows.of(some)
        for place in (0, 1, len(some) - 1):
            start = rows.first + place * rows.step
            own = np.sort(rows.content[start : start + rows.size])
            if rows.size == some[0].size:
                np.testing.assert_array_equal(own, np.sort(some[place], axis=None))
            with Path(rows.path).open("rb") as file:
                file.seek(rows.start + start)
                assert file.read(rows.size) == rows.content[start : start + rows.size].tobytes()
            pages = rows.pages(np.array([place]))
            assert pages.min() == start
            assert pages.max() == start + rows.size - 1

    def test_a_large_image_is_touched_in_every_page(self, tmp_path):
        x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (4, 1, 100, 100))
        rows = Rows.of(x)
        pages = rows.pages(np.array([1, 3])) + x.ctypes.data - rows.first
        for place in (1, 3):
            first = x[place].ctypes.data // 4096
            last = (x[place].ctypes.data + x[place].nbytes - 1) // 4096
            assert set(range(first, last + 1)) <= set((pages // 4096).tolist())

    def test_what_is_in_memory_or_spread_out_has_no_rows(self, images, tmp_path):
        assert Rows.of(np.array(images)) is None
        assert Rows.of(images[::-1]) is None
        np.save(tmp_path / "f.npy", np.asfortranarray(images))
        assert Rows.of(np.load(tmp_path / "f.npy", mmap_mode="r")) is None


class TestReadAhead:
    def test_it_stays_so_far_ahead_and_ends_with_its_epoch(self, images, monkeypatch):
        monkeypatch.setattr(read_ahead, "_PART", 144 * 100)
        monkeypatch.setattr(read_ahead, "_AHEAD", 144 * 500)
        seen, order = touched(monkeypatch), np.random.default_rng(1).permutation(3000)
        with ReadAhead(images, order, 10) as ahead:
            until(lambda: len(seen) >= 400)
            time.sleep(0.05)
            assert len(seen) <= 600
            assert sorted(seen) == sorted(order[: len(seen)].tolist())
            assert seen[:100] == sorted(order[:100].tolist())  # in the order of the file
            ahead.reached(1500)
            until(lambda: len(seen) >= 900)
            assert set(seen) <= set(order[:2100].tolist())
        assert not threads()

    def test_images_that_training_has_passed_are_left_out(self, images, monkeypatch):
        monkeypatch.setattr(read_ahead, "_PART", 144 * 100)
        monkeypatch.setattr(read_ahead, "_AHEAD", 1)
        seen = touched(monkeypatch)
        with ReadAhead(images, np.arange(3000), 10) as ahead:
            until(lambda: len(seen) >= 100)
            ahead.reached(2805)
            until(lambda: 2950 in seen)
        assert len(seen) < 600

    def test_ranks_read_what_is_theirs(self, images, monkeypatch):
        seen = touched(monkeypatch)
        odd = lambda count: np.arange(1, count, 2)  # noqa: E731
        with ReadAhead(images, np.arange(3000), 10, odd):
            until(lambda: 2999 in seen)
        assert seen == list(range(1, 3000, 2))

    def test_nothing_happens_for_images_in_memory(self, images):
        with ReadAhead(np.array(images), np.arange(3000), 10) as ahead:
            assert not threads()
            ahead.reached(100)

    @pytest.mark.skipif(sys.platform != "linux", reason="advice is for Linux")
    def test_what_is_in_memory_is_looked_at_now_and_then(self, images, monkeypatch):
        monkeypatch.setattr(read_ahead, "_PART", 144 * 160)
        reads, asked = [0], []
        monkeypatch.setattr(read_ahead, "_disk_reads", lambda: reads[0])
        monkeypatch.setattr(read_ahead, "advise", lambda file, rows, part: asked.extend(part))
        seen = touched(monkeypatch, advises=True)
        with ReadAhead(images, np.arange(3000), 10):
            until(lambda: 2992 in seen)
        assert asked == list(range(160))  # the first part, as it is not known yet
        assert sorted(seen) == list(range(0, 3000, 16))
        asked.clear()

        def advise(file, rows, part):
            reads[0] += 1
            asked.extend(part)

        monkeypatch.setattr(read_ahead, "advise", advise)
        seen.clear()
        with ReadAhead(images, np.arange(3000), 10):
            until(lambda: 2999 in seen)
        assert asked == sorted(seen) == list(range(3000))

    def test_without_advice_and_without_threads(self, images, monkeypatch):
        seen = touched(monkeypatch)
        with ReadAhead(images, np.arange(3000), 10):
            until(lambda: len(seen) == 3000)

        def none(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none)
        with ReadAhead(images, np.arange(3000), 10) as ahead:
            ahead.reached(100)

    def test_a_file_that_is_gone_is_touched_all_the_same(self, images, monkeypatch):
        """Its content is there as long as it is mapped."""
        if sys.platform == "win32":
            pytest.skip("a file that is mapped cannot be removed")
        (path,) = (images.filename,)
        path.unlink()
        seen = touched(monkeypatch)
        with ReadAhead(images, np.arange(3000), 10):
            until(lambda: len(seen) == 3000)

    @pytest.mark.skipif(sys.platform == "win32", reason="a file that is mapped cannot be cut")
    def test_a_file_that_is_cut_short(self, images, monkeypatch):
        monkeypatch.setattr(read_ahead, "_AHEAD", 1)
        monkeypatch.setattr(read_ahead, "_PART", 144 * 100)
        seen = touched(monkeypatch)
        with ReadAhead(images, np.arange(3000), 10) as ahead:
            until(lambda: len(seen) >= 100)
            with images.filename.open("r+b") as file:
                file.truncate(50_000)
            ahead.reached(1000)
            until(lambda: ahead.error is not None)
            with pytest.raises(DataError, match="cut short while it was trained on"):
                ahead.reached(1100)
        assert not threads()


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_weights_are_those_of_images_in_memory(images, engine):
    labels = np.arange(3000) % 10
    nets = []
    for x in (np.array(images), images, np.moveaxis(images, 1, 3)):
        net = fb.Network.parse("conv2 relu pool flatten dense10", (1, 12, 12), seed=0)
        x = np.moveaxis(x, 3, 1) if x.shape[3] == 1 else x
        fb.fit(net, x[:500], labels[:500], epochs=2, engine=engine, verbose=False)
        nets.append(net)
    for name, array in nets[0].parameters.items():
        for other in nets[1:]:
            np.testing.assert_array_equal(other.parameters[name], array, strict=True)


class TestFit:
    def fit(self, images, **more):
        net = fb.Network.parse("flatten dense10", (1, 12, 12), seed=0)
        return fb.fit(net, images, np.arange(len(images)) % 10, verbose=False, **more)

    def test_every_image_is_read_ahead_once_an_epoch_and_no_thread_stays(self, images, monkeypatch):
        monkeypatch.setattr(
            ReadAhead, "reached", lambda self, place: until(lambda: len(seen) >= min(place, 3000))
        )
        seen = touched(monkeypatch)
        self.fit(images, epochs=1)
        assert sorted(seen) == list(range(3000))
        assert not threads()

    def test_no_thread_for_arrays(self, images, monkeypatch):
        monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread"))
        self.fit(np.array(images), epochs=1)

    def test_an_error_and_ctrl_c_leave_no_thread(self, images, monkeypatch):
        def boom(epoch):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.fit(images, callbacks=[boom])
        monkeypatch.setattr(run.EpochFigures, "add", lambda self, piece: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            self.fit(images)
        gc.collect()
        assert not threads()

    def test_an_error_of_the_thread_is_one_of_training(self, images, monkeypatch):
        def broken(rows, places):
            raise MemoryError

        monkeypatch.setattr(read_ahead, "_touch", broken)
        with pytest.raises(MemoryError):
            self.fit(images, epochs=10_000, batch_size=1)
        assert not threads()
