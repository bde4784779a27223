"""fullback train --run, --resume and --config, and fullback runs."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fullback as fb
from fullback.training.checkpoint import read_run
from support.command import command, environment, posix, run

KILLS = int(os.environ.get("FULLBACK_KILLS", "8"))


@pytest.fixture
def toy(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "toy.npz"
    x, y = rng.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8), np.arange(60) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return path


def train(*arguments):
    return run("train", *arguments)


def refused(*arguments):
    """Train as a process of its own, where wrong usage is one line; return that line."""
    done = subprocess.run(
        command("train", *arguments), capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def started(toy, folder, *more):
    options = ("--data", toy, "--net", "conv2 relu pool flatten dense3", "--epochs", 4)
    return (*options, "--run", folder, *more)


def test_a_run_has_a_folder(toy, tmp_path):
    folder = tmp_path / "runs" / "first"
    assert train(*started(toy, folder, "--lr", 0.01, "--freeze", "conv1")).code == 0
    assert {path.name for path in folder.iterdir()} - {"plots", "tensorboard"} == {
        ".lock",
        "checkpoint.safetensors",
        "config.toml",
        "history.csv",
        "history.json",
        "log.txt",
        "model.safetensors",
        "result.json",
    }
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["loss"]) > 0
    result = json.loads((folder / "result.json").read_text())
    assert result["epochs"] == 4
    text = (folder / "config.toml").read_text()
    for line in (f'data = "{toy}"', "epochs = 4", "lr = 0.01", 'freeze = [\n    "conv1",\n]'):
        assert line in text


def test_the_configuration_trains_the_same_network(toy, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "m.safetensors"
    assert train(*started(toy, folder, "--seed", 3)).code == 0
    assert train("--config", folder / "config.toml", "--out", out).code == 0
    assert out.read_bytes() == (folder / "model.safetensors").read_bytes()
    # the command line comes first
    assert train("--config", folder / "config.toml", "--seed", 4, "--out", out).code == 0
    assert out.read_bytes() != (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown option 'epoch'; did you mean epochs?"),
        ("xyzzy = 3", "unknown option 'xyzzy'"),
        ("run = 'here'", "unknown option 'run'"),
        ("epochs = 'many'", "Invalid value for '--epochs'"),
        ("epochs = 0", "Invalid value for '--epochs'"),
        ("optimizer = 'best'", "Invalid value for '--optimizer'"),
        ("epochs = ", "is not TOML"),
        ("\xff", "is not TOML"),
    ],
)
def test_configurations_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("latin-1"))
    assert message in refused("--config", path, "--out", tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_wrong_usage(toy, tmp_path):
    folder = tmp_path / "run"
    assert train(*started(toy, folder)).code == 0
    for arguments, message in (
        (("--resume", tmp_path / "none"), "holds no run: it has no config.toml"),
        (("--resume", folder, "--seed", 5), "only --epochs may be another; leave --seed out"),
        (("--resume", folder, "--batch-size", 5), "leave --batch-size out"),
        (("--resume", folder, "--run", folder), "leave --run out"),
        (("--config", tmp_path / "none.toml"), "No such file"),
    ):
        assert message in refused(*arguments)
    done = train(*started(toy, folder, "--seed", 1))
    assert done.code == 1
    assert "holds a run with other options; go on with it by --resume" in done.err
    done = train("--run", toy, "--epochs", 1)
    assert done.code == 1
    assert "cannot be used for a run" in done.err
    done = train("--resume", folder, "--epochs", 3)
    assert done.code == 1
    assert "has 4 epochs already; give --epochs 5 or more, or leave it out" in done.err


def test_a_run_that_has_ended_gets_more_epochs(toy, tmp_path):
    """Those that it has stay; a kill before the first new one is no loss."""
    folder = tmp_path / "run"
    options = ("--schedule", "constant", "--validation", 0.2)
    assert train(*started(toy, folder, *options)).code == 0
    first = (folder / "model.safetensors").read_bytes()
    assert 'net = "conv2 relu pool flatten dense3"' in (folder / "config.toml").read_text()
    done = train("--resume", folder, "--epochs", 7, "--json")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [5, 6, 7]
    assert "epochs = 7" in (folder / "config.toml").read_text()
    assert (folder / "model.previous.safetensors").read_bytes() == first
    whole = tmp_path / "whole"  # at a constant rate it is as if there had been seven from the start
    options = ("--data", toy, "--net", "conv2 relu pool flatten dense3", "--epochs", 7, *options)
    assert train(*options, "--run", whole).code == 0
    assert (whole / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert json.loads((folder / "result.json").read_text())["epochs"] == 7


def test_images_that_have_changed_since(toy, tmp_path):
    folder = tmp_path / "run"
    assert train(*started(toy, folder)).code == 0
    x = np.random.default_rng(1).integers(0, 256, (14, 1, 8, 8), dtype=np.uint8)
    np.savez(toy, x_train=x, y_train=np.arange(14) % 3, x_test=x, y_test=np.arange(14) % 3)
    done = train("--resume", folder)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "the images have changed" in done.err
    assert "60" in done.err
    assert "14" in done.err


def test_what_is_chosen_for_the_data_is_in_the_configuration(toy, tmp_path):
    folder = tmp_path / "run"
    assert train("--data", toy, "--epochs", 1, "--run", folder).code == 0
    text = (folder / "config.toml").read_text()
    for line in ('net = "compact"', "epochs = 1", "batch_size = 60"):
        assert line in text


def test_a_run_that_is_trained_elsewhere(toy, tmp_path):
    from filelock import FileLock

    folder = tmp_path / "run"
    assert train(*started(toy, folder)).code == 0
    with FileLock(folder / ".lock"):
        done = train("--resume", folder)
    assert done.code == 1
    assert "another process trains in" in done.err
    assert train("--resume", folder).code == 0


def test_a_run_that_has_ended_is_told_again(toy, tmp_path):
    folder = tmp_path / "run"
    assert train(*started(toy, folder)).code == 0
    model = (folder / "model.safetensors").read_bytes()
    done = train("--resume", folder, "--json")
    assert done.code == 0
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events] == ["start", "result"]
    assert events[-1]["epochs"] == 4
    assert (folder / "model.safetensors").read_bytes() == model


def last_change(path):
    return path.stat().st_mtime_ns if path.exists() else 0


@posix
def test_a_run_that_is_killed_ends_with_the_same_weights(toy, tmp_path):
    """At random moments, by a signal that no process can handle."""
    options = ("--data", toy, "--net", "conv2 batchnorm relu pool flatten dropout0.2 dense3")
    options = (*options, "--optimizer", "adam", "--epochs", 50 * KILLS, "--json")
    options = (*options, "--validation", 0.2, "--average", 0.9, "--mixup", 0.3, "--clip", 1)
    options = (*options, "--augment", "shift=1 flip=both", "--schedule", "plateau(patience=50)")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(*options, "--run", whole).code == 0
    draw, kills, arguments = random.Random(0), 0, (*options, "--run", broken)
    finished = [0]
    often = (  # checkpoints are written at most once a second, of which this run has too few
        "import runpy, fullback.training.checkpoint as own; own.WRITE_EVERY = 0.02; "
        "runpy.run_module('fullback', run_name='__main__')"
    )
    while kills < KILLS:
        training = subprocess.Popen(
            [sys.executable, "-c", often, "train", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        if kills % 3:  # while it trains
            before = last_change(broken / "checkpoint.safetensors")
            for _ in range(3000):
                if last_change(broken / "checkpoint.safetensors") != before:
                    break
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.1))
        else:  # also before it does
            time.sleep(draw.uniform(0.05, 0.8))
        if training.poll() is not None:
            break
        training.kill()
        assert training.wait() == -signal.SIGKILL
        kills += 1
        if (broken / "config.toml").exists():
            arguments = ("--resume", broken, "--json")
        if (broken / "checkpoint.safetensors").exists():
            finished.append(len(read_run(broken / "checkpoint.safetensors")[1]))
    assert kills == KILLS, "the run is too short"
    assert len(set(finished)) > KILLS // 3, "the kills fell on too few epochs"
    last = subprocess.run(
        command("train", "--resume", broken, "--json"), capture_output=True, env=environment()
    )
    assert last.returncode == 0, last.stderr
    ours, theirs = fb.load(whole / "model.safetensors"), fb.load(broken / "model.safetensors")
    for name, array in (*ours.parameters.items(), *ours.statistics.items()):
        own = theirs.parameters if name in theirs.parameters else theirs.statistics
        np.testing.assert_array_equal(own[name], array)
    ours, theirs = (read_run(f / "checkpoint.safetensors")[1] for f in (whole, broken))
    assert [row.loss for row in ours] == [row.loss for row in theirs]
    texts = [(f / "history.csv").read_text().splitlines() for f in (whole, broken)]
    assert [t.split(",")[:5] for t in texts[0]] == [t.split(",")[:5] for t in texts[1]]


def test_runs_are_listed(toy, tmp_path):
    from filelock import FileLock

    for name, seed in (("a", 1), ("b", 2)):
        assert train(*started(toy, tmp_path / "runs" / name, "--seed", seed)).code == 0
    (tmp_path / "runs" / "b" / "result.json").unlink()
    done = run("runs", tmp_path / "runs", columns=300)
    assert (done.code, done.err) == (0, "")
    lines = [line for line in done.out.splitlines() if "4 of 4" in line]
    assert [re.search(r"/(\w)\s", line)[1] for line in lines] == ["a", "b"]
    assert "finished" in lines[0]
    assert "interrupted" in lines[1]
    assert "training" in done.out
    with FileLock(tmp_path / "runs" / "b" / ".lock"):
        events = run("runs", tmp_path / "runs", "--json").events
    assert [event["state"] for event in events] == ["finished", "running"]
    assert [event["epochs_planned"] for event in events] == [4, 4]
    for columns in (40, 55, 80):
        narrow = run("runs", tmp_path / "runs", columns=columns).out
        assert max(map(len, narrow.splitlines())) <= columns
        assert "finished" in narrow
        assert "…" not in narrow
    done = run("runs", tmp_path / "runs" / "a", tmp_path / "runs", "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["options"]["seed"] for event in events] == [1, 1, 2]
    assert events[0]["result"]["epochs"] == events[0]["epochs"] == 4


def test_runs_that_cannot_be_read(toy, tmp_path):
    folder = tmp_path / "runs" / "a"
    assert train(*started(toy, folder)).code == 0
    (folder / "checkpoint.safetensors").write_bytes(b"nonsense")
    done = run("runs", tmp_path / "runs")
    assert done.code == 1
    assert "cannot be read as the checkpoint of a run" in done.err
    assert len(done.err.splitlines()) == 1
    (tmp_path / "empty").mkdir()
    done = run("runs", tmp_path / "empty")
    assert done.code == 1
    assert "there are no runs in" in done.err
    assert run("runs", tmp_path / "nowhere").code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that can be filled")
def test_a_full_disk(toy, tmp_path, monkeypatch):
    """What was kept before is still there, and the line says what happened."""
    folder = tmp_path / "run"
    assert train(*started(toy, folder)).code == 0
    before = (folder / "checkpoint.safetensors").read_bytes()
    (folder / "result.json").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = train("--resume", folder)
    assert done.code == 1
    assert done.err.endswith("No space left on device\n")
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def test_one_attempt_without_pictures(toy, tmp_path):
    folder = tmp_path / "run"
    dying = ("--data", toy, "--net", "flatten dense1 relu dense3", "--epochs", 30, "--lr", 5)
    ran = train(*dying, "--attempts", 1, "--run", folder, "--no-pictures", "--json")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("error: the network learned nothing: ")
    assert [event["event"] for event in ran.events if event["event"] != "epoch"] == [
        *("start", "failed")
    ]
    assert ran.events[-1]["attempts"] == 1
    assert not (folder / "attempt-1").exists()
    assert run("runs", folder, "--json").events[0]["state"] == "failed"
    assert train("--resume", folder, "--json").events[-1]["reason"] == ran.events[-1]["reason"]
    done = tmp_path / "done"
    assert train(*started(toy, done, "--no-pictures")).code == 0
    assert not (done / "plots").exists()


def test_a_run_that_diverged_late_has_failed(toy, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def fit_and_diverge(net, *data, checkpoint, **options):
        real(net, *data, **{**options, "epochs": 1}, checkpoint=checkpoint)
        raise fb.DivergenceError("the loss became nan in epoch 2, batch 1", epochs=1)

    real = fb.fit
    monkeypatch.setattr("fullback.training.fit.fit", fit_and_diverge)
    ran = train(*started(toy, folder, "--lr", 0.01, "--json"))
    assert ran.code == 1
    assert (folder / "model.safetensors").exists()
    assert ran.events[-1]["event"] == "failed"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result == {
        "failed": "the loss became nan in epoch 2, batch 1",
        "attempts": 1,
        "epochs": 1,
    }
    assert run("runs", folder, "--json").events[0]["state"] == "failed"
