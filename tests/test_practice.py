"""What training needs beside the gradient: schedules, stopping, clipping, mixing, averages."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.metrics import balanced_accuracy_score, f1_score

import fullback as fb
from fullback import schedules
from fullback.training.history import best_epoch, improvements, warm_up
from fullback.training.training_data import by_class

pytestmark = pytest.mark.filterwarnings("ignore::fullback.DeadUnitWarning")

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 2, 9, 7), dtype=np.uint8)
Y = np.arange(50) % 3
TEXT = "conv4(bias=false) batchnorm relu pool flatten dense9 relu dense3"


def network(text=TEXT, **options):
    return fb.Network.parse(text, X.shape[1:], seed=1, **options)


def train(net=None, x=X, y=Y, **options):
    net = net or network()
    options = {"epochs": 3, "batch_size": 20, "verbose": False, **options}
    return net, fb.fit(net, x, y, **options)


def arrays(net):
    return dict(net.parameters) | dict(net.statistics)


def assert_same(one, other):
    for name, array in arrays(one).items():
        np.testing.assert_array_equal(arrays(other)[name], array, err_msg=name)


VIEWS = fb.Augment(shift=2, rotate=30, flip="horizontal", erase=2, elastic=10, sigma=2)
CLIPPED = fb.SGD(0.05, momentum=0.9, weight_decay=1e-3, clip_norm=0.05)
PRACTICES = {
    "augment": {"augment": VIEWS},
    "mixup": {"mixup": 0.4},
    "clip": {"optimizer": CLIPPED},
    "clip adam": {"optimizer": fb.AdamW(0.01, clip_norm=0.05)},
    "average": {"average": 0.9},
    "all": {"augment": VIEWS, "mixup": 0.4, "optimizer": CLIPPED, "average": 0.9},
}
every_practice = pytest.mark.parametrize("name", PRACTICES)


@every_practice
def test_the_engine_trains_as_the_reference_does(name):
    lanes, one = train(**PRACTICES[name])
    reference, other = train(**PRACTICES[name], engine="reference")
    for key, array in arrays(reference).items():
        # Nine steps; the rounding of a float32 sum grows with every one.
        np.testing.assert_allclose(arrays(lanes)[key], array, atol=2e-4, err_msg=key)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


@every_practice
def test_every_practice_changes_something(name):
    assert not np.array_equal(
        train(**PRACTICES[name])[0].parameters["conv1.weight"],
        train()[0].parameters["conv1.weight"],
    )


@every_practice
def test_the_number_of_threads_changes_nothing(name, monkeypatch):
    runs = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("FULLBACK_NUM_THREADS", threads)
        runs.append(
            train(**PRACTICES[name], x=np.repeat(X, 4, 0), y=np.repeat(Y, 4), batch_size=90)
        )
    assert_same(runs[0][0], runs[1][0])
    assert_same(runs[0][0], runs[2][0])


@every_practice
def test_images_that_are_copied_first_are_trained_on_alike(name):
    float32 = X.astype(np.float32) / np.float32(255)
    wide = np.asfortranarray(float32)  # not readable in place
    assert_same(train(x=wide, **PRACTICES[name])[0], train(x=float32, **PRACTICES[name])[0])


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_a_run_with_everything_goes_on_to_the_same_weights(tmp_path, engine):
    class KilledError(Exception):
        pass

    def options(net, folder, until=None):
        def kill(epoch):
            if epoch.epoch == until:
                raise KilledError

        stopping = fb.EarlyStopping(net, 3, file=folder / "best.safetensors")
        return {
            **PRACTICES["all"],
            "epochs": 12,
            "schedule": schedules.Plateau(patience=1),
            "validation_data": (X[::5], Y[::5]),
            "checkpoint": folder / "run.safetensors",
            "callbacks": [kill, stopping] if until else [stopping],
            "engine": engine,
        }

    (tmp_path / "whole").mkdir()
    whole = network()
    _, history = train(whole, **options(whole, tmp_path / "whole"))
    assert len(history) > 3
    for until in range(1, len(history) + 1):
        folder = tmp_path / str(until)
        folder.mkdir()
        net = network()
        with pytest.raises(KilledError):
            train(net, **options(net, folder, until))
        net = network()
        _, again = train(net, **options(net, folder))
        assert_same(net, whole)
        assert again["validation_loss"] == history["validation_loss"]


class TestAugmentation:
    def test_the_first_epoch_sees_the_views_that_apply_shows(self):
        net = network("flatten dense3")
        before = net.parameters["dense1.weight"].copy()
        step = {"epochs": 1, "batch_size": 50, "schedule": schedules.constant, "seed": 7}
        train(net, augment=VIEWS, optimizer=fb.SGD(1.0), **step)
        desired = network("flatten dense3").loss_and_gradients(VIEWS.apply(X, seed=7, epoch=1), Y)
        gradient = before - net.parameters["dense1.weight"]
        np.testing.assert_allclose(gradient, desired[1]["dense1.weight"], atol=1e-4)

    def test_digits_are_learned_better_from_few(self):
        data = fb.load_data("digits")
        scores = []
        for augment in (None, fb.Augment(shift=2, rotate=10, scale=0.1)):
            net = fb.zoo.small(seed=0)
            fb.fit(
                net,
                data.x_train[:200],
                data.y_train[:200],
                epochs=60,
                augment=augment,
                verbose=False,
            )
            scores.append(net.score(data.x_test, data.y_test))
        assert scores[1] > scores[0] + 0.01

    def test_it_must_be_an_augment(self):
        with pytest.raises(fb.OptionError, match=r"augment must be like Augment\(shift=2\)"):
            train(augment="shift=2")


class TestMixup:
    def test_the_loss_is_the_mixture_of_both_labels_losses(self):
        loss = fb.SoftmaxCrossEntropy(label_smoothing=0.1)
        logits, y, z = RNG.normal(size=(6, 4)), np.arange(6) % 4, np.arange(6)[::-1] % 4
        mixed, memory = loss.forward(logits, loss.mixed(y, z, 0.3, 4))
        one, other = loss.forward(logits, y), loss.forward(logits, z)
        assert mixed == pytest.approx(0.3 * one[0] + 0.7 * other[0])
        desired = 0.3 * loss.backward(one[1]) + 0.7 * loss.backward(other[1])
        np.testing.assert_allclose(loss.backward(memory), desired)

    def test_of_regression_targets_are_mixed(self):
        targets = RNG.normal(size=(50, 3))
        nets = []
        for engine in ("lanes", "reference"):
            net = network(loss=fb.MeanSquaredError())
            train(net, y=targets, mixup=0.5, engine=engine)
            nets.append(net.parameters["dense2.weight"])
        np.testing.assert_allclose(*nets, atol=2e-4)

    @pytest.mark.parametrize("alpha", [-1, math.nan, "much"])
    def test_alpha_must_not_be_negative(self, alpha):
        with pytest.raises(fb.OptionError, match="mixup must be a number"):
            train(mixup=alpha)


class TestClipping:
    @pytest.mark.parametrize("engine", ["lanes", "reference"])
    def test_the_step_has_the_length_that_it_may_have(self, engine):
        step = {"epochs": 1, "batch_size": 50, "schedule": schedules.constant, "engine": engine}
        lengths = {}
        for limit in (1e-3, 1e9, None):
            net = network()
            before = {name: array.copy() for name, array in net.parameters.items()}
            train(net, optimizer=fb.SGD(1.0, clip_norm=limit), **step)
            moved = [net.parameters[name] - array for name, array in before.items()]
            lengths[limit] = math.sqrt(sum(float((own**2).sum()) for own in moved))
        assert lengths[1e-3] == pytest.approx(1e-3, rel=1e-3)
        assert lengths[1e9] == lengths[None] > 0.1

    def test_frozen_parameters_have_no_part_in_it(self):
        step = {"epochs": 1, "batch_size": 50, "schedule": schedules.constant}
        nets = []
        for engine in ("lanes", "reference"):
            net = network()
            net.freeze("conv")
            train(net, optimizer=fb.SGD(1.0, clip_norm=1e-2), engine=engine, **step)
            nets.append(net.parameters["dense1.weight"])
        np.testing.assert_allclose(*nets, atol=1e-6)

    @pytest.mark.parametrize("limit", [0, -1, math.nan, "1"])
    def test_the_limit_must_be_positive(self, limit):
        with pytest.raises(fb.OptionError, match="clip_norm must be a number"):
            fb.SGD(0.1, clip_norm=limit)


class TestAverage:
    def test_it_is_the_running_average_of_the_steps(self):
        """One batch an epoch, so that callbacks could see every step; here, a plain run can."""
        decay, steps, rate = 0.5, 6, 0.1
        plain = []
        for epochs in range(1, steps + 1):
            net = network("flatten dense3")
            train(
                net,
                epochs=epochs,
                batch_size=50,
                optimizer=fb.SGD(rate),
                schedule=schedules.constant,
            )
            plain.append(net.parameters["dense1.weight"].copy())
        average = network("flatten dense3").parameters["dense1.weight"].astype(float)
        for step, weight in enumerate(plain, 1):
            average += (1 - min(decay, (1 + step) / (10 + step))) * (weight - average)
        net = network("flatten dense3")
        train(
            net,
            epochs=steps,
            batch_size=50,
            optimizer=fb.SGD(rate),
            schedule=schedules.constant,
            average=decay,
        )
        np.testing.assert_allclose(net.parameters["dense1.weight"], average, atol=1e-6)

    def test_it_is_what_is_validated_and_what_callbacks_see(self):
        net = network()
        seen = []

        def look(epoch):
            seen.append((net.evaluate(X, Y).loss, epoch.validation_loss))

        train(net, average=0.9, validation_data=(X, Y), callbacks=[look])
        assert [loss for loss, _ in seen] == [loss for _, loss in seen]
        assert net.evaluate(X, Y).loss == seen[-1][0]

    @pytest.mark.parametrize("decay", [1, -0.1, math.nan])
    def test_the_decay_must_be_less_than_one(self, decay):
        with pytest.raises(fb.OptionError, match="average must be a number"):
            train(average=decay)


class TestClassWeight:
    def test_it_is_a_weight_of_every_image(self):
        by_image = np.array([1.0, 2.0, 0.5])[Y]
        assert_same(
            train(class_weight={1: 2.0, 2: 0.5})[0],
            train(sample_weight=by_image)[0],
        )

    def test_balanced(self):
        y = np.minimum(np.arange(50) // 20, 2)  # 20, 20 and 10 images
        by_image = 50 / (3 * np.array([20, 20, 10]))[y]
        one = train(y=y, class_weight="balanced")[0]
        assert_same(one, train(y=y, sample_weight=by_image)[0])

    def test_both_are_multiplied(self):
        weights = RNG.random(50)
        one = train(class_weight={0: 3.0}, sample_weight=weights)[0]
        assert_same(one, train(sample_weight=weights * np.array([3.0, 1, 1])[Y])[0])

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            ({3: 1.0}, "labels are 0 to 2"),
            ({0: -1.0}, r"class_weight\[0\] must be a number"),
            ({0: math.inf}, r"class_weight\[0\] must be a number"),
            ({"a": 1.0}, "a label in class_weight"),
            ("even", "class_weight must be a dict or 'balanced'"),
            ({0: 0, 1: 0, 2: 0}, "every image has weight 0"),
        ],
    )
    def test_weights_that_make_no_sense(self, weight, message):
        with pytest.raises(fb.FullbackError, match=message):
            train(class_weight=weight)

    def test_without_classes(self):
        net = network(loss=fb.MeanSquaredError())
        with pytest.raises(fb.OptionError, match="needs a classification loss"):
            train(net, y=RNG.normal(size=(50, 3)), class_weight="balanced")


# Schedules ----------------------------------------------------------------------------------------


def epochs(*figures):
    return [fb.Epoch(n, 1.0, 0.5, 1.0, figure, 1.0, 1.0) for n, figure in enumerate(figures, 1)]


def loss_of(number, loss, accuracy=0.5):
    """Return an epoch of that validation loss and accuracy."""
    return fb.Epoch(number, 1.0, 0.5, loss, accuracy, 1.0, 1.0)


class TestSchedules:
    def test_steps(self):
        steps = schedules.Steps(factor=0.1, at=(0.5, 0.75))
        assert [steps(done) for done in (0, 0.49, 0.5, 0.8)] == pytest.approx([1, 1, 0.1, 0.01])

    def test_one_cycle(self):
        cycle = schedules.OneCycle(rise=0.25, start=0.1, end=0.01)
        made = [cycle(done) for done in (0, 0.125, 0.25, 0.625, 1)]
        assert made == pytest.approx([0.1, 0.55, 1, 0.505, 0.01])

    def test_warm_up(self):
        warm = schedules.WarmUp(share=0.2, then=schedules.cosine)
        made = [warm(done) for done in (0, 0.1, 0.2, 0.6, 1)]
        assert made == pytest.approx([0.01, 0.505, 1, 0.5, 0])

    def test_plateau_shrinks_after_epochs_that_brought_nothing(self):
        plateau = schedules.Plateau(factor=0.5, patience=2, least=0.2)
        figures = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
        by_accuracy = schedules.Plateau(factor=0.5, patience=2, least=0.2, monitor="accuracy")
        losses = [loss_of(n, 1 - figure) for n, figure in enumerate(figures, 1)]
        for n, factor in enumerate([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]):
            assert by_accuracy.after(epochs(*figures[:n]))(0.3) == factor
            assert plateau.after(losses[:n])(0.3) == factor

    def test_plateau_in_training(self):
        """With a rate of next to nothing no epoch is better, and the factor falls."""
        seen = []
        plateau = schedules.Plateau(patience=1)
        train(
            network("flatten dense3"),
            schedule=plateau,
            epochs=4,
            optimizer=fb.SGD(1e-9),
            validation_data=(X, Y),
            callbacks=[seen.append],
        )
        assert plateau.after(seen)(0) == pytest.approx(0.3**3)

    @pytest.mark.parametrize(
        ("text", "schedule"),
        [
            ("constant", schedules.constant),
            ("steps", schedules.Steps()),
            ("steps(factor=0.3, at=0.8)", schedules.Steps(0.3, 0.8)),
            ("steps(at=(0.2, 0.5))", schedules.Steps(at=(0.2, 0.5))),
            (
                "warm_up(then=steps(factor=0.3, at=0.5), share=0.2)",
                schedules.WarmUp(0.2, schedules.Steps(0.3, 0.5)),
            ),
            (" one_cycle(rise=0.4)", schedules.OneCycle(0.4)),
            ("warm_up(share=0.2, then=constant)", schedules.WarmUp(0.2, schedules.constant)),
            ("plateau(patience=5)", schedules.Plateau(patience=5)),
        ],
    )
    def test_text(self, text, schedule):
        assert schedules.parse(text) == schedule

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("cosin", "did you mean cosine"),
            ("", "there are constant, cosine"),
            ("cosine(factor=2)", "has no options"),
            ("steps(factor=2)", r"factor must be a number in \(0, 1\)"),
            ("steps(factor=0.1", "lacks its closing bracket"),
            ("steps(by=0.1)", "'by=0.1' is not one of its options; .* options: factor, at"),
            ("steps(at=1.5)", "at must be a number"),
            ("warm_up(then=plateau)", "must be a function of the share"),
            ("plateau(patience=0)", "patience must be a whole number"),
        ],
    )
    def test_text_that_is_none(self, text, message):
        with pytest.raises(fb.OptionError, match=message):
            schedules.parse(text)

    def test_a_checkpoint_tells_schedules_apart(self, tmp_path):
        path = tmp_path / "run.safetensors"
        train(schedule=schedules.WarmUp(0.1, schedules.cosine), checkpoint=path)
        with pytest.raises(fb.InputError, match=r"was .*then=cosine\), and is .*then=constant"):
            train(schedule=schedules.WarmUp(0.1, schedules.constant), checkpoint=path)


# Early stopping and callbacks ---------------------------------------------------------------------


class TestEarlyStopping:
    def test_what_is_an_improvement(self):
        by_accuracy = improvements(epochs(0.5, 0.55, 0.56, 0.7), "accuracy", tol=0.05)
        assert by_accuracy == [True, False, False, True]
        losses = [loss_of(n, loss) for n, loss in enumerate((2.0, 1.99, 1.9, 1.95, 1.5), 1)]
        assert improvements(losses, tol=0.01) == [True, False, True, False, True]
        without = fb.Epoch(1, 3.0, 0.7, None, None, 1, 1)
        assert (without.judged_by("loss"), without.judged_by("accuracy")) == (-3, 0.7)

    def test_a_plateau_of_accuracy_is_no_end_while_the_loss_falls(self):
        """Nor is an epoch the best one because it came first of those of equal accuracy."""
        falling = [loss_of(n, 1 / n, 0.97) for n in range(1, 9)]
        assert improvements(falling, "accuracy") == [True] * 8
        assert best_epoch(falling, "accuracy") == 8
        rising = [loss_of(n, 1.0 + n, 0.97) for n in range(1, 4)]
        assert improvements(rising, "accuracy") == [True, False, False]
        assert best_epoch(rising, "accuracy") == 1

    def test_no_epoch_counts_while_the_rate_still_rises(self):
        net = network()
        stopping = fb.EarlyStopping(net, patience=2)
        worse = [
            dataclasses.replace(loss_of(n, float(n)), learning_rate=rate)
            for n, rate in enumerate((0.1, 0.2, 0.3, 0.4, 0.4, 0.3, 0.2), 1)
        ]
        assert [stopping(epoch) for epoch in worse[:6]] == [False] * 5 + [True]
        assert stopping.best == 1
        assert warm_up(worse[:1]) == 0
        flat = [dataclasses.replace(epoch, learning_rate=0.1) for epoch in worse]
        stopping = fb.EarlyStopping(net, patience=2)
        assert [stopping(epoch) for epoch in flat[:3]] == [False, False, True]

    @pytest.mark.parametrize("schedule", [schedules.warm_cosine, lambda done: min(done, 0.3)])
    def test_of_the_schedules_of_users_too(self, schedule):
        _, history = train(epochs=10, schedule=schedule)
        rates = history["learning_rate"]
        assert warm_up(history.epochs) == rates.index(max(rates)) + 1 in (3, 4)

    @pytest.mark.parametrize("monitor", ["loss", "accuracy", "balanced", "f1"])
    def test_the_best_epoch_is_the_best_by_what_is_monitored(self, monitor):
        net, kept = network(), {}
        stopping = fb.EarlyStopping(net, None, monitor=monitor)

        def keep(epoch):
            kept[epoch.epoch] = {name: array.copy() for name, array in arrays(net).items()}

        _, history = train(
            net, epochs=12, callbacks=[keep, stopping], validation_data=(X[::2], Y[::2])
        )
        figures = history[f"validation_{monitor}"]
        best = min(figures) if monitor == "loss" else max(figures)
        assert figures[stopping.best - 1] == best
        for name, array in kept[stopping.best].items():
            np.testing.assert_array_equal(arrays(net)[name], array)

    def test_balanced_accuracy_and_f1_are_scikit_learns(self):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            y, answers = rng.integers(0, 2 + seed % 3, 30), rng.integers(seed % 2, 4, 30)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of classes that are not among the labels
                desired = balanced_accuracy_score(y, answers), f1_score(y, answers, average="macro")
            assert by_class(y, answers) == pytest.approx(desired, abs=1e-12)

    def test_the_validation_loss_has_the_class_weights(self):
        net, history = train(
            validation_data=(X, Y), class_weight={1: 2.0, 2: 0.5}, average=0.0, epochs=1
        )
        by_image = np.array([1.0, 2.0, 0.5])[Y]
        desired, _ = net.loss.forward(net.logits(X), Y, by_image)
        assert history["validation_loss"] == [desired]

    @pytest.mark.parametrize("monitor", ["loss", "accuracy", "balanced", "f1"])
    def test_a_rare_class_is_not_given_up_for_its_rarity(self, monitor):
        """3 % of the images have a defect: an epoch that finds none is 97 % right, and no best."""
        rng = np.random.default_rng(0)
        x = rng.normal(120, 12, (900, 1, 16, 16)).clip(0, 255)
        y = (np.arange(900) % 33 == 0).astype(int)
        for n in np.flatnonzero(y):
            row, column = rng.integers(2, 11, 2)
            x[n, 0, row : row + 3, column : column + 3] = 230
        x = x.astype(np.uint8)
        held = np.arange(900) % 5 == 4
        net = fb.Network.parse("conv8 relu pool conv16 relu pool flatten dense2", (1, 16, 16))
        history = fb.fit(
            net, x[~held], y[~held], epochs=40, validation_data=(x[held], y[held]), verbose=False,
            callbacks=[fb.EarlyStopping(net, patience=5, monitor=monitor)],
        )  # fmt: skip
        assert history["validation_balanced"][:6] == [0.5] * 6  # none is found for a long time,
        assert min(history["validation_accuracy"][:6]) > 0.96  # which does not look bad
        found = net.predict(x[~held])[y[~held] == 1]
        assert found.mean() > 0.7

    @pytest.mark.parametrize(
        ("options", "fit_options", "message"),
        [
            ({"monitor": "recall"}, None, "monitor must be one of loss, accuracy, balanced, f1"),
            ({"monitor": "f1"}, {}, "EarlyStopping: monitor 'f1' needs validation_data"),
            ({"monitor": "accuracy"}, {"y": np.ones((50, 3))}, "'accuracy' needs classes"),
        ],
    )
    def test_what_cannot_be_monitored(self, options, fit_options, message):
        loss = fb.MeanSquaredError() if fit_options else None
        net = network(loss=loss)
        before = net.parameters["conv1.weight"].copy()
        with pytest.raises(fb.OptionError, match=message):  # noqa: PT012 -- in either of them
            stopping = fb.EarlyStopping(net, **options)
            train(net, callbacks=[stopping], **fit_options)
        np.testing.assert_array_equal(net.parameters["conv1.weight"], before)
        with pytest.raises(fb.OptionError, match="Plateau: monitor"):
            train(network(), schedule=schedules.Plateau(monitor="f1"))

    def test_the_network_gets_the_best_epoch_back(self, tmp_path):
        net, kept = network(), {}
        file = tmp_path / "best.safetensors"
        stopping = fb.EarlyStopping(net, patience=2, file=file)

        def keep(epoch):
            kept[epoch.epoch] = {name: array.copy() for name, array in arrays(net).items()}

        _, history = train(
            net,
            epochs=40,
            optimizer=fb.SGD(0.3, momentum=0.9),
            validation_data=(X[::4], (Y[::4] + 1) % 3),  # learning makes it worse
            callbacks=[keep, stopping],
        )
        losses = history["validation_loss"]
        assert stopping.best == losses.index(min(losses)) + 1
        warm = warm_up(history.epochs)
        assert len(history) == max(stopping.best, warm) + 2 < 40
        for name, array in kept[stopping.best].items():
            np.testing.assert_array_equal(arrays(net)[name], array)
            np.testing.assert_array_equal(arrays(fb.load(file))[name], array)

    def test_without_patience_all_epochs_are_trained(self):
        net = network()
        _, history = train(
            net, epochs=9, validation_data=(X, Y), callbacks=[fb.EarlyStopping(net, None)]
        )
        assert len(history) == 9
        assert net.evaluate(X, Y).loss == min(history["validation_loss"])

    def test_a_run_that_goes_on_has_its_best_epoch_in_the_checkpoint(self, tmp_path):
        def run(net, epochs, **options):
            return train(
                net,
                epochs=6,
                checkpoint=tmp_path / "run.safetensors",
                callbacks=[fb.EarlyStopping(net, None, **options), lambda e: e.epoch == epochs],
                validation_data=(X, (Y + 1) % 3),
                optimizer=fb.SGD(0.3),
            )

        net, resumed = network(), network()
        _, history = run(net, 5)
        assert best_epoch(history.epochs) < 5
        run(resumed, 5)
        assert_same(resumed, net)
        with safe_open(tmp_path / "run.safetensors", framework="numpy") as file:
            arrays_by_name = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        without = {n: own for n, own in arrays_by_name.items() if not n.startswith("best")}
        save_file(without, tmp_path / "run.safetensors", metadata)  # as an earlier version wrote it
        with pytest.raises(fb.InputError, match=r"give EarlyStopping the file .* monitor what"):
            run(network(), None)
        fb.save(network("flatten dense3"), tmp_path / "other.safetensors")
        with pytest.raises(fb.InputError, match="holds another network"):
            run(network(), None, file=tmp_path / "other.safetensors")

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"patience": 0}, "patience must be"), ({"tol": -1}, "tol must be")],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(fb.OptionError, match=message):
            fb.EarlyStopping(network(), **options)
        with pytest.raises(fb.OptionError, match="takes the network that is trained"):
            fb.EarlyStopping(5)


class TestCallbacks:
    def test_the_protocol(self):
        class Listening(fb.Callback):
            def __init__(self):
                self.heard = []

            def begin(self, history):
                self.heard.append(("begin", len(history)))

            def __call__(self, epoch):
                self.heard.append(("epoch", epoch.epoch))
                return epoch.epoch == 2

            def finish(self, history):
                self.heard.append(("finish", len(history)))

        listening = Listening()
        later = []
        train(epochs=5, callbacks=[listening, later.append])
        assert listening.heard == [("begin", 0), ("epoch", 1), ("epoch", 2), ("finish", 2)]
        assert len(later) == 2  # also called in the epoch that another callback ended

    def test_training_can_be_ended_before_it_begins(self):
        class Unwilling(fb.Callback):
            def begin(self, history):
                return True

        net, history = train(callbacks=[Unwilling()])
        assert len(history) == 0
        assert_same(net, network())


class TestTheEndOfTraining:
    @pytest.mark.parametrize("average", [0.0, 0.9])
    def test_after_a_divergence_the_best_epoch_is_given_back(self, average):
        net, seen = network("conv4 relu pool flatten dense3"), {}
        stopping = fb.EarlyStopping(net, None)

        def keep(epoch):
            seen[epoch.epoch] = {name: array.copy() for name, array in arrays(net).items()}

        with pytest.raises(fb.DivergenceError):
            train(
                net,
                epochs=5,
                average=average,
                schedule=lambda done: 1.0 if done < 0.6 else 1e30,
                validation_data=(X, (Y + 1) % 3),
                callbacks=[keep, stopping],
            )
        for name, array in seen[stopping.best].items():
            np.testing.assert_array_equal(arrays(net)[name], array)

    def test_a_network_that_is_not_trained_is_not_watched(self):
        with pytest.raises(fb.OptionError, match="watches another network"):
            train(callbacks=[fb.EarlyStopping(network())])


class TestImagesWithoutWeight:
    """They take no part, in nothing that is measured either."""

    weights = np.r_[np.ones(30), np.zeros(20)]

    def test_normalize_does_not_see_them(self):
        x = X.copy()
        x[30:] = 255
        net, alone = network("normalize flatten dense3"), network("normalize flatten dense3")
        train(net, x, sample_weight=self.weights)
        train(alone, x[:30], Y[:30])
        assert_same(net, alone)

    def test_balanced_does_not_count_them(self):
        y = np.r_[np.arange(30) % 2, np.ones(20, int)]
        one = train(y=y, sample_weight=self.weights, class_weight="balanced")[0]
        assert_same(one, train(y=y, sample_weight=self.weights)[0])  # 15 and 15 are balanced


def test_mixup_counts_either_label_by_its_share():
    """A network that is right about all images is right about all mixtures, as far as it can be."""
    x = np.zeros((48, 1, 3, 3), np.float32)
    y = np.arange(48) % 3
    x[np.arange(48), 0, y, y] = 1
    for engine in ("lanes", "reference"):
        net = fb.Network.parse("flatten dense3", (1, 3, 3))
        _, history = train(net, x, y, epochs=40, mixup=1.0, engine=engine, optimizer=fb.SGD(0.5))
        assert net.score(x, y) == 1
        assert 0.7 < history["accuracy"][-1] < 0.95  # the larger share of two


def test_mixup_needs_two_images():
    with pytest.raises(fb.OptionError, match="batches of at least 2"):
        train(batch_size=1, mixup=0.2)


def test_a_network_without_parameters():
    with pytest.raises(fb.OptionError, match="the network has no parameters"):
        train(fb.Network.parse("flatten", (3, 1, 1)), np.zeros((9, 3, 1, 1)), Y[:9], batch_size=2)


def test_class_weights_in_an_array():
    with pytest.raises(fb.OptionError, match="class_weight must be a dict"):
        train(class_weight=np.ones(3))


def test_a_checkpoint_knows_the_validation_data(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path, validation_data=(X[:9], Y[:9]))
    with pytest.raises(fb.InputError, match="the validation images or labels have changed"):
        train(checkpoint=path, validation_data=(X[9:20], Y[9:20]))
