"""Threads, forks, copies, Ctrl-C and memory: what may happen to a network on the lane engine."""

from __future__ import annotations

import _thread
import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fullback as fb
from fullback.engine import machine
from fullback.engine.library import library
from fullback.engine.machine import MOST_THREADS, threads
from fullback.errors import OptionError

pytestmark = pytest.mark.filterwarnings("ignore::fullback.DeadUnitWarning")  # noise is no digit

compiled = pytest.mark.skipif(
    not library().compiled, reason="the kernels run as plain Python, slowly and on one thread"
)
posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are Posix")

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (150, 1, 14, 14)).astype(np.uint8)
Y = RNG.integers(0, 10, len(X))

NORMALISED = "normalize conv4 batchnorm relu pool flatten dense10"
"""Whose batch statistics cross blocks, so that the threads meet more often."""


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    """Threads that meet, however many cores there are."""
    monkeypatch.setenv("FULLBACK_NUM_THREADS", "4")


def small(seed: int = 0) -> fb.Network:
    return fb.Network.parse("conv3 relu pool conv5 relu flatten dense10", (1, 14, 14), seed=seed)


def train(net: fb.Network, epochs: int = 1) -> fb.Network:
    optimizer = fb.SGD(0.01, momentum=0.9)
    fb.fit(net, X, Y, epochs=epochs, batch_size=64, optimizer=optimizer, verbose=False)
    return net


def same(left: fb.Network, right: fb.Network) -> bool:
    return all(
        np.array_equal(left.parameters[name], right.parameters[name]) for name in left.parameters
    )


def run(code: str, seconds: float = 60, **environment: str) -> str:
    """Run Python code, after this page's beginning, in a process of its own."""
    start = """
        import os, signal, sys, threading, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        import numpy as np
        import fullback as fb
        from tests.test_engine_safety import *
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(code)],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# Threads ------------------------------------------------------------------------------------------


@compiled
def test_threads_use_networks_at_the_same_time():
    """Eight threads, on one network and on others, get what one gets alone."""
    nets = [small(0), small(1), fb.Network.parse(NORMALISED, (1, 14, 14))]
    tasks = []
    for net in nets:
        weights, loss = copy.deepcopy(net), net.loss_and_gradients(X, Y)
        tasks += [
            (net.logits, (X,), net.logits(X)),
            (net.predict, (X[:5],), net.predict(X[:5])),
            (net.predict_proba, (X / 255,), net.predict_proba(X / 255)),
            (
                lambda net: train(copy.deepcopy(net)).parameters["dense1.bias"],
                (weights,),
                train(copy.deepcopy(weights)).parameters["dense1.bias"],
            ),
            (
                lambda *a, net=net: net.loss_and_gradients(*a)[1]["conv1.weight"],
                (X, Y),
                loss[1]["conv1.weight"],
            ),
        ]
    wrong: list[object] = []
    begin = threading.Barrier(8)

    def use(number: int) -> None:
        begin.wait()
        for task in np.random.default_rng(number).permutation(np.arange(len(tasks)).repeat(3)):
            function, arguments, wanted = tasks[task]
            try:
                if not np.array_equal(function(*arguments), wanted):
                    wrong.append(task)
            except BaseException as error:  # noqa: BLE001
                wrong.append(error)

    workers = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@compiled
def test_one_network_is_trained_twice_at_the_same_time():
    """What comes of it is nobody's business, but it is numbers."""
    net = small()
    workers = [threading.Thread(target=train, args=(net, 5)) for _ in range(2)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        assert net.logits(X[:40]).shape == (40, 10)
    assert all(np.isfinite(array).all() for array in net.parameters.values())
    assert same(train(small()), train(small()))


class Threads:
    """Stands for the module ``_thread`` and knows what it started."""

    def __init__(self):
        self.allocate_lock = _thread.allocate_lock
        self.started, self.running = 0, 0

    def start_new_thread(self, work, arguments):
        def counted(*arguments):
            self.running += 1
            try:
                work(*arguments)
            finally:
                self.running -= 1

        self.started += 1
        _thread.start_new_thread(counted, arguments)


def wait_for(condition, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.001)
    assert condition()


@compiled
@pytest.mark.parametrize("most", [0, 1, 2])
def test_threads_that_cannot_be_started(monkeypatch, most):
    """Fewer do the same."""
    wanted = train(small())
    answers = wanted.logits(X)
    refused = []

    class Limited(Threads):
        def start_new_thread(self, work, arguments):
            if arguments[0] > most:
                refused.append(arguments[0])
                raise RuntimeError("can't start new thread")
            super().start_new_thread(work, arguments)

    limited = Limited()
    monkeypatch.setattr(machine, "_thread", limited)
    net = train(small())
    assert same(net, wanted)
    assert np.array_equal(net.logits(X), answers)
    assert refused
    assert bool(limited.started) == bool(most)
    wait_for(lambda: not limited.running)


@compiled
def test_more_threads_than_cores(monkeypatch):
    """Threads that wait let the others have the core."""
    net = fb.Network.parse(NORMALISED, (1, 14, 14))
    monkeypatch.setenv("FULLBACK_NUM_THREADS", "1")
    wanted = train(copy.deepcopy(net), 3)
    monkeypatch.setenv("FULLBACK_NUM_THREADS", "32")
    start = time.perf_counter()
    assert same(train(copy.deepcopy(net), 3), wanted)
    assert time.perf_counter() - start < 20  # it takes about 0.1 s


@pytest.mark.parametrize(("limit", "wanted"), [("1", 1), ("2", 2), ("0", 3), ("4,2", 3), ("9", 3)])
def test_the_limit_that_other_libraries_keep(monkeypatch, limit, wanted):
    """joblib sets it in its processes, so that all together take no more threads than cores."""
    monkeypatch.delenv("FULLBACK_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert threads() == wanted
    monkeypatch.setenv("FULLBACK_NUM_THREADS", "5")
    assert threads() == 5


@pytest.mark.parametrize("chosen", ["0", "-1", "abc", "1.5", "²", str(MOST_THREADS + 1)])
def test_number_of_threads_that_makes_no_sense(monkeypatch, chosen):
    monkeypatch.setenv("FULLBACK_NUM_THREADS", chosen)
    text = f"FULLBACK_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}, got '{chosen}'"
    for task in (lambda: small().predict(X), lambda: train(small()), threads):
        with pytest.raises(OptionError, match=text):
            task()


@pytest.mark.parametrize("chosen", ["1", "3", str(MOST_THREADS)])
def test_number_of_threads(monkeypatch, chosen):
    monkeypatch.setenv("FULLBACK_NUM_THREADS", chosen)
    assert threads() == int(chosen)
    monkeypatch.setenv("FULLBACK_NUM_THREADS", "")
    assert 1 <= threads() <= (os.cpu_count() or 1)


# Ctrl-C -------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_threads_are_started(monkeypatch, number, after):
    """None of them waits for a thread that never comes."""
    net = small()
    wanted = net.logits(X)

    class Interrupted(Threads):
        def start_new_thread(self, work, arguments):
            if after or arguments[0] < number:
                super().start_new_thread(work, arguments)
            if arguments[0] == number:
                raise KeyboardInterrupt

    interrupted = Interrupted()
    with monkeypatch.context() as patch:
        patch.setattr(machine, "_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            net.logits(X)
    wait_for(lambda: not interrupted.running)
    assert interrupted.started == number - (not after)
    assert np.array_equal(net.logits(X), wanted)


@compiled
@pytest.mark.parametrize("step", ["locked", "release", "__enter__"])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_threads_run(monkeypatch, step, after):
    """They get to the end of their run, and then it is raised."""
    net, interrupts, here = small(), [], threading.get_ident()
    wanted = net.logits(X)

    class Lock:
        def __init__(self):
            self.lock = _thread.allocate_lock()

        def call(self, name, *arguments):
            mine = name == step and threading.get_ident() == here and len(interrupts) < 2
            if mine and not after:
                interrupts.append(name)
                raise KeyboardInterrupt
            made = getattr(self.lock, name)(*arguments)
            if mine and name != "__enter__":  # which Python does not leave with the lock
                interrupts.append(name)
                raise KeyboardInterrupt
            return made

        def acquire(self):
            return self.call("acquire")

        def locked(self):
            return self.call("locked")

        def release(self):
            return self.call("release")

        def __enter__(self):
            return self.call("__enter__")

        def __exit__(self, *error):
            return self.call("__exit__", *error)

    threads = Threads()
    threads.allocate_lock = Lock
    with monkeypatch.context() as patch:
        patch.setattr(machine, "_thread", threads)
        if after and step == "__enter__":
            net.logits(X)
        else:
            with pytest.raises(KeyboardInterrupt):
                net.logits(X)
            assert len(interrupts) == 2
    wait_for(lambda: not threads.running)
    assert np.array_equal(net.logits(X), wanted)


@posix
@compiled
def test_ctrl_c_at_any_time():
    """Alarms in the middle of predictions, steps and gradients leave a network that works."""
    run("""
        def alarm(number, frame):
            raise KeyboardInterrupt

        def threads_of_the_process():
            return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1

        signal.signal(signal.SIGALRM, alarm)
        net, rng, interrupts = small(), np.random.default_rng(0), 0
        others, answers = threads_of_the_process(), net.logits(X)
        before = {k: v.copy() for k, v in net.parameters.items()}
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
                for _ in range(3):
                    net.logits(X)
                net.loss_and_gradients(X, Y)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert interrupts > 20, interrupts
        wait_for(lambda: threads_of_the_process() == others)
        assert all(np.array_equal(net.parameters[k], v) for k, v in before.items())
        assert np.array_equal(net.logits(X), answers)
    """)


@posix
@compiled
@pytest.mark.parametrize("what", ["predict", "fit"])
def test_ctrl_c_in_a_long_run(what):
    """The process answers within a moment, and can go on."""
    code = f"""
        x = np.repeat(X, 200, axis=0)
        net = small()
        net.predict(X)
        print("ready", flush=True)
        for second in range(2):
            try:
                if "{what}" == "predict":
                    while True:
                        net.predict(x)
                history = fb.fit(net, x, np.repeat(Y, 200), epochs=1000, verbose=False)
                assert history.interrupted
            except KeyboardInterrupt:
                assert "{what}" == "predict"
            print("interrupted", flush=True)
        assert all(np.isfinite(array).all() for array in net.parameters.values())
        answers = net.logits(X, engine="reference")
        assert abs(net.logits(X) - answers).max() < 1e-4 * abs(answers).max()
    """
    start = "import os, signal, sys, threading, time\n"
    start += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "from tests.test_engine_safety import *\n"
    process = subprocess.Popen(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            time.sleep(0.4)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors


# Processes ----------------------------------------------------------------------------------------


@posix
@compiled
def test_fork():
    """A child of a process that has trained and predicted can do both."""
    run("""
        net = train(small())
        wanted = net.logits(X), train(copy.deepcopy(net)).parameters["conv1.weight"]
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                right = np.array_equal(net.logits(X), wanted[0])
                right &= np.array_equal(train(net).parameters["conv1.weight"], wanted[1])
                os._exit(0 if right else 1)
            children.append(child)
        assert np.array_equal(net.logits(X), wanted[0])
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    """)


@posix
@compiled
def test_fork_while_another_thread_predicts():
    run(
        """
        net = small()
        wanted, stop = net.logits(X), threading.Event()

        def predict():
            while not stop.is_set():
                net.logits(X)

        thread = threading.Thread(target=predict)
        thread.start()
        for _ in range(10):
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(net.logits(X), wanted) else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        thread.join()
    """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )


@posix
@compiled
def test_multiprocessing_by_fork():
    run(
        """
        import multiprocessing

        net = train(small())
        with multiprocessing.get_context("fork").Pool(2) as pool:
            nets = pool.map(train, [net] * 4)
            answers = pool.map(net.logits, [X] * 4)
        assert all(same(made, train(copy.deepcopy(net))) for made in nets)
        assert all(np.array_equal(made, net.logits(X)) for made in answers)
    """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )


# Copies and changes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copies_have_weights_of_their_own(make):
    net = small()
    wanted = net.logits(X[:20])
    other = make(net)
    assert np.array_equal(other.logits(X[:20]), wanted)
    other.parameters["dense1.bias"] = np.arange(10)
    moved = other.logits(X[:20])
    assert np.allclose(moved, wanted + np.arange(10), atol=1e-5)
    assert np.array_equal(net.logits(X[:20]), wanted)
    assert np.array_equal(make(other).logits(X[:20]), moved)


def test_shallow_copies_share_their_weights():
    net = small()
    wanted = net.logits(X[:20])
    other = copy.copy(net)
    other.parameters["dense1.bias"] += 1
    assert np.allclose(net.logits(X[:20]), wanted + 1, atol=1e-5)
    assert np.array_equal(other.logits(X[:20]), net.logits(X[:20]))


def test_weights_change_between_predictions():
    net = fb.Network.parse(NORMALISED, (1, 14, 14))
    for change in (
        lambda: net.parameters["conv1.weight"].__setitem__((0, 0, 1, 1), 3.0),
        lambda: net.parameters.__setitem__("dense1.bias", np.arange(10)),
        lambda: net.statistics.__setitem__("batchnorm1.mean", np.full(4, 0.5)),
        lambda: net.adapt(X),
    ):
        before = net.logits(X[:20])
        change()
        after = net.logits(X[:20])
        assert not np.allclose(after, before)
        wanted = net.logits(X[:20], engine="reference")
        assert np.abs(after - wanted).max() < 1e-5 * np.abs(wanted).max()


# Memory -------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory_of_a_prediction(dtype):
    """It does not grow with the images, but for the answers."""
    net = fb.zoo.wide()
    images = np.zeros((4000, 1, 28, 28), dtype)
    net.logits(images[:64])

    def most(count):
        tracemalloc.start()
        try:
            net.logits(images[:count])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    each = 10 * 4 + 10 + 1  # bytes an image: the row, and whether its numbers and it are finite
    each += 784 if dtype == "float32" else 0  # and whether its pixels are
    assert most(4000) - most(1000) <= 3000 * (each + 1)


@compiled
def test_memory_of_many_threads():
    """What is kept for the next prediction does not grow with the threads that predicted once."""
    net, begin = small(), threading.Barrier(24)

    def predict():
        begin.wait()
        net.logits(X)

    workers = [threading.Thread(target=predict) for _ in range(24)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(net.machines["logits"]) <= threads()
