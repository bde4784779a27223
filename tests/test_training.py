"""Training: reproducible, exact in its weights, careful with what it changes, and interruptible.

Where ``approx`` is given no tolerance, its own 1e-6 is meant: far above the rounding of the float64
sums here, far below what one image or one step more or less would change.
"""

import io
import math
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from rich.console import Console
from threadpoolctl import threadpool_info

from fullback import (
    SGD,
    Adam,
    AdamW,
    Dense,
    History,
    MeanSquaredError,
    Network,
    Tanh,
    find_rate,
    fit,
    load_data,
    schedules,
    zoo,
)
from fullback.errors import DataError, DivergenceError, InputError, OptionError, ShapeError
from fullback.training.dead import failed
from support.networks import GOOD, TEXT, net_and_data, train


def arrays(net):
    """Copy all that training may change."""
    return {name: a.copy() for name, a in (*net.parameters.items(), *net.statistics.items())}


def assert_same(actual, desired):
    assert list(actual) == list(desired)
    for name, array in actual.items():
        np.testing.assert_array_equal(array, desired[name], err_msg=name)


class TestSeeds:
    def test_the_same_seed_gives_the_same_weights_and_history(self):
        runs = []
        for seed in (3, 3, 4):
            net, x, y = net_and_data()
            history = train(net, x, y, seed=seed)
            runs.append((arrays(net), history["loss"]))
        assert_same(runs[0][0], runs[1][0])
        assert runs[0][1] == runs[1][1]
        assert (runs[0][0]["dense1.weight"] != runs[2][0]["dense1.weight"]).any()

    @pytest.mark.parametrize("name", ["question", "small"])
    def test_the_same_seed_gives_the_same_weights_with_any_number_of_threads(self, name):
        script = f"""
import hashlib
import numpy as np
import fullback as fb
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (128, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, 128)
net = fb.zoo.{name}()
fb.fit(net, x, y, epochs=1, verbose=False)
print(hashlib.sha256(b"".join(p.tobytes() for p in net.parameters.values())).hexdigest())
"""
        digests = {
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", script],
                env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout
            for threads in ("1", "2")
        }
        assert len(digests) == 1


class TestLearning:
    @pytest.mark.parametrize(
        "optimizer", [SGD(0.1), SGD(0.05, 0.9, nesterov=True), Adam(0.01), AdamW(0.01)]
    )
    def test_bars_are_learned(self, optimizer):
        """Horizontal or vertical: one row or one column of a 6x6 image is bright."""
        rng = np.random.default_rng(0)
        x, y = 0.1 * rng.random((60, 1, 6, 6)), np.arange(60) % 2
        for image, label in zip(x[:, 0], y, strict=True):
            place = rng.integers(6)
            image[(place, slice(None)) if label else (slice(None), place)] = 1
        net = Network.parse("conv4 leakyrelu pool flatten dense2", (1, 6, 6), seed=1)
        history = fit(net, x, y, epochs=25, batch_size=10, optimizer=optimizer, verbose=False)
        assert net.score(x, y) == 1
        assert history["loss"][-1] < 0.2 * history["loss"][0]
        assert history["accuracy"][-1] == 1

    def test_a_line_is_learned(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(50, 3))
        targets = x @ [[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]] + [0.5, -2.0]
        net = Network([Dense(2)], (3,), loss=MeanSquaredError(), dtype="float64")
        history = train(net, x, targets, epochs=60, optimizer=SGD(0.2))
        # 420 steps, each of which shrinks the error by a tenth or more, leave nothing of it
        np.testing.assert_allclose(net.parameters["dense1.bias"], [0.5, -2.0], atol=1e-9)
        assert history["accuracy"] == [None] * 60
        assert net.score(x, targets) == pytest.approx(1)

    def test_a_step_is_the_optimizers_on_the_gradients(self):
        net, x, y = net_and_data(dtype="float64", text="conv2 tanh flatten dense4")
        before, (loss, gradients) = arrays(net), net.loss_and_gradients(x, y)
        history = train(net, x, y, epochs=1, batch_size=20, optimizer=SGD(0.1))
        assert history["loss"] == pytest.approx([loss])  # the images in another order
        for name, gradient in gradients.items():
            # sums over 20 images of 36 cells, in another order
            np.testing.assert_allclose(
                net.parameters[name], before[name] - 0.1 * gradient, rtol=0, atol=1e-14
            )

    def test_the_last_batch_takes_what_is_left(self):
        """Five images in batches of four, each with a weight of its own, all weights 0."""
        net = Network([Dense(2, bias=False)], (5,), dtype="float64")
        net.parameters["dense1.weight"] = np.zeros((2, 5))
        train(net, np.eye(5), [0, 0, 0, 0, 1], epochs=1, batch_size=4, optimizer=SGD(1.0))
        # each class has 1/2; so four steps of (1 - 1/2) / 4, and one of (1 - 1/2) / 1
        steps = np.sort(np.abs(net.parameters["dense1.weight"][0]))
        np.testing.assert_allclose(steps, [1 / 8] * 4 + [1 / 2], rtol=1e-15)

    def test_the_schedule_multiplies_the_learning_rate(self):
        net, x, y = net_and_data()
        seen, start = [], arrays(net)

        def schedule(done):
            seen.append(done)
            return 0.0

        train(net, x, y, schedule=schedule)
        assert seen == [step / 6 for step in range(6)]  # 2 epochs of 3 batches
        assert_same(dict(net.parameters), {name: start[name] for name in net.parameters})
        assert [schedules.cosine(done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
        assert {schedules.constant(done) for done in (0, 0.3, 1)} == {1}


class TestFreezing:
    def test_frozen_layers_stay_bit_for_bit(self):
        net, x, y = net_and_data()
        train(net, x, y)
        net.freeze("conv", "batchnorm")
        before = arrays(net)
        train(net, x, y, optimizer=AdamW(0.1))
        changed = {name for name, a in arrays(net).items() if (a != before[name]).any()}
        assert changed == {"dense1.weight", "dense1.bias"}
        net.unfreeze("batchnorm")
        train(net, x, y)
        changed = {name for name, a in arrays(net).items() if (a != before[name]).any()}
        assert {"batchnorm1.mean", "batchnorm1.variance", "batchnorm1.weight"} < changed
        assert not {"conv1.weight", "conv1.bias"} & changed

    def test_batchnorm_statistics_move_with_every_batch(self):
        net, x, y = net_and_data(text="batchnorm flatten dense4", dtype="float64")
        train(net, x, y, epochs=1, batch_size=20)
        # from 0 and 1, a tenth of the way, to the mean and the unbiased variance of all values
        assert net.statistics["batchnorm1.mean"] == pytest.approx([0.1 * x.mean()])
        assert net.statistics["batchnorm1.variance"] == pytest.approx([0.9 + 0.1 * x.var(ddof=1)])

    def test_normalize_is_measured_once(self):
        net, x, y = net_and_data(text="normalize flatten dense4", dtype="float64")
        train(net, x, y)
        assert net.statistics["normalize1.mean"] == pytest.approx([x.mean()])
        assert net.statistics["normalize1.deviation"] == pytest.approx([x.std()])
        before = dict(arrays(net))
        train(net, x + 1, y)
        assert net.statistics["normalize1.mean"] == before["normalize1.mean"]


class TestSampleWeights:
    @pytest.mark.parametrize("text", ["conv2 tanh flatten dense4", "batchnorm flatten dense4"])
    def test_weight_0_removes_an_image(self, text):
        results = []
        for kept in (slice(None), [0, 1, 2, 4, 5]):
            net, x, y = net_and_data(6, text, dtype="float64")
            weights = np.array([1.0, 1, 1, 0, 1, 1])[kept]
            train(net, x[kept], y[kept], batch_size=5, sample_weight=weights)
            results.append(net)
        for name, p in results[0].parameters.items():
            # the same sums in another order, over two steps
            np.testing.assert_allclose(p, results[1].parameters[name], rtol=0, atol=1e-13)

    def test_weight_2_is_an_image_twice(self):
        results = []
        for again, weights in (([0, 1, 2], [1, 2, 1]), ([0, 1, 1, 2], None)):
            net, x, y = net_and_data(3, "conv2 tanh flatten dense4", dtype="float64")
            history = train(net, x[again], y[again], batch_size=len(again), sample_weight=weights)
            results.append((net, history["loss"]))
        # the same sums in another order, over two steps
        assert results[0][1] == pytest.approx(results[1][1], rel=1e-13)
        for name, p in results[0][0].parameters.items():
            np.testing.assert_allclose(p, results[1][0].parameters[name], rtol=0, atol=1e-13)


class TestHistory:
    def test_figures(self):
        net, x, y = net_and_data()
        seen = []
        history = train(net, x, y, validation_data=(x[:5], y[:5]), callbacks=[seen.append])
        assert list(history) == seen == history.epochs
        assert len(history) == 2
        assert history["epoch"] == [1, 2]
        assert not history.interrupted
        assert history["validation_loss"][-1] == net.evaluate(x[:5], y[:5]).loss
        assert history["validation_accuracy"][-1] == net.score(x[:5], y[:5])
        for epoch in history:
            assert epoch.images_per_second == pytest.approx(20 / epoch.seconds)
        with pytest.raises(KeyError, match=r"no figure is called 'los'; there are .*'loss'"):
            history["los"]
        assert train(net, x, y)["validation_loss"] == [None, None]

    def test_the_loss_is_the_mean_over_all_images(self):
        net, x, y = net_and_data(text="flatten dense4", dtype="float64")
        history = train(net, x, y, optimizer=SGD(1e-300), epochs=1)
        evaluation = net.evaluate(x, y)
        assert history["loss"] == pytest.approx([evaluation.loss])
        assert history["accuracy"] == [evaluation.score]


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_a_batch_has_all_images_where_there_are_fewer(engine):
    """The default batch size of 64 trains 20 images as one batch, as batch_size=20 does."""
    results = []
    for options in ({}, {"batch_size": 20}, {"batch_size": 21}):
        net, x, y = net_and_data()
        fit(net, x, y, epochs=2, verbose=False, engine=engine, **options)
        results.append(arrays(net))
    assert_same(results[0], results[1])
    assert_same(results[2], results[1])
    found = [find_rate(net, x, y, batch_size=size, steps=20).suggestion for size in (20, 64)]
    assert found[0] == found[1]


NAN = np.where(np.arange(20)[:, None, None, None] == 7, np.nan, GOOD[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, OptionError, "batch_size must be a whole number of at least 1, got 0"),
        ({"epochs": 0}, OptionError, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, OptionError, "epochs must be a whole number of at least 1, got 1.5"),
        ({"seed": -1}, OptionError, "seed must be a whole number of at least 0, got -1"),
        ({"optimizer": "adam"}, OptionError, r"must be an optimizer like SGD\(.*\), got 'adam'"),
        ({"x": NAN}, InputError, "image 7 holds NaN"),
        ({"y": GOOD[2] + 1}, InputError, "label 4 of image"),
        ({"y": GOOD[2][:-1]}, ShapeError, "y must be 20 labels"),
        ({"sample_weight": [1.0]}, ShapeError, "sample_weight must be 20 numbers"),
        ({"validation_data": (NAN, GOOD[2])}, InputError, "image 7 holds NaN"),
        ({"validation_data": (GOOD[1], GOOD[2][:3])}, ShapeError, "y must be 20 labels"),
        ({"validation_data": (GOOD[1], GOOD[2], None)}, OptionError, "validation_data must be"),
        ({"callbacks": [print, "log"]}, OptionError, "callbacks must be functions, got 'log'"),
        ({"schedule": "cosine"}, OptionError, "schedule must be a function .* got 'cosine'"),
        ({"verbose": 2}, OptionError, "verbose must be True, False or a rich Console, got 2"),
    ],
)
def test_what_cannot_be_trained_changes_nothing(options, error, message):
    net, x, y = net_and_data(text="normalize " + TEXT)
    before = arrays(net)
    options = {"x": x, "y": y, "verbose": False, "epochs": 1, "batch_size": 8, **options}
    with pytest.raises(error, match=message):
        fit(net, **options)
    assert_same(arrays(net), before)


def test_a_network_without_anything_to_train():
    net, x, y = net_and_data()
    net.freeze("conv", "batchnorm", "dense")
    with pytest.raises(
        OptionError, match="every layer with parameters is frozen: there is nothing"
    ):
        train(net, x, y)


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (SGD, {"learning_rate": 0.0}, r"SGD: learning_rate must be a number in \(0, inf\), got 0"),
        (SGD, {"learning_rate": "fast"}, r"learning_rate must be a number in .* got 'fast'"),
        (SGD, {"learning_rate": math.inf}, r"learning_rate must be a number in .* got inf"),
        (SGD, {"momentum": 1.0}, r"SGD: momentum must be a number in \[0, 1\), got 1"),
        (SGD, {"weight_decay": -1}, r"SGD: weight_decay must be a number in \[0, inf\), got -1"),
        (SGD, {"nesterov": True}, "SGD: nesterov=True needs a momentum, like momentum=0.9"),
        (Adam, {"beta1": 1}, r"Adam: beta1 must be a number in \[0, 1\), got 1"),
        (Adam, {"beta2": math.nan}, r"Adam: beta2 must be a number in \[0, 1\), got nan"),
        (Adam, {"epsilon": 0}, r"Adam: epsilon must be a number in \(0, inf\), got 0"),
        (AdamW, {"weight_decay": -0.1}, r"AdamW: weight_decay must be a number in \[0, inf\)"),
    ],
)
def test_optimizers_that_make_no_sense(optimizer, options, message):
    with pytest.raises(OptionError, match=message):
        optimizer(**{"learning_rate": 0.1, **options})


class TestDivergence:
    text = "conv3 batchnorm relu flatten dense6 relu dense4"

    def test_names_the_layer_and_restores_the_epoch(self):
        net, x, y = net_and_data(text="conv3 relu flatten dense6 relu dense4")
        before = arrays(net)
        message = "loss became (nan|inf) in epoch 1, batch [23]: (conv1|dense1|dense2) is the first"
        with pytest.raises(DivergenceError, match=message) as raised:
            train(net, x, y, optimizer=SGD(1e30))
        assert "has its weights from before training; train with a smaller" in str(raised.value)
        assert_same(arrays(net), before)

    def test_a_later_epoch_keeps_the_one_before(self):
        net, x, y = net_and_data(text=self.text)
        after = []
        with pytest.raises(DivergenceError, match=r"epoch 2, .* from the end of epoch 1; train"):
            train(
                net, x, y,
                schedule=lambda done: 1.0 if done < 0.5 else 1e38,
                callbacks=[lambda epoch: after.append(arrays(net))],
            )  # fmt: skip
        assert_same(arrays(net), after[0])

    def test_the_last_step_counts_as_well(self):
        net, x, y = net_and_data(text=self.text)
        before = arrays(net)
        with pytest.raises(DivergenceError, match=r"1\.\w+ was no longer finite after epoch 1;"):
            train(net, x, y, epochs=1, batch_size=20, optimizer=SGD(1e39))
        assert_same(arrays(net), before)

    def test_statistics_count_as_well(self):
        net, x, y = net_and_data(text="batchnorm flatten dense4")
        before = arrays(net)
        with pytest.raises(DivergenceError, match=r"batchnorm1.variance was no longer finite"):
            train(net, 1e25 * x, y, epochs=1)
        assert_same(arrays(net), before)


class TestEveryRunTrains:
    """Whether a run trains may depend neither on its seed nor on its number of epochs."""

    # Without clipping these ended with both convolutions' ReLUs dead, at 10 %.
    lost = ((3, 0), (3, 8), (6, 2), (7, 1), (9, 9))

    @pytest.mark.parametrize(("epochs", "seed"), lost)
    def test_the_question_s_network_on_digits(self, epochs, seed):
        data = load_data("digits")
        net = zoo.question(seed=seed)
        history = fit(net, data.x_train, data.y_train, epochs=epochs, seed=seed, verbose=False)
        assert net.score(data.x_test, data.y_test) > 0.85
        assert failed(net, history, data.x_train, data.y_train) is None

    @pytest.mark.parametrize("epochs", [2, 5, 10])
    def test_numbers_are_learned(self, epochs):
        """The row of a bright spot, of 400 images: without clipping, most of these diverged."""
        for seed in range(3):
            rng = np.random.default_rng(seed)
            places, grid = rng.uniform(3, 13, (400, 2)), np.arange(16)
            spots = (grid[:, None] - places[:, 0, None, None]) ** 2
            spots = np.exp(-(spots + (grid - places[:, 1, None, None]) ** 2) / 8)
            rows = (places[:, 0] - places[:, 0].mean()) / places[:, 0].std()
            text = "normalize conv8 relu pool conv16 relu pool flatten dense64 relu dense1"
            net = Network.parse(text, (1, 16, 16), loss=MeanSquaredError(), seed=seed)
            history = fit(net, spots, rows, epochs=epochs, seed=seed, verbose=False)
            assert net.score(spots, rows) > 0.8
            assert failed(net, history, spots, rows) is None


class TestFailed:
    def question(self, **parameters):
        data = load_data("digits")
        net = zoo.question(seed=0)
        net.parameters.update(parameters)
        return failed(net, History(), data.x_train, data.y_train)

    def test_a_dead_layer(self):
        assert "relu2 is dead" in self.question(**{"conv2.bias": [-1e3]})

    def test_chance(self):
        zeros = {"dense2.weight": np.zeros((10, 49)), "dense2.bias": np.zeros(10)}
        assert "the commonest class alone is" in self.question(**zeros)
        likely = {"dense2.weight": np.zeros((10, 49)), "dense2.bias": np.eye(10)[3]}
        assert "the commonest class alone is" in self.question(**likely)

    def test_a_rare_class_that_is_found_among_others_is_no_failure(self):
        """As with balanced classes: less often right than always the commonest class would be."""
        x = np.zeros((200, 1, 2, 2), np.float32)
        y = (np.arange(200) % 40 == 0).astype(int)
        x[y == 1], x[1:30] = 1, 1  # all rare ones, and others that look like them
        net = Network.parse("flatten dense2", (1, 2, 2))
        net.parameters["dense1.weight"] = [[-1] * 4, [1] * 4]
        net.parameters["dense1.bias"] = [2, -2]
        assert net.score(x, y) < 0.975
        assert failed(net, History(), x, y) is None

    def test_numbers(self):
        x, y = GOOD[1], np.arange(20.0)
        net = Network.parse("flatten dense1", (1, 6, 6), loss=MeanSquaredError())
        net.parameters["dense1.weight"] *= np.float32(1e38)
        assert "answers are not finite" in failed(net, History(), x * np.float32(1e3), y)
        assert "that of the targets' mean alone is 33.2" in failed(net, History(), x, y)
        assert failed(net, History(), x, np.zeros(20)) is None  # there is nothing to explain


def test_a_file_that_is_cut_short_while_it_is_trained_on(tmp_path):
    """To read on would end the process by a signal."""
    path = tmp_path / "x.npy"
    np.save(path, GOOD[1])
    x = np.load(path, mmap_mode="r")
    net, _, y = net_and_data()

    def cut(epoch):
        with path.open("r+b") as file:
            file.truncate(4096)

    with pytest.raises(DataError, match="cut short while it was trained on: it has"):
        train(net, x[:, :1], y, epochs=9, callbacks=[cut])


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_the_lane_engine_leaves_the_threads_of_others_alone(engine):
    """Limiting BLAS in one thread, while another one forks, could stop both for ever."""
    limits = []
    net, x, y = net_and_data()
    threads = [own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"]

    def look(epoch):
        limits.append(
            [own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"]
        )

    train(net, x, y, engine=engine, callbacks=[look])
    assert limits[0] == (threads if engine == "lanes" else [1] * len(threads))


class Interrupting(Tanh):
    """A layer in which Ctrl-C is pressed while it trains."""

    times = 1

    def forward(self, x, parameters, *, training=False, rng_key=0):
        for _ in range(self.times if training else 0):
            signal.raise_signal(signal.SIGINT)
        return super().forward(x, parameters, training=training, rng_key=rng_key)


class TwiceInterrupting(Interrupting):
    times = 2


def interrupted_net(layer):
    return Network([Dense(5), layer, Dense(4)], (36,))


class TestInterrupt:
    x, y = GOOD[1].reshape(20, 36), GOOD[2]

    @pytest.fixture(autouse=True)
    def _python_answers_ctrl_c(self):
        """Start and end each test where Ctrl-C interrupts, which it does not in the background."""
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        assert signal.signal(signal.SIGINT, previous) is signal.default_int_handler

    def test_ends_after_the_running_batch(self):
        net = interrupted_net(Interrupting())
        before, output = arrays(net), io.StringIO()
        history = fit(
            net, self.x, self.y, batch_size=8, engine="reference", verbose=Console(file=output)
        )
        assert history.interrupted
        assert len(history) == 0
        assert (
            "interrupted in epoch 1, after batch 1 of 3: the network keeps what"
            in output.getvalue()
        )
        after = arrays(net)
        assert all(np.isfinite(a).all() for a in after.values())
        assert (after["dense2.weight"] != before["dense2.weight"]).any()

    def test_weights_that_have_diverged_are_not_kept(self):
        net = interrupted_net(Interrupting())
        before = arrays(net)
        with pytest.raises(DivergenceError, match="no longer finite"):
            train(net, self.x, self.y, optimizer=SGD(1e39), engine="reference")
        assert_same(arrays(net), before)

    def test_a_second_one_interrupts_at_once(self):
        with pytest.raises(KeyboardInterrupt):
            train(interrupted_net(TwiceInterrupting()), self.x, self.y, engine="reference")

    @pytest.mark.parametrize("last", [False, True])
    def test_between_epochs_ends_there(self, last):
        net = Network([Dense(4)], (36,))
        kept = []

        def callback(epoch):
            kept.append(arrays(net))
            if epoch.epoch == 2:
                signal.raise_signal(signal.SIGINT)

        history = train(net, self.x, self.y, epochs=2 if last else 5, callbacks=[callback])
        assert history.interrupted
        assert len(history) == 2
        assert_same(arrays(net), kept[-1])

    def test_other_handlers_and_threads_are_left_alone(self):
        calls = []
        signal.signal(signal.SIGINT, lambda *_: calls.append(1))
        try:
            history = train(
                interrupted_net(Interrupting()), self.x, self.y, epochs=1, engine="reference"
            )
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        assert not history.interrupted
        assert len(calls) == 3
        results = []
        thread = threading.Thread(
            target=lambda: results.append(train(Network([Dense(4)], (36,)), self.x, self.y))
        )
        thread.start()
        thread.join()
        assert len(results[0]) == 2
