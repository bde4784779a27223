"""CNNClassifier and CNNRegressor: scikit-learn's own checks, and what they do not look at."""

import copy
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fullback as fb
from fullback.errors import FullbackWarning, InputError, OptionError, ShapeError
from fullback.layers import Conv2D, Dense, Flatten, MaxPool2D, Normalize, ReLU

pytestmark = pytest.mark.filterwarnings("ignore::fullback.DeadUnitWarning")

DIGITS, LABELS = load_digits(return_X_y=True)
X, X_TEST, Y, Y_TEST = train_test_split(DIGITS, LABELS, random_state=0, stratify=LABELS)
QUICK = {"epochs": 8, "random_state": 0}


def exceptions(estimator):
    """What scikit-learn's own estimators that learn in batches are excused from, too."""
    reason = "a step's batch is drawn by position, so a weight of 2 is not the same as two rows"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks([fb.CNNClassifier(), fb.CNNRegressor()], expected_failed_checks=exceptions)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_digits():
    model = fb.CNNClassifier(random_state=0).fit(X, Y)
    assert model.score(X_TEST, Y_TEST) > 0.95
    assert model.image_shape_ == (1, 8, 8)
    assert model.n_features_in_ == 64
    assert len(model.loss_curve_) == model.n_iter_ == round(60_000 / len(X))
    p = model.predict_proba(X_TEST)
    assert p.shape == (len(X_TEST), 10)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X_TEST)), p)


def test_numbers_of_any_scale():
    features, y = load_diabetes(return_X_y=True)
    for y_scale, shift in ((1.0, 0.0), (1e4, -1e6), (1e-4, 0.0)):
        model = fb.CNNRegressor(epochs=30, random_state=0).fit(features, y_scale * y + shift)
        assert model.score(features, y_scale * y + shift) > 0.4


def test_several_outputs():
    y = np.stack([Y, -2.0 * Y], axis=1)
    model = fb.CNNRegressor(**QUICK).fit(X, y)
    assert model.predict(X_TEST).shape == (len(X_TEST), 2)
    assert model.score(X, y) > 0.5
    assert fb.CNNRegressor(**QUICK).fit(X, Y).predict(X_TEST).shape == (len(X_TEST),)


def test_bytes_and_the_same_numbers_as_floats_are_the_same_images():
    pixels = (X * 15).astype(np.uint8)
    model = fb.CNNClassifier(**QUICK).fit(pixels, Y)
    np.testing.assert_array_equal(model.predict(pixels), model.predict(pixels.astype(float)))
    model = fb.CNNClassifier(**QUICK).fit(pixels.astype(float), Y)
    np.testing.assert_array_equal(model.predict(pixels), model.predict(pixels.astype(float)))


@pytest.mark.parametrize("image_shape", [None, (3, 16, 12)])
def test_channels_are_read_where_they_are(image_shape):
    """As by ``load_data``."""
    first = np.random.default_rng(0).random((60, 3, 16, 12))
    last, y = np.moveaxis(first, 1, 3), np.arange(60) % 3
    fitted = []
    for images in (first, last):
        model = fb.CNNClassifier(image_shape=image_shape, epochs=2, random_state=0).fit(images, y)
        assert model.image_shape_ == (3, 16, 12)
        p = model.predict_proba(images)
        for other in (first, last, images.reshape(60, -1), images.tolist()):
            np.testing.assert_array_equal(model.predict_proba(other), p)
        fitted.append(p)
    np.testing.assert_array_equal(*fitted)


def test_image_shape_decides_what_the_shape_of_x_does_not_tell():
    x, y = np.random.default_rng(0).random((12, 3, 8, 1)), np.arange(12) % 2
    with pytest.warns(FullbackWarning, match="taken for"):
        model = fb.CNNClassifier(epochs=1).fit(x, y)
    assert model.image_shape_ == (3, 8, 1)
    assert fb.CNNClassifier(epochs=1, image_shape=(1, 3, 8)).fit(x, y).image_shape_ == (1, 3, 8)
    x = np.moveaxis(np.random.default_rng(0).random((12, 3, 16, 16)), 1, 3)
    with pytest.warns(FullbackWarning, match="is 16 channels of 16 x 3"):
        model = fb.CNNClassifier(epochs=1, image_shape=(16, 16, 3)).fit(x, y)
    assert model.image_shape_ == (16, 16, 3)
    with pytest.raises(ShapeError, match=r"X holds images of shape \(16, 16, 3\), but image_shape"):
        fb.CNNClassifier(image_shape=(3, 8, 32)).fit(x, y)


def white_squares(white, dtype=float):
    """Images with a bright square in one of the four corners."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    x = rng.uniform(0, 0.1, (200, 8, 8))
    for n, corner in enumerate(y):
        row, column = 4 * (corner // 2), 4 * (corner % 2)
        x[n, row + 1 : row + 3, column + 1 : column + 3] = rng.uniform(0.7, 1)
    x[0, 0, 0] = 1.0
    return (white * x).round().astype(dtype) if white > 1 else (white * x).astype(dtype), y


@pytest.mark.parametrize(
    ("white", "dtype"),
    [(1, np.float64), (16, np.float32), (16, np.uint8), (16, np.int64), (255, float)],
)
def test_image_files_are_brought_to_the_scale_of_fit(white, dtype):
    x, y = white_squares(white, dtype)
    model = fb.CNNClassifier(epochs=10, random_state=0).fit(x, y)
    assert model.score(x, y) == 1
    pixels, _ = white_squares(255, np.uint8)
    assert model.network_.score(pixels[:, None], y) == 1
    if white == 255:
        assert model.score(pixels, y) == 1
        return
    with pytest.warns(FullbackWarning, match="X is taken for pixels from 0 to 255"):
        assert model.score(pixels, y) == 1


def test_other_scales_than_that_of_fit_are_told():
    x, y = white_squares(1)
    pixels, _ = white_squares(255, np.uint8)
    model = fb.CNNClassifier(epochs=5, random_state=0).fit(pixels, y)
    assert model.score(pixels.astype(int), y) == model.score(pixels.astype("f4"), y) == 1
    with pytest.warns(FullbackWarning, match="fit had uint8 pixels up to 255"):
        model.predict(x)
    model = fb.CNNClassifier(epochs=5, random_state=0).fit(x, y)
    with pytest.warns(FullbackWarning, match="bring them to the same scale"):
        model.predict(255 * x)
    standard = (x - x.mean()) / x.std()
    model = fb.CNNClassifier(epochs=5, random_state=0).fit(standard, y)
    with pytest.raises(InputError, match="black and white is not known"):
        model.network_.predict(pixels[:, None])
    ends = (-x.mean() / x.std(), (1 - x.mean()) / x.std())
    model = fb.CNNClassifier(epochs=5, random_state=0, pixel_range=ends).fit(standard, y)
    assert model.network_.score(pixels[:, None], y) == 1
    with pytest.raises(OptionError, match="pixel_range must be"):
        fb.CNNClassifier(pixel_range=(1, 1)).fit(x, y)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_pixels_of_any_scale(scale):
    model = fb.CNNClassifier(**QUICK).fit(scale * X, Y)
    assert model.score(scale * X_TEST, Y_TEST) > 0.9


@pytest.mark.parametrize(
    ("shape", "image_shape", "made"),
    [
        ((12, 16), None, (1, 4, 4)),
        ((12, 10), None, (1, 1, 10)),
        ((12, 12), (3, 4), (1, 3, 4)),
        ((12, 12), (3, 2, 2), (3, 2, 2)),
        ((12, 5, 6), None, (1, 5, 6)),
        ((12, 2, 5, 6), None, (2, 5, 6)),
        ((12, 1), None, (1, 1, 1)),
    ],
)
def test_shapes_of_images(shape, image_shape, made):
    images = np.random.default_rng(0).random(shape)
    model = fb.CNNClassifier(image_shape=image_shape, epochs=1).fit(images, np.arange(12) % 3)
    assert model.image_shape_ == made == model.network_.input_shape
    assert model.predict(images).shape == (12,)
    np.testing.assert_array_equal(model.predict(images.reshape(12, -1)), model.predict(images))


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((9, 12), {"image_shape": (5, 5)}, ShapeError, "X has 12 features, which are no image"),
        ((9, 12), {"image_shape": 12}, OptionError, "image_shape must be"),
        ((9, 12), {"image_shape": (12,)}, OptionError, "image_shape must be"),
        ((9, 12), {"image_shape": (0, 5)}, OptionError, "positive whole"),
        ((9, 1, 2, 3, 2), {}, ValueError, "dim 5"),
        ((0, 3, 4, 4), {}, ShapeError, r"X has shape \(0, 3, 4, 4\), which holds no images"),
        ((9, 12), {"layers": 12}, OptionError, "layers must be text"),
        ((9, 12), {"layers": fb.zoo.question()}, OptionError, "layers must be text"),
        ((9, 12), {"clip_norm": 0}, OptionError, "clip_norm must be"),
        ((9, 12), {"momentum": "x"}, OptionError, "momentum must be"),
        ((9, 12), {"augment": 3}, OptionError, "augment must be like"),
        (
            (9, 12),
            {"schedule": 3},
            OptionError,
            "schedule must be text like 'cosine' or a function",
        ),
        ((9, 12), {"schedule": lambda done: -1.0}, OptionError, "the schedule's factor must be"),
        ((9, 12), {"early_stopping": True}, OptionError, "early_stopping keeps 0.1 of 9 images"),
        ((9, 12), {"layers": "cnov8"}, OptionError, "is not a layer; did you mean conv"),
        ((9, 12), {"layers": "pool"}, ShapeError, "pool1"),
        ((9, 12), {"epochs": 0}, OptionError, "epochs must be"),
        ((9, 12), {"solver": "lbfgs"}, OptionError, "solver must be one of sgd, adam, adamw"),
        ((9, 12), {"schedule": "step"}, OptionError, "unknown schedule 'step'; did you mean steps"),
        ((9, 12), {"learning_rate_init": -1}, OptionError, "learning_rate must be"),
        ((9, 12), {"validation_fraction": 2}, OptionError, "validation_fraction must be"),
    ],
)
def test_what_is_refused(shape, options, error, message):
    with pytest.raises(error, match=message):
        fb.CNNClassifier(**options).fit(np.ones(shape), np.arange(9) % 3)


def test_other_images_than_those_of_fit_are_refused():
    model = fb.CNNClassifier(epochs=1).fit(np.zeros((6, 5, 4)), np.arange(6) % 2)
    with pytest.raises(ShapeError, match=r"images of shape \(4, 5\), fit had \(1, 5, 4\)"):
        model.predict(np.zeros((6, 4, 5)))
    with pytest.raises(ValueError, match="X has 21 features"):
        model.predict(np.zeros((6, 21)))


def kinds(model):
    return [layer.kind for layer in model.network_.layers]


def test_what_goes_without_saying_is_added():
    images, y = X[:60].reshape(-1, 8, 8), Y[:60]
    model = fb.CNNClassifier("conv2 relu pool dense6 relu", epochs=1).fit(images, y)
    behind = ["flatten", "dense", "relu", "dense"]
    assert kinds(model) == ["normalize", "conv", "relu", "pool", *behind]
    model = fb.CNNClassifier("normalize conv2 globalavgpool", epochs=1).fit(images, y)
    assert kinds(model) == ["normalize", "conv", "globalavgpool", "dense"]
    layers = [Normalize(), MaxPool2D(), Flatten(), Dense(3), ReLU()]
    model = fb.CNNClassifier(layers, epochs=1).fit(images, y)
    assert kinds(model) == ["normalize", "pool", "flatten", "dense", "relu", "dense"]


@pytest.mark.parametrize("layers", ["conv2 relu pool dense10", [Conv2D(2), ReLU(), Dense(10)]])
def test_a_last_dense_with_an_output_for_every_class_is_the_output(layers):
    images, y = X[:60].reshape(-1, 8, 8), Y[:60]
    model = fb.CNNClassifier(layers, epochs=1).fit(images, y)
    assert kinds(model).count("dense") == 1
    assert model.network_.output_shape == (10,)
    assert kinds(fb.CNNRegressor("dense4 relu dense1", epochs=1).fit(X, Y)).count("dense") == 2
    with pytest.raises(
        ShapeError, match=r"end with Dense\(10\), .* but y has 3 classes, which takes"
    ):
        fb.CNNClassifier(layers, epochs=1).fit(images, y % 3)
    with pytest.raises(
        ShapeError, match=r"end with Dense\(10\), .* but y has 1 output, which takes"
    ):
        fb.CNNRegressor(layers, epochs=1).fit(images, y)
    with pytest.raises(OptionError, match="needs its bias"):
        fb.CNNRegressor("dense1(bias=false)", epochs=1).fit(images, y)


def test_the_same_seed_gives_the_same_network():
    first, second, other = (fb.CNNClassifier(epochs=2, random_state=r).fit(X, Y) for r in (1, 1, 2))
    for name, array in first.network_.parameters.items():
        np.testing.assert_array_equal(array, second.network_.parameters[name])
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


def blobs(n, seed):
    """Images with one blob, and how far right it is."""
    rng = np.random.default_rng(seed)
    rows, columns, size = rng.uniform(3, 13, n), rng.uniform(3, 13, n), rng.uniform(1, 3, n)
    grid = np.arange(16)
    down = (grid[None, :, None] - rows[:, None, None]) ** 2
    right = (grid[None, None, :] - columns[:, None, None]) ** 2
    return np.exp(-(down + right) / (2 * size**2)[:, None, None]), columns


@pytest.mark.parametrize("epochs", [5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_regression_trains_in_a_few_epochs(epochs, seed):
    x, y = blobs(500, seed)
    model = fb.CNNRegressor(epochs=epochs, random_state=seed).fit(x[:400], 100 + 20 * y[:400])
    assert model.score(x[400:], 100 + 20 * y[400:]) > 0.7


def test_the_network_of_a_regressor_answers_in_the_units_of_y():
    x, y = blobs(200, 0)
    y = np.stack([140 + y, 1e6 * y, np.full(200, 144.7)], axis=1)
    model = fb.CNNRegressor(epochs=20, random_state=0).fit(x, y)
    answers = model.network_.predict(x[:, None].astype(np.float32))
    np.testing.assert_allclose(answers, model.predict(x), rtol=1e-6)
    assert model.score(x, y) > 0.9
    np.testing.assert_allclose(answers[:, 2], 144.7, rtol=1e-7)
    assert model.network_.evaluate(x[:, None], y).loss == pytest.approx(
        ((answers - y) ** 2).mean(), rel=1e-3
    )


def test_going_on_takes_up_the_units_of_y():
    x, y = blobs(300, 0)
    model = fb.CNNRegressor(epochs=20, warm_start=True, random_state=0).fit(x, 1e4 * y - 1e6)
    first = model.loss_curve_[-1]
    model.set_params(epochs=1, learning_rate_init=1e-9).fit(x, 1e4 * y - 1e6)
    assert model.loss_curve_[-1] == pytest.approx(first, rel=0.5)
    assert model.score(x, 1e4 * y - 1e6) > 0.9
    assert model.fit(x, 1e4 * y - 1.1e6).loss_curve_[-1] > 1  # a whole lot off, at that rate
    start = fb.CNNRegressor(random_state=0).partial_fit(x[:1], y[:1])
    np.testing.assert_allclose(start.predict(x), y[0], rtol=1e-6)  # all that it can know
    for _ in range(40):
        start.partial_fit(x, y)
    assert start.score(x, y) > 0.9
    np.testing.assert_allclose(start.target_mean_, y.mean(), rtol=0.01)
    np.testing.assert_allclose(start.target_scale_, y.std(), rtol=0.01)


def test_constant_targets_and_single_images():
    x, _ = blobs(30, 0)
    for value in (0.0, -1e-6, 0.1, 1e9):
        model = fb.CNNRegressor(epochs=3, random_state=0).fit(x, np.full(30, value))
        np.testing.assert_array_equal(model.predict(x), value)
    assert fb.CNNRegressor(random_state=0).fit(x[:1], [144.7]).predict(x[:1]) == 144.7


def test_targets_that_float32_cannot_hold():
    x, y = blobs(30, 0)
    for wrong, message in ((1e38 * y, "too large"), (1e-40 * y, "too small")):
        with pytest.raises(InputError, match=message):
            fb.CNNRegressor(epochs=1).fit(x, wrong)
    with pytest.warns(FullbackWarning, match="in steps of 128; subtract a constant"):
        fb.CNNRegressor(epochs=1).fit(x, 1.7e9 + y)


def test_images_of_weight_0_have_no_part_in_the_scale():
    x, y = blobs(100, 0)
    weight = np.ones(100)
    weight[7] = 0
    model = fb.CNNRegressor(epochs=20, random_state=0).fit(x, y, weight)
    y[7] = 1e9
    again = fb.CNNRegressor(epochs=20, random_state=0).fit(x, y, weight)
    np.testing.assert_array_equal(model.predict(x), again.predict(x))


def halved(done):
    return 0.5


@pytest.mark.parametrize(
    "schedule",
    [fb.schedules.cosine, fb.schedules.Steps(0.3, at=0.8), halved, lambda done: 1 - done],
)
def test_schedules_that_are_functions(schedule):
    model = fb.CNNClassifier(epochs=3, random_state=0, schedule=schedule)
    assert clone(model).get_params()["schedule"] == schedule
    assert clone(model).fit(X, Y).score(X, Y) > 0.5
    search = GridSearchCV(model, {"schedule": ["cosine", schedule]}, cv=2, n_jobs=2).fit(X, Y)
    assert search.best_params_["schedule"] in ("cosine", schedule)


def test_class_weights_by_label():
    names = np.array(["no", "yes"])[(Y == 8).astype(int)]
    model, other = (
        fb.CNNClassifier("dense4 relu", epochs=2, random_state=0, class_weight=weight)
        .fit(X, names)
        .predict_proba(X)[:, 1]
        .mean()
        for weight in (None, {"no": 1, "yes": 20})
    )
    assert other > model + 0.1
    for weight, error, message in (
        ({"yse": 2}, ValueError, "no|yes"),
        ({"yes": -1}, OptionError, "must be a number"),
        ("even", OptionError, "class_weight must be"),
    ):
        with pytest.raises(error, match=message):
            fb.CNNClassifier(class_weight=weight).fit(X, names)
    weighted = fb.CNNClassifier(epochs=1, class_weight={"yes": 20})
    weighted.partial_fit(X[Y != 8], names[Y != 8], classes=["no", "yes"])  # a batch of one class


def test_the_network_knows_the_labels():
    y = np.array(["dent", "scratch"])[Y % 2]
    assert fb.CNNClassifier(epochs=1).fit(X, y).network_.class_names == ("dent", "scratch")
    assert fb.CNNClassifier(epochs=1).fit(X, Y > 4).network_.class_names == ("False", "True")
    assert fb.CNNClassifier(epochs=1).fit(X, ["x"] * len(X)).network_.class_names == ("x", "(none)")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((9, 2)), "1d array"),
        (np.array(["a", None] * 4 + ["a"], object), "several types"),
        (np.array(["a", np.nan] * 4 + ["a"], object), "NaN"),
        (np.linspace(0, 1, 9), "continuous"),
        (np.arange(8), "inconsistent"),
    ],
)
def test_labels_that_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        fb.CNNClassifier().fit(np.ones((9, 4)), y)


def test_less_images_than_a_batch():
    model = fb.CNNClassifier(epochs=3, batch_size=500).fit(X[:30], Y[:30])
    assert model.predict(X[:30]).shape == (30,)


def test_labels_of_any_kind():
    for names in (np.array(list("abcdefghij")), 10 * np.arange(10) - 7, np.arange(10) > 4):
        y = names[Y]
        model = fb.CNNClassifier(**QUICK).fit(X, y)
        np.testing.assert_array_equal(model.classes_, np.unique(y))
        assert model.score(X_TEST, names[Y_TEST]) > 0.85


def test_one_class():
    model = fb.CNNClassifier(epochs=1).fit(X[:9], ["only"] * 9)
    assert set(model.predict(X)) == {"only"}
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((len(X), 1)))


def test_partial_fit():
    model = fb.CNNClassifier(learning_rate_init=0.01, random_state=0)
    with pytest.raises(ValueError, match="is not among the classes"):
        copy.deepcopy(model).partial_fit(X[:40], Y[:40] % 3).partial_fit(X, Y)
    for _ in range(10):
        for part in range(0, len(X), 400):
            model.partial_fit(X[part : part + 400], Y[part : part + 400], classes=np.arange(10))
    assert model.score(X_TEST, Y_TEST) > 0.9
    assert len(model.loss_curve_) == 40
    with pytest.raises(ValueError, match="the first call had"):
        model.partial_fit(X, Y, classes=[1, 2])
    numbers = fb.CNNRegressor(solver="adam", random_state=0)
    for _ in range(20):
        numbers.partial_fit(X, Y)
    assert numbers.score(X_TEST, Y_TEST) > 0.6


def test_warm_start_goes_on():
    model = fb.CNNClassifier(epochs=2, warm_start=True, random_state=0).fit(X, Y)
    network, loss = model.network_, model.loss_curve_[-1]
    model.fit(X, Y)
    assert model.network_ is network
    assert len(model.loss_curve_) == 4
    assert model.loss_curve_[-1] < loss
    score = model.score(X, Y)
    wrong = [
        (ValueError, "warm_start can only be used where y has the same", {}, X, Y % 5),
        (ShapeError, "fit had", {}, X.reshape(-1, 4, 16), Y),
        (ValueError, "X has 63 features", {}, X[:, 1:], Y),
        (OptionError, "layers are .* would go on with", {"layers": "dense9 relu"}, X, Y),
        (OptionError, "image_shape is .* would go on with", {"image_shape": (4, 16)}, X, Y),
    ]
    for error, message, options, images, y in wrong:
        other = copy.deepcopy(model).set_params(**options)
        with pytest.raises(error, match=message):
            other.fit(images, y)
        assert other.score(X, Y) == score  # and nothing is lost
    with pytest.raises(OptionError, match="layers are"):
        model.set_params(layers="dense9 relu").partial_fit(X, Y)


def test_early_stopping_goes_back_to_the_best_epoch():
    model = fb.CNNClassifier(
        early_stopping=True, epochs=200, n_iter_no_change=5, random_state=0
    ).fit(X, Y)
    scores = model.validation_scores_
    assert len(scores) == model.n_iter_ < 200
    assert model.best_validation_score_ in scores
    assert model.best_validation_score_ >= max(scores) - 0.03
    assert model.score(X_TEST, Y_TEST) > 0.85
    by_accuracy = clone(model).set_params(monitor="accuracy").fit(X, Y)
    assert by_accuracy.best_validation_score_ == max(by_accuracy.validation_scores_) > 0.9
    numbers = fb.CNNRegressor(early_stopping=True, epochs=30, random_state=0).fit(X, Y)
    assert numbers.best_validation_score_ == max(numbers.validation_scores_) < 0
    for kind, monitor, message in (
        (fb.CNNClassifier, "recall", "monitor must be one of loss, accuracy, balanced, f1"),
        (fb.CNNRegressor, "f1", "needs classes"),
    ):
        with pytest.raises(OptionError, match=message):
            kind(early_stopping=True, monitor=monitor).fit(X, Y)


@pytest.mark.parametrize("monitor", ["loss", "balanced", "f1"])
def test_early_stopping_finds_a_rare_class(monitor):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1000, 12, 12)), (np.arange(1000) % 33 == 0).astype(int)
    x[y == 1, 4:7, 4:7] += 2.5
    model = fb.CNNClassifier(
        early_stopping=True, validation_fraction=0.2, n_iter_no_change=5, monitor=monitor
    )
    model.set_params(epochs=40, random_state=0).fit(x, y)
    assert model.predict(x)[y == 1].mean() > 0.8


def test_weights_of_samples_and_classes():
    weight = np.where(Y < 5, 1.0, 0.0)
    model = fb.CNNClassifier(**QUICK).fit(X, Y, sample_weight=weight)
    assert set(model.predict(X_TEST)) <= set(range(5))
    rare = (Y > 0) | (np.arange(len(Y)) % 20 == 0)
    plain, balanced = (
        fb.CNNClassifier("dense10 relu", class_weight=w, epochs=3, random_state=0)
        .fit(X[rare], Y[rare])
        .predict_proba(X_TEST[Y_TEST == 0])[:, 0]
        .mean()
        for w in (None, "balanced")
    )
    assert balanced > plain


def test_pickles_hold_arrays_and_configuration_only():
    model = fb.CNNClassifier(epochs=1, random_state=0).fit(X, Y)
    expected = model.predict_proba(X_TEST)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict_proba(X_TEST), expected)
    arrays = sum(a.nbytes for a in model.network_.parameters.values())
    assert len(pickle.dumps(model)) < 1.1 * arrays + 5_000


def test_in_pipelines_searches_and_folds():
    pipeline = make_pipeline(StandardScaler(), fb.CNNClassifier(**QUICK))
    assert cross_val_score(pipeline, X, Y, cv=3, n_jobs=2).mean() > 0.9
    search = GridSearchCV(
        fb.CNNClassifier(epochs=2, random_state=0), {"layers": ["dense8 relu", "conv4 relu"]}, cv=2
    ).fit(X, Y)
    assert search.best_params_["layers"] in ("dense8 relu", "conv4 relu")
    assert clone(search.best_estimator_).get_params() == search.best_estimator_.get_params()


def test_the_page_runs_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "estimator.md").read_text(encoding="utf-8")
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(compile(block, "estimator.md", "exec"), names)
    assert names["net"].class_names == tuple("0123456789")


def test_verbose_shows_the_epochs(capsys):
    fb.CNNClassifier(epochs=2, verbose=True).fit(X, Y)
    assert "epoch 2/2" in capsys.readouterr().err
    fb.CNNClassifier(epochs=2).fit(X, Y)
    assert capsys.readouterr().err == ""
