"""Figures of answers, pictures, the learning-rate finder; and what runs keep of them."""

import csv
import json
import re
import sys

import numpy as np
import pytest

import fullback as fb
from fullback.metrics import measure
from fullback.training.rate_finder import find_rate
from support.command import done, run

RNG = np.random.default_rng(0)


class TestMeasure:
    def test_by_hand(self):
        """Four images of three classes: 0, 0, 1, 2 are taken for 0, 1, 1, 1."""
        p = np.array([[0.9, 0.05, 0.05], [0.3, 0.5, 0.2], [0.1, 0.7, 0.2], [0.1, 0.5, 0.4]])
        found = measure([0, 0, 1, 2], p)
        assert found.accuracy == 0.5
        np.testing.assert_array_equal(found.confusion, [[1, 1, 0], [0, 1, 0], [0, 1, 0]])
        np.testing.assert_allclose(found.precision, [1, 1 / 3, 0])
        np.testing.assert_allclose(found.recall, [1 / 2, 1, 0])
        np.testing.assert_allclose(found.f1, [2 / 3, 1 / 2, 0])
        assert found.macro_f1 == pytest.approx(7 / 18)
        assert (found.k, found.top_k) == (2, 1.0)
        assert found.support.tolist() == [2, 1, 1]
        # 0.5 twice, of which none is right; 0.7 and 0.9, which are
        assert found.images.tolist() == [2, 1, 1]
        np.testing.assert_allclose(found.probability, [0.5, 0.7, 0.9])
        np.testing.assert_allclose(found.right, [0, 1, 1])
        assert found.calibration_error == pytest.approx((2 * 0.5 + 0.3 + 0.1) / 4)

    def test_perfect_answers(self):
        y = np.arange(20) % 4
        found = measure(y, np.eye(4)[y])
        assert (found.accuracy, found.macro_f1, found.top_k) == (1, 1, 1)
        assert found.calibration_error == 0

    def test_classes_without_images_do_not_count(self):
        found = measure([0, 1], np.eye(5)[[0, 1]])
        assert found.macro_f1 == 1
        assert found.support.tolist() == [1, 1, 0, 0, 0]

    def test_probabilities_that_tell_the_truth_are_calibrated(self):
        p = RNG.dirichlet(np.ones(3), 20_000)
        y = (RNG.random(20_000)[:, None] > p.cumsum(axis=1)[:, :2]).sum(axis=1)
        assert measure(y, p).calibration_error < 0.02

    @pytest.mark.parametrize(
        ("labels", "probabilities", "message"),
        [
            ([0, 1], np.eye(3), "do not fit"),
            ([], np.zeros((0, 3)), "do not fit"),
            ([0, 1, 3], np.eye(3), "from 0 to 2"),
            ([0.0, 1.0, 2.0], np.eye(3), "from 0 to 2"),
            ([0, 1, 2], np.full((3, 3), np.nan), "from 0 to 1"),
            ([0, 1, 2], 2 * np.eye(3), "from 0 to 1"),
        ],
    )
    def test_what_is_refused(self, labels, probabilities, message):
        with pytest.raises(fb.FullbackError, match=message):
            measure(labels, probabilities)

    @pytest.mark.parametrize("k", [0, -1, 2.5, True, 4])
    def test_a_k_that_cannot_be(self, k):
        with pytest.raises(fb.FullbackError, match="k "):
            measure([0, 1, 2], np.eye(3), k)


class TestRateFinder:
    @pytest.mark.filterwarnings("ignore::fullback.DeadUnitWarning")
    def test_the_suggestion_trains_and_ten_times_it_does_not_better(self):
        data = fb.load_data("digits")
        net = fb.zoo.small(seed=0)
        before = net.parameters["conv1.weight"].copy()
        found = find_rate(net, data.x_train, data.y_train)
        np.testing.assert_array_equal(net.parameters["conv1.weight"], before)
        assert 0.003 < found.suggestion < 0.5
        assert len(found.rates) == len(found.losses)
        assert found.losses[0] == pytest.approx(np.log(10), abs=0.2)
        optimizer = fb.SGD(found.suggestion, momentum=0.9, nesterov=True)
        fb.fit(net, data.x_train, data.y_train, epochs=10, optimizer=optimizer, verbose=False)
        assert net.score(data.x_test, data.y_test) > 0.94

    @pytest.mark.parametrize("engine", ["lanes", "reference"])
    def test_the_same_seed_finds_the_same(self, engine):
        x, y = RNG.random((90, 1, 6, 6)), np.arange(90) % 3
        x[:, 0, 0, :3] += 3 * np.eye(3)[y]
        net = fb.Network.parse("flatten dense3", (1, 6, 6))
        one, two = (find_rate(net, x, y, batch_size=20, engine=engine) for _ in range(2))
        np.testing.assert_array_equal(one.losses, two.losses)

    def test_it_measures_what_fit_measures(self):
        data = fb.load_data("digits")
        x = data.x_train[:600].astype(np.float32) * 3 + 40
        found = []
        for adapted in (True, False):
            net = fb.Network.parse("normalize conv4 tanh flatten dense10", (1, 28, 28))
            if adapted:
                net.adapt(x)
            found.append(find_rate(net, x, data.y_train[:600]).suggestion)
            assert net.statistics["normalize1.images"] == (600 if adapted else 0)
        assert found[0] == found[1]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"least": 1, "most": 0.1}, r"least \(=1\) must be smaller"),
            ({"least": 0}, "least must be a number"),
            ({"steps": 5}, "steps must be a whole number"),
            ({"least": 1e4, "most": 1e5}, "the loss does not fall"),
        ],
    )
    def test_wrong_options(self, options, message):
        x, y = RNG.random((90, 1, 6, 6)), np.arange(90) % 3
        net = fb.Network.parse("conv2 relu flatten dense3", (1, 6, 6))
        with pytest.raises(fb.OptionError, match=message):
            find_rate(net, x, y, batch_size=20, **options)

    def test_the_command(self, tmp_path):
        picture = tmp_path / "rate.png"
        page = done("rate", "--plot", picture).out
        assert re.search(r"suggestion *--lr 0\.\d+", page)
        assert page.count("about here") == 1
        assert picture.read_bytes().startswith(b"\x89PNG")
        (result,) = done("rate", "--json").events
        assert f"--lr {result['suggestion']:g}" in page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--net", "conv2 tanh pool flatten dense10", "--epochs", 3, "--validation", 0.2]
    options += ["--augment", "shift=1 rotate=5", "--patience", 2, "--average", 0.9]
    done("train", *options, "--run", folder, columns=200)
    return folder


class TestRuns:
    """What is kept of a run, and shown of it."""

    def test_history(self, folder):
        rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
        same = json.loads((folder / "history.json").read_text())
        assert [float(row["validation_loss"]) for row in rows] == [
            row["validation_loss"] for row in same
        ]

    def test_the_best_epoch_is_kept(self, folder):
        best, model = (fb.load(folder / f"{name}.safetensors") for name in ("best", "model"))
        for name, array in best.parameters.items():
            np.testing.assert_array_equal(model.parameters[name], array)
        assert model.class_names == tuple("0123456789")

    def test_log(self, folder):
        lines = (folder / "log.txt").read_text().splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*  ", line) for line in lines)
        text = "\n".join(lines)
        for words in ("training begins", "epoch 3: loss", "validation accuracy", "test: "):
            assert words in text

    def test_pictures(self, folder):
        pytest.importorskip("matplotlib")
        from PIL import Image

        names = {path.name for path in (folder / "plots").iterdir()}
        assert names == {
            "calibration.png", "confusion.png", "filters.png", "mistakes.png", "training.png",
            "roc.png", "precision_recall.png",
        }  # fmt: skip
        for path in (folder / "plots").iterdir():
            with Image.open(path) as image:
                assert min(image.size) > 200
                assert len(set(image.convert("L").tobytes())) > 10  # something is drawn

    def test_tensorboard(self, folder):
        pytest.importorskip("tensorboardX")
        (events,) = (folder / "tensorboard").iterdir()
        content = events.read_bytes()
        for name in (b"loss", b"validation_accuracy"):
            assert name in content

    def test_the_configuration_says_how(self, folder):
        text = (folder / "config.toml").read_text()
        assert 'augment = "shift=1 rotate=5"' in text
        assert "patience = 2" in text

    def test_eval_draws(self, folder, tmp_path):
        pytest.importorskip("matplotlib")
        page = done("eval", folder / "model.safetensors", "--plots", tmp_path / "p").out
        assert page.count("written") == 5
        assert (tmp_path / "p" / "confusion.png").exists()

    def test_without_matplotlib(self, folder, tmp_path, monkeypatch):
        for module in [name for name in sys.modules if name.startswith("matplotlib")]:
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        ran = run("eval", folder / "model.safetensors", "--plots", tmp_path / "p")
        assert ran.code == 2
        assert "pip install 'fullback[plot]'" in ran.err


def test_class_names_are_kept_and_said(tmp_path):
    from PIL import Image

    for name, value in (("cat", 40), ("dog", 220)):
        for n in range(10):
            path = tmp_path / "pets" / name / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = RNG.integers(-20, 20, (8, 8))
            Image.fromarray((value + noise).astype(np.uint8)).save(path)
    model = tmp_path / "m.safetensors"
    done("train", "--data", tmp_path / "pets", "--net", "flatten dense2", "--out", model)
    assert fb.load(model).class_names == ("cat", "dog")
    page = done("predict", tmp_path / "pets" / "dog" / "3.png", "--model", model, columns=200).out
    assert re.search(r"3\.png +dog +\d.*L 8x8", page)


def test_eval_tests_on_the_images_that_were_kept_for_it(tmp_path):
    """Random labels are learned by heart: on other images than those kept, that would show."""
    path, model = tmp_path / "noise.npz", tmp_path / "m.safetensors"
    np.savez(path, x=RNG.integers(0, 256, (300, 8, 8), dtype=np.uint8), y=RNG.integers(0, 4, 300))
    options = ["--data", path, "--net", "flatten dense128 relu dense4", "--epochs", 60]
    options += ["--split-seed", 1, "--test-share", 0.3, "--json", "--out", model]
    trained = done("train", *options).result
    assert trained["test_accuracy"] < 0.5
    (result,) = done("eval", model, "--data", path, "--json").events
    assert result["test_accuracy"] == trained["test_accuracy"]
    assert result["test_images"] == 90
