"""Training under a real MPI: the same files, and an end within seconds whatever happens.

``test_ranks.py`` has the rest, with threads for processes.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import fullback as fb
from fullback.engine.library import library
from fullback.training.checkpoint import read_run
from support.command import run
from support.mpi import Job, fullback, mpi, need_mpi

need_mpi()
pytestmark = [
    pytest.mark.filterwarnings("ignore::fullback.FullbackWarning"),
    pytest.mark.skipif(not library().compiled, reason="kernels in plain Python are slow"),
    pytest.mark.skipif(sys.platform != "linux", reason="ranks are found in /proc"),
]

KILLS = int(os.environ.get("FULLBACK_KILLS", "8"))
SOON = 30  # seconds, on a machine that is busy; on an idle one it takes less than one


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Images that are learned in no time."""
    rng = np.random.default_rng(0)
    y = np.arange(210) % 3
    x = rng.integers(0, 120, (210, 1, 8, 8)).astype(np.uint8)
    for label in range(3):
        x[y == label, :, 2 * label : 2 * label + 3] += 100
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    return path


def options(toy, *more):
    net = "conv2 batchnorm relu pool flatten dropout0.2 dense3"
    return ("train", "--data", toy, "--net", net, "--epochs", 6, *more)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The same weights ---------------------------------------------------------------------------------


def test_the_command_makes_the_same_file_with_any_number_of_ranks(toy, tmp_path):
    more = ("--average", 0.9, "--mixup", 0.3, "--augment", "shift=1", "--validation", 0.2)
    alone = tmp_path / "alone.safetensors"
    assert run(*options(toy, *more, "--out", alone)).code == 0
    for size, threads in ((2, 2), (3, 1), (4, 1)):
        model = tmp_path / f"{size}x{threads}.safetensors"
        ended = mpi(size, *fullback(*options(toy, *more, "--out", model)), threads=threads)
        assert ended.code == 0, ended.lines
        assert digest(model) == digest(alone)
        assert len(ended.said("saved ")) == 1, "another rank than the first has printed"
        assert ended.said(f"{size} processes share every batch, exact sums")


def test_the_comparison_and_another_attempt(tmp_path):
    """What the command does after training, it does with all ranks."""
    rng = np.random.default_rng(0)
    data = tmp_path / "noise.npz"
    x, y = rng.integers(0, 256, (300, 1, 8, 8)).astype(np.uint8), np.arange(300) % 3
    np.savez(data, x_train=x, y_train=y, x_test=x, y_test=y)
    net, out = "conv2 relu pool flatten dense3", tmp_path / "model.safetensors"
    one = ("train", "--data", data, "--net", net, "--epochs", 8, "--out", out)
    ended = mpi(2, *fullback(*one, "--lr", 1e6))  # every attempt diverges
    assert ended.code == 1
    assert len(ended.said("the network learned nothing in 3 attempts")) == 1
    ended = mpi(2, *fullback(*one, "--compare"))
    alone = run(*one, "--compare")
    assert (ended.code, alone.code) == (0, 0)
    frozen = [line for line in alone.out.splitlines() if "frozen" in line]
    assert [line.strip() for line in ended.said("frozen")] == [line.strip() for line in frozen]


PROGRAM = """
    import sys, warnings
    import numpy as np
    import fullback as fb
    from mpi4py import MPI
    from support.networks import NETWORKS, network, unusual

    warnings.simplefilter("ignore")
    comm = MPI.COMM_WORLD
    first = comm.Get_rank() == 0

    def trained(make, data, **options):
        net = make()
        fb.fit(net, *data, verbose=False, epochs=2, **options)
        return {**net.parameters, **net.statistics}

    for name in NETWORKS:
        make = lambda: network(name)
        data = unusual(make(), 150)
        alone = trained(make, data)
        for given in (data, data if first else (None, None)):
            found = trained(make, given, comm=comm)
            assert all(np.array_equal(found[key], alone[key]) for key in alone), name
    part = comm.Split(comm.Get_rank() // 2)  # ranks 0 and 1, and rank 2 alone
    found = trained(make, data, comm=part)
    assert all(np.array_equal(found[key], alone[key]) for key in alone)
    # Gradients of the first layer are told alone: more than go at once, while others are computed.
    make = lambda: fb.Network.parse("flatten dense600 relu dense4", (1, 24, 24))
    data = unusual(make(), 150)
    alone = trained(make, data, optimizer=fb.SGD(0.01))
    found = trained(make, data, optimizer=fb.SGD(0.01), comm=comm, sums="fast")
    for key in alone:
        np.testing.assert_allclose(found[key], alone[key], rtol=1e-4, atol=1e-6)
    print("as alone")
"""


def test_fit_on_a_communicator():
    ended = mpi(3, sys.executable, "-c", textwrap.dedent(PROGRAM))
    assert ended.code == 0, ended.lines
    assert len(ended.said("as alone")) == 3, ended.lines


def test_the_script_of_mpi_md(tmp_path):
    page = Path(__file__).parent.parent / "docs" / "mpi.md"
    if not page.exists():
        pytest.skip("the tests are not in a checkout")
    (script,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "train.py").write_text(script)
    ended = mpi(2, sys.executable, tmp_path / "train.py")
    assert ended.code == 0, ended.lines
    assert ended.said("ranks,") == ["2 ranks, 3 epochs"]


# Errors -------------------------------------------------------------------------------------------


def by_rank(path):
    """Return the command of a rank whose data are a file of its own."""
    line = (
        'exec "$0" -m fullback train --data "$1$OMPI_COMM_WORLD_RANK.npz" --epochs 400 --out "$2"'
    )
    return ("sh", "-c", line, sys.executable, path, path.parent / "model.safetensors")


@pytest.mark.parametrize("wrong", ["damaged", "other", "missing"])
def test_bad_data_on_one_rank_is_told_once(toy, tmp_path, wrong):
    path = tmp_path / "data"
    for rank in range(3):
        (tmp_path / f"data{rank}.npz").write_bytes(toy.read_bytes())
    bad = tmp_path / "data1.npz"
    if wrong == "missing":
        bad.unlink()
    elif wrong == "damaged":
        bad.write_bytes(bad.read_bytes()[:-2000])
    else:
        arrays = dict(np.load(toy))
        np.savez(bad, **{**arrays, "y_train": arrays["y_train"][::-1]})
    ended = mpi(3, *by_rank(path))
    assert ended.code == 1
    (line,) = ended.said("error: ")
    text = {"other": "rank 1 was given other labels than rank 0"}.get(wrong, "rank 1 failed: ")
    assert text in line
    assert not (tmp_path / "model.safetensors").exists()


FAILS = """
    import os, sys, numpy as np, fullback as fb
    from mpi4py import MPI
    from support.networks import network, unusual
    import fullback.engine.ranks as ranks

    comm = MPI.COMM_WORLD
    net = network("pooled")
    x, y = unusual(net, 150)

    def call(epoch):
        if epoch.epoch == 2 and sys.argv[1] == "callback":
            raise OSError("No space left on device")

    told = ranks.Exchange.after
    count = [0]

    def after(self, *arguments):
        count[0] += 1
        if count[0] == 40 and comm.Get_rank() == 2 and sys.argv[1] == "batch":
            raise MemoryError("no more")
        told(self, *arguments)

    ranks.Exchange.after = after
    try:
        fb.fit(net, x, y, epochs=500, comm=comm, callbacks=[call], verbose=False)
    except BaseException as error:
        print(comm.Get_rank(), type(error).__name__, error, flush=True)
        raise SystemExit(1)
"""


@pytest.mark.parametrize(
    ("place", "lines"),
    [
        ("callback", ["0 OSError No space left on device",
                      "1 RankError rank 0 failed: No space left on device",
                      "2 RankError rank 0 failed: No space left on device"]),
        ("batch", ["0 RankError rank 2 failed: no more",
                   "1 RankError rank 2 failed: no more",
                   "2 MemoryError no more"]),
    ],
)  # fmt: skip
def test_an_error_in_training_is_one_on_every_rank(place, lines):
    start = time.monotonic()
    ended = mpi(3, sys.executable, "-c", textwrap.dedent(FAILS), place)
    assert ended.code == 1
    assert sorted(ended.said("Error ")) == lines
    assert time.monotonic() - start < SOON


def test_a_disk_that_is_full(toy, tmp_path):
    """Files may have no more than so many bytes; the checkpoint needs more."""
    line = 'test "$OMPI_COMM_WORLD_RANK" = 0 && ulimit -f 8; exec "$@"'
    own = fullback(*options(toy, "--run", tmp_path / "run"))
    ended = mpi(2, "sh", "-c", line, "sh", *own)
    assert ended.code == 1
    (told,) = ended.said("error: ")
    assert "File too large" in told
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_ranks_whose_cpus_would_round_otherwise(toy):
    line = 'test "$OMPI_COMM_WORLD_RANK" = 1 && export NUMBA_CPU_NAME=x86-64; exec "$@"'
    ended = mpi(2, "sh", "-c", line, "sh", *fullback(*options(toy)))
    assert ended.code == 1
    (told,) = ended.said("error: ")
    assert "the kernels of rank 1 (CPU x86-64) are not those of rank 0" in told
    assert "set NUMBA_CPU_NAME on all ranks" in told


def test_a_launcher_without_mpi4py(toy, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    ended = run(*options(toy))
    assert ended.code == 2
    assert "2 processes were started to train together, which needs mpi4py" in ended.err
    assert "pip install 'fullback[mpi]'" in ended.err


def test_a_launcher_of_another_mpi(toy, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    ended = run(*options(toy))
    assert ended.code == 2
    assert "2 processes were started together, but mpi4py knows of 1" in ended.err


# Ends ---------------------------------------------------------------------------------------------


def started(job, checkpoint, before=0):
    """Wait until a run has written its checkpoint."""
    end = time.monotonic() + 60
    while job.process.poll() is None and time.monotonic() < end:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
            return
        time.sleep(0.02)
    pytest.fail(f"the run does not get on: {job.end(5).lines}")


def endless(toy, folder):
    return fullback(*options(toy, "--epochs", 100_000, "--run", folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_signal_to_one_rank_ends_all_and_saves(toy, tmp_path, number, rank):
    job = Job(3, *endless(toy, tmp_path / "run"))
    started(job, tmp_path / "run" / "checkpoint.safetensors")
    os.kill(job.ranks()[rank], number)
    ended = job.end(SOON)
    assert ended.code == 130
    assert len(ended.said("to go on")) == 1
    assert fb.load(tmp_path / "run" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_mpiexec_ends_all(toy, tmp_path, number):
    job = Job(3, *endless(toy, tmp_path / "run"))
    started(job, tmp_path / "run" / "checkpoint.safetensors")
    ranks = job.ranks()
    assert len(ranks) == 3
    os.kill(job.process.pid, number)
    assert job.end(SOON).code != 0
    end = time.monotonic() + SOON
    while any(os.path.exists(f"/proc/{process}") for process in ranks.values()):  # noqa: PTH110
        assert time.monotonic() < end, "a rank lives on"
        time.sleep(0.05)
    assert read_run(tmp_path / "run" / "checkpoint.safetensors")[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped_is_given_up(toy, tmp_path, rank):
    job = Job(3, *endless(toy, tmp_path / "run"), FULLBACK_MPI_TIMEOUT="2")
    started(job, tmp_path / "run" / "checkpoint.safetensors")
    os.kill(job.ranks()[rank], signal.SIGSTOP)
    ended = job.end(SOON)  # rank 0 is the one that tells
    assert ended.code == 1
    told = ended.said("error: ")
    assert len(told) == (rank != 0)
    assert all("another rank has not answered for 2 s" in line for line in told), told


def test_ranks_that_are_killed_at_random_moments(toy, tmp_path):
    """The run goes on with another number of ranks every time, and ends as one without kills."""
    more = ("--optimizer", "adam", "--average", 0.9, "--mixup", 0.3, "--validation", 0.2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = options(toy, *more, "--epochs", 60 * KILLS, "--schedule", "cosine")
    assert run(*arguments, "--run", whole).code == 0
    often = (
        "import runpy, fullback.training.checkpoint as own; own.WRITE_EVERY = 0.02; "
        "runpy.run_module('fullback', run_name='__main__')"
    )
    draw, arguments = random.Random(0), (*arguments, "--run", broken)
    checkpoint, finished, ends = broken / "checkpoint.safetensors", [0], []
    for kill in range(KILLS):
        size = 2 + kill % 3
        job = Job(size, sys.executable, "-c", often, *arguments)
        if kill % 3:  # while it trains
            started(job, checkpoint, checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0)
            time.sleep(draw.uniform(0, 0.2))
        else:  # also before it does
            time.sleep(draw.uniform(0.5, 2.5))
        ranks = job.ranks()
        if job.process.poll() is None and ranks:
            os.kill(ranks[draw.choice(sorted(ranks))], signal.SIGKILL)
        start = time.monotonic()
        ended = job.end(SOON)
        ends.append(time.monotonic() - start)
        assert ended.code not in (0, 2), ended.lines
        if (broken / "config.toml").exists():
            arguments = ("train", "--resume", broken)
        if checkpoint.exists():
            finished.append(len(read_run(checkpoint)[1]))
    assert len(set(finished)) > KILLS // 3, "the kills fell on too few epochs"
    print(f"ended {max(ends):.2f} s after a kill at most")
    assert mpi(3, *fullback("train", "--resume", broken)).code == 0
    ours, theirs = fb.load(whole / "model.safetensors"), fb.load(broken / "model.safetensors")
    for name, array in (*ours.parameters.items(), *ours.statistics.items()):
        own = theirs.parameters if name in theirs.parameters else theirs.statistics
        np.testing.assert_array_equal(own[name], array)
