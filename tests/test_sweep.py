"""fullback sweep: what it searches, in processes here, and what it says of a wrong file."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fullback.errors import OptionError
from fullback.sweep.search import read_search
from fullback.sweep.space import Range, draws_of, grid_of, read_space
from support.command import environment, posix, run
from support.sweeps import BASE, GRID, LONG, models, rows, write, write_data


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with a data set."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


class TestSpace:
    def test_a_grid_in_the_order_of_the_file(self):
        space = read_space({"lr": [0.1, 0.2], "net": ["a", "b"]}, name="grid")
        assert [tuple(row.values()) for row in grid_of(space)] == [
            *((0.1, "a"), (0.1, "b"), (0.2, "a"), (0.2, "b"))
        ]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (Range(0.001, 0.1, log=True, steps=3), (0.001, 0.01, 0.1)),
            (Range(0.0, 1.0, steps=5), (0.0, 0.25, 0.5, 0.75, 1.0)),
            (Range(8, 64, log=True, steps=4), (8, 16, 32, 64)),
            (Range(1, 3, steps=9), (1, 2, 3)),
        ],
    )
    def test_a_grids_range(self, values, expected):
        assert values.grid() == expected
        assert [type(value) for value in values.grid()] == [type(value) for value in expected]

    @pytest.mark.parametrize(
        "values", [Range(1, 4), Range(1, 4, log=True), Range(0.1, 0.4), Range(1e-3, 1, log=True)]
    )
    def test_a_draw_is_between_the_ends(self, values):
        shares = [0.0, *np.random.default_rng(0).random(3000), np.nextafter(1, 0)]
        drawn = [values.draw(float(share)) for share in shares]
        assert values.low <= min(drawn)
        assert max(drawn) <= values.high
        if values.whole:
            assert {*drawn} == {1, 2, 3, 4}
            assert all(isinstance(value, int) for value in drawn)
        if values == Range(1, 4):  # each as often, but for four deviations
            assert all(abs(drawn.count(n) - 750) < 4 * np.sqrt(750 * 0.75) for n in {*drawn})
        if values == Range(1e-3, 1, log=True):  # each power of ten as often
            below = sum(value < 1e-2 for value in drawn)
            assert abs(below - 1000) < 4 * np.sqrt(1000 * 2 / 3)

    def test_draws_depend_on_seed_and_names_alone(self):
        table = {
            "lr": {"from": 0.001, "to": 0.1},
            "net": ["a", "b"],
            "epochs": {"from": 1, "to": 9},
        }
        space = read_space(table, name="space")
        again = read_space(dict(reversed(table.items())), name="space")
        drawn = draws_of(space, 12, 3)
        assert drawn[:5] == draws_of(space, 5, 3)
        assert drawn == draws_of(again, 12, 3)
        assert drawn != draws_of(space, 12, 4)
        assert len({json.dumps(row) for row in drawn}) == 12
        assert list(drawn[0]) == ["lr", "net", "epochs"]

    def test_a_space_that_is_used_up(self):
        space = read_space({"net": ["a", "b"], "epochs": {"from": 1, "to": 3}}, name="space")
        drawn = draws_of(space, 100, 0)
        every = itertools.product("ab", range(1, 4))
        assert sorted(tuple(row.values()) for row in drawn) == sorted(every)

    @pytest.mark.parametrize(
        ("trials", "epochs", "more", "expected"),
        [
            (9, 18, {}, [(9, 2), (3, 6), (1, 18)]),
            (10, 18, {}, [(10, 2), (4, 6), (2, 18)]),
            (9, 18, {"min_epochs": 5}, [(9, 6), (3, 18)]),
            (16, 8, {"factor": 2}, [(16, 1), (8, 2), (4, 4), (2, 8)]),
            (2, 1, {}, [(2, 1)]),
            (1, 50, {}, [(1, 50)]),
        ],
    )
    def test_rounds_of_halving(self, trials, epochs, more, expected):
        sweep = {"method": "halving", "trials": trials, **more}
        search = read_search(sweep, None, {"lr": {"from": 0.1, "to": 1}})
        assert [(r.trials, r.epochs) for r in search.rounds(trials, epochs)] == expected


HEAD = BASE + "[sweep]\n"
ONE = "[grid]\nlr = [0.1]\n"
DRAW = "[space]\nlr = { from = 0.1, to = 0.2 }\n"
WRONG = {
    "data = ": "is not TOML",
    BASE: "there is no table [sweep]",
    "sweep = 3": "'sweep' must be a table, [sweep]",
    HEAD: "give either [grid] or [space]",
    HEAD + ONE + DRAW: "give either [grid] or [space]",
    HEAD + "[grid]": "[grid] is empty",
    HEAD + "metod = 'grid'\n" + ONE: "[sweep] has the unknown key 'metod'; did you mean method?",
    HEAD + "method = 'gird'\n" + ONE: "got 'gird'; did you mean grid?",
    HEAD + "method = 'grid'\n" + DRAW: "method 'grid' needs [grid]",
    HEAD + "method = 'random'\n" + ONE: "method 'random' needs [space]",
    HEAD + "trials = 3\n" + ONE: "[sweep] trials goes with [space]",
    HEAD + "factor = 3\n" + ONE: "[sweep] factor goes with method 'halving'",
    HEAD + DRAW: "[sweep] needs trials",
    HEAD + "trials = 0\n" + DRAW: "[sweep] trials must be a whole number of at least 1, got 0",
    HEAD + "trials = 2.5\n" + DRAW: "[sweep] trials must be a whole number of at least 1, got 2.5",
    HEAD + "metric = 'acuracy'\n" + ONE: "[sweep] metric is 'acuracy'; did you mean accuracy?",
    HEAD
    + "metric = 3\n"
    + ONE: "[sweep] metric must be one of loss, accuracy, balanced, f1, got 3",
    HEAD + "workers = 0\n" + ONE: "[sweep] workers must be a whole number of at least 1, got 0",
    HEAD
    + "workers = 'host'\n"
    + ONE: "address of a Dask scheduler like tcp://host:8786, got 'host'",
    HEAD + "[grid]\nlr = 0.1": "[grid] lr must be a list of values or a range",
    HEAD + "[grid]\nlr = []": "[grid] lr is an empty list",
    HEAD + "[grid]\nlr = [0.1, 0.1]": "[grid] lr lists 0.1 twice",
    HEAD + "[grid]\nlr = {from = 0.1, to = 1.0}": "a range in a grid needs 'steps'",
    HEAD + "trials = 1\n[space]\nlr = {from = 0.1, to = 1.0, steps = 3}": "'steps' is for [grid]",
    HEAD + "trials = 1\n[space]\nlr = {from = 0.1, til = 1.0}": "unknown key 'til'",
    HEAD + "trials = 1\n[space]\nlr = {from = 0.1, to = 0.1}": "'from' must be less than 'to'",
    HEAD + "trials = 1\n[space]\nlr = {from = 0.1, to = nan}": "'to' must be a number, got nan",
    HEAD
    + "trials = 1\n[space]\nlr = {from = 0, to = 1, scale = 'log'}": "'from' must be more than 0",
    HEAD
    + "trials = 1\n[space]\nlr = {from = 1, to = 2, scale = 'ln'}": "must be 'linear' or 'log'",
    HEAD + "[grid]\nlrr = [0.1]": "[grid] has the unknown option 'lrr'; did you mean lr?",
    "epoch = 3\n[sweep]\n" + ONE: "it has the unknown option 'epoch'; did you mean epochs?",
    "out = 'x'\n[sweep]\n" + ONE: "it has the unknown option 'out'",
    "lr = true\n[sweep]\n[grid]\nepochs = [1]": "it has lr = true, which is no flag",
    "lr = 0.1\n[sweep]\n" + ONE: "'lr' stands above the tables and in [grid]",
    HEAD
    + "[grid]\nvalidation = [0.1, 0.2]": "[grid] has 'validation', with which trials would not",
    HEAD + "[grid]\nmonitor = ['loss']": "trials are compared by one [sweep] metric",
    HEAD + "method = 'halving'\n[grid]\nepochs = [1, 2]": "'epochs', which halving chooses",
    "attempts = 3\n" + HEAD + ONE: "'attempts' must be 1 in a sweep",
    "monitor = 'f1'\n" + HEAD + "metric = 'loss'\n" + ONE: "'monitor' and [sweep] metric must be",
    BASE.replace("validation = 0.2", "") + "[sweep]\n" + ONE: "keep some of the training images",
    HEAD + "[grid]\nlr = [0.1, 'x']": "with lr = x: Invalid value for '--lr'",
    HEAD + "[grid]\nlr = [0.1, -1]": "with lr = -1: ",
    HEAD.replace("net =", "#")
    + "[grid]\nnet = ['flatten dense3', 'flaten']": "with net = flaten: ",
    HEAD
    + "[grid]\noptimizer = ['adam']\nmomentum = [0.5]": "--momentum goes with sgd, not with adam",
    HEAD + "[grid]\nbalanced = [true, false]": 'give one [sweep] metric, as in metric = "balanced"',
    HEAD + "[grid]\nlabel_smoothing = [0.0, 0.1]": "trials differ in 'label_smoothing'",
}


@pytest.mark.parametrize("text", WRONG, ids=WRONG.values())
def test_a_file_that_is_wrong(place, text):
    ran = run("sweep", write(text))
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("error: s.toml")
    assert WRONG[text] in ran.err
    assert not Path("s").exists()


def test_a_file_that_is_not_there(place):
    ran = run("sweep", "nope.toml")
    assert (ran.code, ran.err) == (2, "error: nope.toml: No such file or directory\n")


def test_data_that_cannot_be_used(place):
    ran = run("sweep", write(GRID.replace("toy.npz", "nope.npz")))
    assert ran.code in (1, 2)
    assert ran.err.startswith("error: s.toml: with lr = 0.02, batch_size = 8: ")
    assert len(ran.err.splitlines()) == 1


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


def test_an_error_of_reading():
    with pytest.raises(OptionError, match="unknown key 'method_'; did you mean method"):
        read_search({"method_": "grid"}, {"lr": [1]}, None)
