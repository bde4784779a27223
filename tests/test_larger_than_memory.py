"""Data of 20 GB, trained on in 1 GB of memory. The files are sparse: they take little of a disk."""

import io
import json
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from fullback.engine.library import library
from support.mpi import mpi, need_mpi

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured by Linux"),
    pytest.mark.skipif(not library().compiled, reason="kernels in plain Python are slow"),
]

GB = 10**9
GIB = 2**30
SECONDS = 600  # after which a program is taken to hang, on a machine that is busy
SIDE = 256
COUNT = 20 * GB // SIDE**2

LIMITED = textwrap.dedent(
    """
    import atexit, json, resource, sys, threading

    limit, program = int(sys.argv[1]), sys.argv[2]
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sys.argv = ["program", *sys.argv[3:]]
    peak, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.01):
            with open("/proc/self/status") as file:
                (line,) = (line for line in file if line.startswith("RssAnon"))
            peak[0] = max(peak[0], 1024 * int(line.split()[1]))

    threading.Thread(target=watch, daemon=True).start()
    code = 0
    try:
        exec(program)
    except SystemExit as error:
        code = error.code
    ended.set()
    print(json.dumps({"peak": peak[0], "code": code}))
    """
)

COMMAND = """
import os, signal
from fullback.cli.app import app
from fullback.training.run import TrainingRun

part = TrainingRun._part
def at_the_50th_batch(self, order, epoch, schedule, start, stop):
    if start >= 50:
        os.kill(os.getpid(), signal.SIGINT)
    return part(self, order, epoch, schedule, start, stop)

TrainingRun._part = at_the_50th_batch
app(sys.argv[1:])
"""


def limited(program, *arguments, limit=GIB, cwd=None):
    """Run a program whose memory is limited: what it allocates, not files that are mapped.

    Returns what it has printed, its exit code and the most memory that it had.
    """
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=cwd,
        check=False,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in background jobs
    )
    assert ran.returncode == 0, ran.stderr
    *lines, last = ran.stdout.splitlines()
    found = json.loads(last)
    assert found["peak"] < limit
    return lines, ran.stderr, found["code"]


def sparse(path, shape, dtype=np.uint8):
    """An .npy file of zeros, which takes no room."""
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder of 305,175 images of 256 x 256, 20 GB."""
    folder = tmp_path_factory.mktemp("large")
    x = sparse(folder / "x_train.npy", (COUNT, 1, SIDE, SIDE))
    x[1:3000:2, :, :64, :64] = 255
    np.save(folder / "y_train.npy", np.arange(COUNT) % 2)
    test = np.zeros((40, 1, SIDE, SIDE), np.uint8)
    test[1::2] = 255
    np.save(folder / "x_test.npy", test)
    np.save(folder / "y_test.npy", np.arange(40) % 2)
    del x
    size = (folder / "x_train.npy").stat()
    assert size.st_size > 19.9 * GB
    assert 512 * size.st_blocks < GB
    yield folder
    shutil.rmtree(folder)


def test_fit_with_all_that_belongs_to_it(large, tmp_path):
    """The images are 20 GB, of which those that have a weight are trained on: 3,000."""
    program = """
import numpy as np, fullback as fb

x = np.load(sys.argv[1] + "/x_train.npy", mmap_mode="r")
y = np.load(sys.argv[1] + "/y_train.npy", mmap_mode="r")
weights = np.zeros(len(x))
weights[:2000] = 1
weights[2000 :: (len(x) - 2000) // 1000] = 0.5
net = fb.Network.parse("normalize avgpool8 conv2 relu pool flatten dense2", (1, 256, 256))
given = dict(batch_size=32, class_weight="balanced", average=0.9, mixup=0.1, verbose=False)
history = fb.fit(net, x, y, epochs=2, sample_weight=weights, validation_data=(x[:600], y[:600]),
                 checkpoint=sys.argv[2], augment=fb.Augment(shift=2), **given)
print(len(history), history.epochs[-1].validation_accuracy > 0.9)
"""
    lines, _, _ = limited(program, large, tmp_path / "checkpoint")
    assert lines == ["2 True"]


def test_the_command_trains_on_it(large, tmp_path):
    """It is interrupted at its 50th batch, of 4,673."""
    options = ("--net", "avgpool16 flatten dense2", "--validation", "0.02", "--run", "run")
    lines, _, code = limited(COMMAND, "train", "--data", large, *options, "--json", cwd=tmp_path)
    events = [json.loads(line) for line in lines]
    assert code == 130, events
    (result,) = (event for event in events if event["event"] == "result")
    assert result["interrupted"]
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_images_that_are_to_be_split_name_the_way_out(large, tmp_path):
    for name in ("x", "y"):
        (tmp_path / f"{name}.npy").symlink_to(large / f"{name}_train.npy")
    _, error, code = limited(COMMAND, "train", "--data", tmp_path, cwd=tmp_path)
    assert code == 1
    assert "images of which some are kept for testing need" in " ".join(error.split())
    assert "fullback data SOURCE --unpack FOLDER" in " ".join(error.split())


def test_2_gb_that_are_split_described_tested_and_predicted_in_half_a_gb(tmp_path):
    x = sparse(tmp_path / "x.npy", (2 * GB // 64**2, 64, 64))
    x[::2000] = np.arange(256, dtype=np.uint8)[: len(x[::2000]), None, None]
    np.save(tmp_path / "y.npy", np.arange(len(x)) % 2)
    del x
    limit = {"limit": GIB // 2, "cwd": tmp_path}
    unpacked = limited(COMMAND, "data", ".", "--unpack", "../unpacked", "--json", **limit)
    (event,) = map(json.loads, unpacked[0])
    assert event["images"] == {"train": 390_624, "test": 97_657}
    out = tmp_path.parent / "unpacked"
    assert sum(512 * path.stat().st_blocks for path in out.iterdir()) < GB / 10
    net = "import fullback as fb; fb.save(fb.Network.parse('avgpool8 flatten dense2', (1, 64, 64)"
    subprocess.run([sys.executable, "-c", net + "), 'm.safetensors')"], cwd=tmp_path, check=True)
    for command in (
        ("data", "../unpacked", "--json"),
        ("eval", "m.safetensors", "--data", "../unpacked", "--json"),
        ("predict", "m.safetensors", "../unpacked/x_test.npy", "--out", "answers.csv", "--json"),
    ):
        _, error, code = limited(COMMAND, *command, **limit)
        assert code == 0, error
    shutil.rmtree(out)


def test_parquet_files_of_20_gb(tmp_path):
    """They are read row by row, and what they hold is trained on; all of it in 1 GB."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    if shutil.disk_usage(tmp_path).free < 22 * GB:
        pytest.skip("asks for 22 GB of the disk, of which it takes little")
    count, side = 19_080, 1024
    file = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(file, "BMP")
    black = pa.array([{"bytes": file.getvalue(), "path": None}])
    (tmp_path / "shards").mkdir()
    for name, rows in (("train-0", 11), ("train-1", 0), ("train-2", count - 11), ("test-0", 4)):
        schema = pa.schema([("image", black.type), ("label", pa.int64())])
        with parquet.ParquetWriter(tmp_path / "shards" / f"{name}.parquet", schema) as writer:
            for start in range(0, rows, 500):
                some = np.arange(start, min(start + 500, rows))
                images = black.take(pa.array(np.zeros(len(some), np.int64)))
                writer.write_table(pa.table([images, pa.array(some % 2)], schema))
    _, error, code = limited(COMMAND, "train", "--data", "shards", cwd=tmp_path)
    assert code == 1
    assert "fullback data SOURCE --unpack FOLDER" in " ".join(error.split())
    lines, error, code = limited(
        COMMAND, "data", "shards", "--unpack", "unpacked", "--json", cwd=tmp_path
    )
    assert code == 0, error
    assert json.loads(lines[0])["images"] == {"train": count, "test": 4}
    assert (tmp_path / "unpacked" / "x_train.npy").stat().st_size > 20 * GB
    options = ("--net", "avgpool16 flatten dense2", "--batch-size", "16", "--out", "m.safetensors")
    _, error, code = limited(COMMAND, "train", "--data", "unpacked", *options, cwd=tmp_path)
    assert code == 130, error
    shutil.rmtree(tmp_path / "unpacked")


def test_ranks_read_their_share(large, tmp_path):
    """Two ranks train on 4,096 images of 20 GB, and each reads half; rank 0 some more, as samples.

    An image was read by a process in whose memory the page in its middle is mapped.
    """
    need_mpi()
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import mmap, sys
            import numpy as np
            import fullback as fb
            from mpi4py import MPI

            x = np.load(sys.argv[1], mmap_mode="r")
            weights = np.zeros(len(x))
            weights[:: len(x) // 4096] = 1
            net = fb.Network.parse("avgpool16 flatten dense2", (1, 256, 256))
            fb.fit(net, x, np.arange(len(x)) % 2, epochs=1, batch_size=64, sample_weight=weights,
                   verbose=False, comm=MPI.COMM_WORLD)
            places, read = np.flatnonzero(weights), 0
            with open("/proc/self/pagemap", "rb") as pages:
                for place in places:
                    middle = x.ctypes.data + place * x[0].nbytes + x[0].nbytes // 2
                    pages.seek(8 * (middle // mmap.PAGESIZE))
                    read += int.from_bytes(pages.read(8), "little") >> 63
            print("rank", MPI.COMM_WORLD.Get_rank(), "has read", read / len(places), flush=True)
            """
        )
    )
    ended = mpi(2, sys.executable, "-m", "mpi4py", program, large / "x_train.npy")
    assert ended.code == 0, ended.lines
    told = dict(line.split()[1:5:3] for line in ended.said("has read"))
    assert 0.5 <= float(told["0"]) < 0.7
    assert 0.48 < float(told["1"]) < 0.52
