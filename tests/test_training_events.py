"""The order of events in ``fit``: what is called, written and shown when, by every ending."""

import contextlib
import io
import signal
import warnings

import numpy as np
import pytest
from rich.console import Console

import fullback as fb

X = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 6), dtype=np.uint8)
Y = np.arange(40) % 3


class Full(OSError):  # noqa: N818 -- an event
    """The disk is full."""


class Lines(io.StringIO):
    """What is shown, as events: the first two words of a line."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    def write(self, text):
        self.events += [f"shown: {' '.join(line.split()[:2])}" for line in text.splitlines()]
        return len(text)


class Recorded:
    """Notes what it is told; ``dead`` when the history has the dead units by then."""

    def __init__(self, name, events, act=lambda epoch: None):
        self.name, self.events, self.act = name, events, act

    def _note(self, what):
        self.events.append(f"{self.name}: {what}")

    def begin(self, history):
        self._note(f"begin {len(history)}")

    def __call__(self, epoch):
        self._note(epoch.epoch)
        return self.act(epoch.epoch)

    def finish(self, history):
        self._note(f"finish {len(history)}" + (", dead" if history.dead_units else ""))


class Stopping(fb.EarlyStopping):
    """The best epoch, which notes what it is told."""

    def __init__(self, net, events):
        super().__init__(net, None)
        self.events = events

    def begin(self, history):
        self.events.append(f"best: begin {len(history)}")
        return super().begin(history)

    def __call__(self, epoch):
        self.events.append(f"best: {epoch.epoch}")
        return super().__call__(epoch)

    def finish(self, history):
        self.events.append("best: finish" + (", dead" if history.dead_units else ""))
        super().finish(history)


def events_of(monkeypatch, *, act=lambda epoch: None, epochs=2, full=False, path="run", **options):
    """Train with everything that listens, and return what happened in order."""
    events = []

    def write(file, content):
        events.append("written")
        if full:
            raise Full
        file.write_bytes(content)

    monkeypatch.setattr("fullback.training.checkpoint.write_atomically", write)
    net = fb.Network.parse("flatten dense4 relu dense3", (1, 8, 6), seed=1)
    net.parameters["dense1.bias"][0] = -1e3  # a dead unit
    callbacks = [
        Recorded("first", events, act),
        lambda epoch: events.append(f"function: {epoch.epoch}"),
        Stopping(net, events),
        Recorded("last", events),
    ]
    try:
        fb.fit(
            net,
            X,
            Y,
            epochs=epochs,
            average=0.5,
            checkpoint=path,
            callbacks=callbacks,
            verbose=Console(file=Lines(events)),
            **options,
        )
    except BaseException as error:  # noqa: BLE001 -- it is an event
        events.append(type(error).__name__)
    return events


BEGIN = ["first: begin 0", "best: begin 0", "last: begin 0"]


def epoch(n, of=2):
    """What one epoch brings."""
    shown = f"shown: epoch {n}/{of}"
    return [shown, f"first: {n}", f"function: {n}", f"best: {n}", f"last: {n}"]


def end(n):
    """What the end of training brings."""
    return ["written", "best: finish", f"first: finish {n}, dead", f"last: finish {n}, dead"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fb.FullbackWarning)
        yield
    signal.signal(signal.SIGINT, previous)


class Broken(Exception):  # noqa: N818 -- a user's
    pass


def broken(epoch):
    if epoch == 2:
        raise Broken


def pressed(epoch):
    if epoch == 2:
        signal.raise_signal(signal.SIGINT)


def pressed_twice(epoch):
    if epoch == 2:
        with contextlib.suppress(ZeroDivisionError):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_run_to_its_end(monkeypatch):
    assert events_of(monkeypatch) == [*BEGIN, *epoch(1), *epoch(2), *end(2)]


def test_a_run_that_goes_on(monkeypatch):
    events_of(monkeypatch)
    assert events_of(monkeypatch, epochs=3) == [
        *("shown: goes on", "first: begin 2", "best: begin 2", "last: begin 2"),
        *epoch(3, 3),
        *end(3),
    ]


def test_a_run_that_a_callback_ends(monkeypatch):
    assert events_of(monkeypatch, act=lambda epoch: True) == [*BEGIN, *epoch(1), *end(1)]


def test_ctrl_c(monkeypatch):
    shown = "shown: interrupted in"
    ran = events_of(monkeypatch, act=pressed, epochs=5)
    ran.remove(shown)
    assert ran == [*BEGIN, *epoch(1, 5), *epoch(2, 5), *end(2)]


def test_a_second_ctrl_c(monkeypatch):
    assert events_of(monkeypatch, act=pressed_twice) == [
        *(*BEGIN, *epoch(1), "shown: epoch 2/2", "first: 2", "written", "KeyboardInterrupt")
    ]


def test_a_callback_that_raises(monkeypatch):
    """The checkpoint has the epoch that the callback was called for."""
    assert events_of(monkeypatch, act=broken) == [
        *(*BEGIN, *epoch(1), "shown: epoch 2/2", "first: 2", "written", "Broken")
    ]
    assert events_of(monkeypatch)[0] == "shown: goes on"
    assert events_of(monkeypatch)[1] == "first: begin 2"


def test_a_divergence(monkeypatch):
    def rate(done):
        return 1.0 if done < 0.5 else 1e38

    ran = events_of(monkeypatch, schedule=rate, batch_size=8)
    assert ran == [
        *(*BEGIN, *epoch(1), "best: finish", "first: finish 1", "last: finish 1", "written"),
        "DivergenceError",
    ]


def test_a_full_disk(monkeypatch):
    """Nothing is finished: what could not be written is the error."""
    assert events_of(monkeypatch, full=True) == [*(*BEGIN, *epoch(1), *epoch(2), "written", "Full")]
