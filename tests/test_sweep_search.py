"""What fullback sweep searches: the space, the rounds, and what it says of a wrong file."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from fullback.errors import OptionError
from fullback.sweep.search import read_search
from fullback.sweep.space import Range, draws_of, grid_of, read_space
from support.command import run
from support.sweeps import BASE, GRID, write, write_data


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
            (Range(1.0, 1.0002, steps=3), (1.0, 1.0001, 1.0002)),
            (Range(-0.5, 0.5, steps=3), (-0.5, 0.0, 0.5)),
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

    def test_a_narrow_range_has_more_digits(self):
        shares = np.random.default_rng(0).random(500)
        assert len({Range(1.0, 1.001).draw(float(share)) for share in shares}) > 300
        assert len({*Range(0.1, 1.0, steps=20000).grid()}) == 20000

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
    HEAD + "[grid]\nlr = {from = 0.1, to = 1.0, steps = 99999}\nmixup = [0, 1]": "has 199,998 comb",
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


def test_an_error_of_reading():
    with pytest.raises(OptionError, match="unknown key 'method_'; did you mean method"):
        read_search({"method_": "grid"}, {"lr": [1]}, None)
