"""fullback train, on the built-in digits and on toy data: what it writes, saves and is told."""

import re
import signal
from typing import get_args

import numpy as np
import pytest

import fullback as fb
from fullback.cli.train_options import OptimizerName
from fullback.training.optimizers import OPTIMIZERS
from fullback.training.schedules import SCHEDULES
from support.command import done, run

pytestmark = pytest.mark.filterwarnings("default::fullback.errors.DeadUnitWarning")

START = """data training_images test_images net origin parameters frozen epochs batch_size
    optimizer schedule augment seed engine"""
EPOCH = """comparison epoch loss accuracy validation_loss validation_accuracy seconds
    images_per_second validation_balanced validation_f1 learning_rate"""
RESULT = """test_accuracy test_loss epochs interrupted seconds model previous attempt seed
    best_epoch pixels"""
COMPARISON = "test_accuracy frozen_test_accuracy"
FIELDS = {"start": START, "epoch": EPOCH, "result": RESULT, "comparison": COMPARISON}
RECIPE = ["--epochs", 4, "--lr", 0.02, "--seed", 3]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def model(folder):
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def trained(model):
    """The default network, trained on the digits and compared, in JSON."""
    return done("train", *RECIPE, "--compare", "--json", "--out", model)


@pytest.fixture(scope="module")
def toy(folder):
    """30 images of 28x28 in three classes, so that a run takes no time."""
    x = RNG.integers(0, 256, (30, 28, 28), np.uint8)
    np.savez(folder / "toy.npz", x=x, y=np.arange(30) % 3)
    return folder / "toy.npz"


class TestTrain:
    def test_events(self, trained, model):
        events = trained.events
        four = ["epoch"] * 4
        assert [e["event"] for e in events] == ["start", *four, "result", *four, "comparison"]
        for event in events:
            assert list(event) == ["event", *FIELDS[event["event"]].split()]
        start, epochs = events[0], [e for e in events if e["event"] == "epoch"]
        result, comparison = trained.result, events[-1]
        assert start["data"] == "digits"
        assert (start["training_images"], start["test_images"]) == (1437, 360)
        assert (start["net"], start["parameters"], start["frozen"]) == ("question", 2970, [])
        assert start["optimizer"] == "SGD(0.02, clip_norm=2.0, momentum=0.9, nesterov=True)"
        assert (start["schedule"], start["seed"]) == ("warm_cosine", 3)
        assert (start["epochs"], start["batch_size"]) == (4, 64)
        assert [e["epoch"] for e in epochs] == [*range(1, 5)] * 2
        assert [e["comparison"] for e in epochs] == [False] * 4 + [True] * 4
        assert epochs[3]["loss"] < epochs[0]["loss"]
        assert all(e["seconds"] > 0 and 0 <= e["accuracy"] <= 1 for e in epochs)
        assert all(e["validation_loss"] is e["validation_accuracy"] is None for e in epochs)
        assert comparison["test_accuracy"] == result["test_accuracy"]
        assert result["test_accuracy"] > max(0.6, comparison["frozen_test_accuracy"])
        assert result["seconds"] > sum(e["seconds"] for e in epochs[:4])
        assert (result["epochs"], result["interrupted"]) == (4, False)
        assert result["model"] == str(model)

    def test_page(self, trained, model, tmp_path):
        """The same run for people: the same file to the bit, and the same figures."""
        again = tmp_path / "again.safetensors"
        page = done("train", *RECIPE, "--no-compare", "--out", again)
        assert again.read_bytes() == model.read_bytes()
        assert [path.name for path in tmp_path.iterdir()] == [again.name]
        accuracy, loss = trained.result["test_accuracy"], trained.result["test_loss"]
        assert f"test       {accuracy:.2%} right: {accuracy * 360:.0f} of 360 images" in page.out
        assert f"loss {loss:.4f}\n" in page.out
        assert "data       digits: 1,437 training and 360 test images of 1 x 28 x 28" in page.out
        assert page.out.count("epoch ") == 4
        assert f"saved      {again} (" in page.out
        assert "again " not in page.out.replace(str(again), "")

    def test_page_of_a_comparison(self, toy, tmp_path):
        out = tmp_path / "m.safetensors"
        page = done("train", "--data", toy, "--epochs", 13, "--compare", "--out", out).out
        assert page.count("epoch ") == 14  # of 13 epochs every second and the last, twice
        assert "again      the same network from the same seed, its filters frozen" in page
        assert re.search(r"filters +test accuracy +wrong", page)
        assert re.search(r"trained +\d+\.\d\d% +\d+", page)

    def test_another_seed(self, trained, model, tmp_path):
        other = tmp_path / "other.safetensors"
        done("train", "--epochs", 1, "--seed", 4, "--no-compare", "--out", other)
        assert other.read_bytes() != model.read_bytes()

    def test_frozen_filters_stay_to_the_bit(self, trained, tmp_path):
        out = tmp_path / "frozen.safetensors"
        options = [*RECIPE, "--freeze", "conv", "--json", "--out", out]
        ran = done("train", *options)
        assert ran.events[0]["frozen"] == ["conv1", "conv2"]
        assert ran.result["test_accuracy"] == trained.events[-1]["frozen_test_accuracy"]
        net, initial = fb.load(out), fb.zoo.question(seed=3)
        assert net.frozen == {"conv1", "conv2"}
        for name, values in initial.parameters.items():
            same = np.array_equal(net.parameters[name], values)
            assert same == name.startswith("conv"), name

    @pytest.mark.parametrize(
        ("options", "compared"),
        [
            ([], True),
            (["--net", "question"], True),
            (["--no-compare"], False),
            (["--freeze", "conv1"], False),
            (["--net", "flatten dense10"], False),
            (["--net", "conv1 flatten dense10", "--compare"], True),
            (["--freeze", "dense1", "--compare"], True),
        ],
    )
    def test_whether_it_compares(self, options, compared, tmp_path):
        out = tmp_path / "m.safetensors"
        ran = done("train", *options, "--epochs", 1, "--json", "--out", out)
        events = ["start", "epoch", "result", *["epoch", "comparison"] * compared]
        assert [e["event"] for e in ran.events] == events

    @pytest.mark.parametrize(
        "net",
        [
            *fb.zoo.NETWORKS,
            "flatten dense3",
            "conv2 relu pool flatten dropout0.5 dense4 tanh dense3",
        ],
    )
    def test_every_network(self, net, toy, tmp_path):
        out = tmp_path / "m.safetensors"
        ran = done("train", "--data", toy, "--net", net, "--epochs", 1, "--json", "--out", out)
        assert ran.events[0]["net"] == net
        assert ran.events[0]["data"] == "toy"
        assert fb.load(out).output_shape == (3,)
        assert len(ran.events) == 3

    @pytest.mark.parametrize(
        ("options", "optimizer"),
        [
            (["--lr", 0.5], "SGD(0.5, clip_norm=2.0, momentum=0.9, nesterov=True)"),
            (["--clip", "inf"], "SGD(0.05, momentum=0.9, nesterov=True)"),
            (["--lr", 0.03, "--momentum", 0], "SGD(0.03, clip_norm=2.0)"),
            (["--optimizer", "adam"], "Adam()"),
            (["--optimizer", "adamw", "--lr", 0.01], "AdamW(learning_rate=0.01)"),
        ],
    )
    def test_optimizers(self, options, optimizer, toy, tmp_path):
        common = ["--data", toy, "--net", "flatten dense3", "--epochs", 1, "--batch-size", 16]
        common += ["--schedule", "constant", "--json", "--out", tmp_path / "m.safetensors"]
        start = done("train", *common, *options).events[0]
        assert (start["optimizer"], start["schedule"]) == (optimizer, "constant")

    def test_the_choices_are_all_that_there_are(self):
        """They are written out, so that help does not have to import what they name."""
        assert [*get_args(OptimizerName)] == [*OPTIMIZERS]
        assert all(name in run("train", "--help").out for name in SCHEDULES)
        text = done("train", "--help", columns=200).out
        assert f" {', '.join(fb.zoo.NETWORKS)}, or layers" in text

    def test_epochs_and_batches_by_default(self, toy, tmp_path, monkeypatch):
        monkeypatch.setattr("fullback.training.fit.fit", lambda *a, **k: fb.History())
        options = ["--no-compare", "--json", "--out", tmp_path / "m.safetensors"]
        start = done("train", *options).events[0]
        assert (start["epochs"], start["batch_size"]) == (round(60_000 / 1437), 64)
        monkeypatch.setattr("fullback.cli.recipe.IMAGES_TO_SEE", 24 * 4)
        start = done("train", "--data", toy, *options).events[0]
        assert (start["epochs"], start["batch_size"]) == (5, 24)

    def test_more_outputs_than_classes(self, toy, tmp_path):
        """A guess that has no name among the classes is shown by its number."""
        out = tmp_path / "m.safetensors"
        options = ["--data", toy, "--net", "flatten dense9", "--epochs", 1, "--out", out]
        assert "taken for" in done("train", *options).out
        net = fb.load(out)
        net.parameters["dense1.bias"] = np.arange(9) * 100.0
        fb.save(net, out)
        page = done("eval", out, "--data", toy).out
        assert page.count("taken for 8 (100.0%)") == 3
        assert "test       0.00% right: 0 of 6 images" in page


@pytest.mark.parametrize("batch", [2, 20])
def test_interrupted(toy, tmp_path, monkeypatch, batch):
    """Ctrl-C: the network is saved and tested, and the exit code tells."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        pytest.skip("Ctrl-C is ignored here")
    batches = iter(range(1000))

    def count(*_):
        if next(batches) == batch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("fullback.training.progress.TrainingProgress.batch", count)
    out = tmp_path / "m.safetensors"
    options = ["--epochs", 8, "--compare", "--json", "--batch-size", 12, "--out", out]
    ran = run("train", "--data", toy, *options)
    assert ran.code == 130
    assert ran.events[0]["event"] == "start"
    in_comparison = any(event.get("comparison") for event in ran.events)
    assert ran.result["interrupted"] is not in_comparison
    assert ran.events[-1]["event"] != "comparison"
    data = fb.load_data(toy)
    assert fb.load(out).score(data.x_test, data.y_test) == ran.result["test_accuracy"]


class TestEval:
    def test_what_train_said(self, trained, model):
        (result,) = done("eval", model, "--json").events
        metrics = result.pop("metrics")
        assert metrics["accuracy"] == trained.result["test_accuracy"]
        assert sum(metrics["support"]) == 360
        assert result == {
            "event": "result",
            "model": str(model),
            "data": "digits",
            "test_images": 360,
            "test_accuracy": trained.result["test_accuracy"],
            "test_loss": trained.result["test_loss"],
            "threshold": None,
        }

    def test_page(self, trained, model):
        page = done("eval", model).out
        assert f"model      {model}\n" in page
        assert "data       digits, 360 test images" in page
        page, _, classes = page.partition("precision")
        assert re.search(r"F1 +0\.\d{4} on average", classes)
        rows = [line.split() for line in page.splitlines() if re.match(r" \d  ", line)]
        counts = [[int(n.replace(".", "0")) for n in row[1:11]] for row in rows]
        right = sum(counts[k][k] for k in range(10))
        assert [sum(row) for row in counts] == [*np.bincount(fb.load_data("digits").y_test)]
        assert right == round(trained.result["test_accuracy"] * 360)
        assert page.count("taken for") == min(3, 360 - right)


def test_training_that_diverges_late_saves_the_last_good_epoch(tmp_path, monkeypatch):
    fit = fb.fit

    def fit_and_diverge(net, *data, **options):
        fit(net, *data, **{**options, "epochs": 1})
        raise fb.DivergenceError("the loss became nan in epoch 2, batch 1", epochs=1)

    model = tmp_path / "model.safetensors"
    monkeypatch.setattr("fullback.training.fit.fit", fit_and_diverge)
    ran = run("train", "--net", "flatten dense10", "--epochs", 2, "--out", model)
    assert ran.code == 1
    assert ran.err == f"error: the loss became nan in epoch 2, batch 1; it is saved as {model}\n"
    trained = fb.load(model).parameters["dense1.weight"]
    start = fb.Network.parse("flatten dense10", (1, 28, 28)).parameters["dense1.weight"]
    assert not np.array_equal(trained, start)


def test_training_that_diverges_at_once_saves_nothing(tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"an earlier model")
    ran = run("train", "--net", "flatten dense10", "--lr", 1e38, "--out", model)
    assert ran.code == 1
    assert "the network learned nothing in 3 attempts: the loss became" in ran.err
    assert model.read_bytes() == b"an earlier model"
