"""fullback sweep in processes here: runs, results, the page, trials that fail."""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fullback.sweep.outcome import Outcome, Trial, ranked
from fullback.sweep.picture import draw
from fullback.sweep.space import grid_of, read_space
from support.command import command, environment, posix, run
from support.sweeps import BASE, GRID, LONG, models, rows, write, write_data


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with a data set."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A sweep that is there, and what it said."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_data(folder)
        return folder, run("sweep", write(GRID), "--workers", 2, "--json")


class TestGrid:
    @pytest.fixture
    def ran(self, once, tmp_path, monkeypatch):
        """What it said; the working directory has a copy of it."""
        shutil.copytree(once[0] / "s", tmp_path / "s")
        shutil.copy(once[0] / "s.toml", tmp_path)
        (tmp_path / "toy.npz").symlink_to(once[0] / "toy.npz")  # which runs know by its whole path
        monkeypatch.chdir(tmp_path)
        return once[1]

    def test_every_trial_is_a_run(self, ran):
        assert ran.code == 0
        assert ran.err == ""
        found = rows("s")
        assert [row["trial"] for row in found] == [f"trial-00{n}" for n in (1, 2, 3, 4)]
        expected = [("0.02", "8"), ("0.02", "16"), ("0.1", "8"), ("0.1", "16")]
        assert [(row["lr"], row["batch_size"]) for row in found] == expected
        result = ran.result
        best = max(found, key=lambda row: float(row["validation_accuracy"]))
        assert result["value"] == float(best["validation_accuracy"])
        assert result["test_accuracy"] == float(best["test_accuracy"]) > 0.5
        events = [event for event in ran.events if event["event"] == "trial"]
        assert {event["trial"] for event in events} == {row["trial"] for row in found}
        listed = run("runs", "s", "--json").events
        assert [event["state"] for event in listed] == ["finished"] * 4
        assert Path("s/plots/sweep.png").read_bytes().startswith(b"\x89PNG")
        assert not list(Path("s").glob("trial-*/plots"))

    def test_a_trial_is_what_train_makes(self, ran):
        again = run("train", "--config", "s/trial-003/config.toml", "--out", "m.safetensors")
        assert again.code == 0
        assert Path("m.safetensors").read_bytes() == models("s")["trial-003"]

    def test_the_page_and_going_on(self, ran):
        before = {path: path.stat().st_mtime_ns for path in Path("s").glob("trial-*/*")}
        page = run("sweep", "s.toml", columns=120)
        assert page.code == 0
        assert page.err == ""
        assert "sweep      grid, 4 trials" in page.out
        assert re.search(r"best +trial-00\d: lr 0\.\d+, batch_size \d+\n", page.out)
        assert "fullback runs s" in page.out
        assert max(map(len, page.out.splitlines())) <= 120
        after = {path: path.stat().st_mtime_ns for path in Path("s").glob("trial-*/*")}
        assert after == before  # nothing was trained again

    def test_any_number_of_workers(self, ran):
        alone = run("sweep", "s.toml", "--run", "other", "--workers", 1, "--json")
        assert alone.code == 0
        assert Path("other/results.csv").read_bytes() == Path("s/results.csv").read_bytes()
        assert models("other") == models("s")
        assert Path("other/plots/sweep.png").read_bytes() == Path("s/plots/sweep.png").read_bytes()

    def test_a_folder_of_something_else(self, ran):
        write(GRID.replace("[0.02, 0.1]", "[0.02, 0.2]"))
        ran = run("sweep", "s.toml")
        assert ran.code == 1
        assert "s holds a sweep of another file; give another folder with --run" in ran.err
        ran = run("sweep", "s.toml", "--run", "s/trial-001")
        assert "s/trial-001 is the folder of a run" in ran.err
        Path("s/sweep.json").write_text("{", encoding="utf-8")
        assert "s/sweep.json is damaged" in run("sweep", "s.toml").err

    def test_other_images(self, ran):
        with np.load("toy.npz") as file:
            arrays = dict(file)
        arrays["x_train"][0] += 1
        Path("toy.npz").unlink()
        np.savez("toy.npz", **arrays)
        refused = run("sweep", "s.toml")
        assert refused.code == 1
        assert "the images have changed since the sweep in s was started" in refused.err

    def test_a_trials_folder_that_is_damaged(self, ran):
        Path("s/trial-002/checkpoint.safetensors").write_bytes(b"x")
        refused = run("sweep", "s.toml")
        assert refused.code == 1
        assert "trial-002 was not trained to the end (" in refused.err
        assert "trial-002/checkpoint.safetensors cannot be read as" in refused.err
        shutil.rmtree("s/trial-002")
        assert run("sweep", "s.toml").code == 0
        config = Path("s/trial-001/config.toml")
        config.write_text(config.read_text().replace("seed = 0", "seed = 1"), encoding="utf-8")
        assert "s/trial-001 holds another run than trial-001" in run("sweep", "s.toml").err


def test_more_trials_are_drawn_later(place):
    text = LONG.replace("400", "3").replace("trials = 4", "trials = 2")
    assert run("sweep", write(text), "--json").code == 0
    first = models("s")
    more = run("sweep", write(text.replace("trials = 2", "trials = 3")), "--json")
    assert more.code == 0
    assert len(rows("s")) == 3
    assert {name: models("s")[name] for name in first} == first
    assert len(models("s")) == 3


def test_halving_trains_the_best_for_longer(place):
    text = GRID.replace("epochs = 4", "epochs = 8").replace(
        "[sweep]", "[sweep]\nmethod = 'halving'"
    )
    text = text.replace("[sweep]", "[sweep]\nfactor = 2")
    ran = run("sweep", write(text), "--json", "--workers", 2)
    assert ran.code == 0
    found = rows("s")
    assert [int(row["epochs"]) for row in found] == [2] * 4 + [4] * 2 + [8]
    for before, after in ((found[:4], found[4:6]), (found[4:6], found[6:])):
        order = sorted(before, key=lambda row: -float(row["validation_accuracy"]))
        kept = {(row["lr"], row["batch_size"]) for row in order[: len(after)]}
        assert {(row["lr"], row["batch_size"]) for row in after} == kept
    assert ran.result["best"] == found[-1]["trial"]
    whole = run(
        "train", "--config", f"s/{found[-1]['trial']}/config.toml", "--out", "m.safetensors"
    )
    assert whole.code == 0
    assert Path("m.safetensors").read_bytes() == models("s")[found[-1]["trial"]]
    once = run("sweep", "s.toml", "--run", "other", "--json", "--workers", 1)
    assert once.code == 0
    assert Path("other/results.csv").read_bytes() == Path("s/results.csv").read_bytes()


def test_regression(place):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (80, 1, 6, 6), np.uint8)
    y = x.mean(axis=(1, 2, 3))
    np.savez("n.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    text = (
        "data = 'n.npz'\nnet = 'flatten dense1'\nregression = true\nvalidation = 0.2\nepochs = 20\n"
    )
    ran = run("sweep", write(text + "[sweep]\n[grid]\nlr = [0.001, 0.01]\n"))
    assert ran.code == 0
    assert "by validation loss" in ran.out
    assert re.search(r"test +R² 0\.\d", ran.out)
    assert [float(row["test_r2"]) <= 1 for row in rows("s")] == [True, True]


def some_trials(space):
    """Trials of a space's grid, with an outcome each, as if they were trained."""
    trials = [
        Trial(n, f"trial-{n:03d}", varied, {"epochs": 4})
        for n, varied in enumerate(grid_of(space), 1)
    ]
    return [(t, Outcome("finished", 4, 1 / t.number, 4, {}, 1.0)) for t in trials]


class TestShown:
    @pytest.mark.parametrize(
        ("table", "labels"),
        [
            ({"lr": [0.001, 0.1]}, ["lr", "validation loss"]),
            (
                {
                    "net": ["small", "conv8 relu pool conv16 relu pool flatten dense10"],
                    "lr": [1, 2],
                },
                ["net", "lr", "validation loss", "small", "1", "2", "conv8 relu …tten dense10"],
            ),
            ({"balanced": [True, False], "freeze": [[], ["conv"]]}, ["True", "False", "none"]),
        ],
    )
    def test_the_picture(self, table, labels):
        space = read_space(table, name="grid")
        figure = draw(ranked(some_trials(space), "loss"), space, "loss", "validation loss")
        figure.canvas.draw()
        shown = {text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))}
        assert {*labels} <= shown

    def test_the_best_first(self):
        (*rows,) = some_trials(read_space({"lr": [1, 2, 3]}, name="grid"))
        later = dataclasses.replace(rows[0][0], options={"epochs": 8}, round=1)
        rows.append((later, Outcome("finished", 8, 9.0)))
        rows.append((dataclasses.replace(later, number=9), Outcome("failed", 8, 0.0)))
        order = [(trial.number, trial.epochs) for trial, _ in ranked(rows, "loss")]
        assert order == [(1, 8), (3, 4), (2, 4), (1, 4), (9, 8)]
        order = [trial.number for trial, _ in ranked(rows[:3], "accuracy")]
        assert order == [1, 2, 3]

    def test_epochs_that_are_searched_are_no_rounds(self):
        rows = [
            (Trial(n, f"trial-{n:03d}", {"epochs": n}, {"epochs": n}), Outcome("finished", n, n))
            for n in (1, 2, 3)
        ]
        assert [trial.number for trial, _ in ranked(rows, "loss")] == [1, 2, 3]

    @posix
    def test_a_terminal(self, place):
        """The table lives, and fits; in the end the whole one stays."""
        import fcntl
        import pty
        import struct
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
        child = subprocess.Popen(
            command("sweep", write(GRID), "--workers", 2),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(TERM="xterm-256color"),
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux, when the other end has closed
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        assert child.wait(60) == 0
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
        lines = [line for line in re.split(r"[\r\n]+", text) if "/" not in line]  # but for paths
        assert max(map(len, lines)) <= 70
        assert "2 running, 2 waiting of 4" in text
        assert "4 finished of 4" in text
        assert "best       trial-00" in text


class TestFailures:
    def test_a_trial_that_fails_is_kept_with_its_reason(self, place):
        text = GRID.replace("[0.02, 0.1]", "[0.05, 1e30]").replace("[8, 16]", "[16]")
        text = text.replace("epochs = 4", "epochs = 4\nclip = inf\nmomentum = 0.0")
        ran = run("sweep", write(text), columns=200)
        assert ran.code == 0
        good, bad = rows("s")
        assert (good["state"], bad["state"]) == ("finished", "failed")
        assert "loss" in bad["reason"]
        assert bad["reason"] in ran.out
        assert "best       trial-001" in ran.out
        assert run("runs", "s", "--json").events[1]["state"] == "failed"
        log = Path("s/trial-002/log.txt").read_text(encoding="utf-8")
        again = run("sweep", "s.toml")  # it is not tried again
        assert again.code == 0
        assert Path("s/trial-002/log.txt").read_text(encoding="utf-8") == log

    def test_no_trial_learned_anything(self, place):
        text = BASE + "clip = inf\nmomentum = 0.0\n[sweep]\n[grid]\nlr = [1e30, 1e31]\n"
        ran = run("sweep", write(text), "--json")
        assert ran.code == 1
        assert ran.err == "error: no trial learned anything; search in other values\n"
        assert [row["state"] for row in rows("s")] == ["failed", "failed"]
        assert ran.result["best"] is None

    @posix
    def test_a_full_disk(self, place):
        """A limit on the size of files takes the part of the disk, which is the same to Python."""
        text = GRID.replace("[8, 16]", "[16]").replace(
            '"conv2 relu pool flatten dense3"', '"flatten dense200 relu dense3"'
        )
        limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000));"
        limited += "from fullback.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", limited, "sweep", write(text)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=120,
        )
        assert done.returncode == 1
        assert re.fullmatch(
            r"error: 2 trials were not trained to the end \(\S+: File too large\); once the reason "
            r"is gone, the same command goes on with the sweep in s\n",
            done.stderr,
        )
        assert run("sweep", "s.toml").code == 0
        assert {row["state"] for row in rows("s")} == {"finished"}
