"""CNNClassifier and CNNRegressor: scikit-learn's own checks, and what they do not look at."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fullback as fb
from fullback.errors import OptionError, ShapeError
from fullback.layers import Dense, Flatten, MaxPool2D, Normalize

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
        ((9, 12), {"layers": "cnov8"}, OptionError, "is not a layer; did you mean conv"),
        ((9, 12), {"layers": "pool"}, ShapeError, "pool1"),
        ((9, 12), {"epochs": 0}, OptionError, "epochs must be"),
        ((9, 12), {"solver": "lbfgs"}, OptionError, "solver must be one of sgd, adam, adamw"),
        ((9, 12), {"schedule": "step"}, OptionError, "is no schedule; did you mean steps"),
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
    layers = [Normalize(), MaxPool2D(), Flatten(), Dense(3)]
    model = fb.CNNClassifier(layers, epochs=1).fit(images, y)
    assert kinds(model) == ["normalize", "pool", "flatten", "dense", "dense"]


def test_the_same_seed_gives_the_same_network():
    first, second, other = (fb.CNNClassifier(epochs=2, random_state=r).fit(X, Y) for r in (1, 1, 2))
    for name, array in first.network_.parameters.items():
        np.testing.assert_array_equal(array, second.network_.parameters[name])
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


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
    assert model.fit(X, Y % 5).network_ is not network  # other classes


def test_early_stopping_goes_back_to_the_best_epoch():
    model = fb.CNNClassifier(
        early_stopping=True, epochs=200, n_iter_no_change=5, random_state=0
    ).fit(X, Y)
    scores = model.validation_scores_
    assert len(scores) == model.n_iter_ < 200
    assert model.best_validation_score_ == max(scores) > 0.9
    assert max(scores[:-5]) + model.tol >= max(scores)
    assert model.score(X_TEST, Y_TEST) > 0.85
    numbers = fb.CNNRegressor(early_stopping=True, epochs=30, random_state=0).fit(X, Y)
    assert numbers.best_validation_score_ == max(numbers.validation_scores_) < 0


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


def test_verbose_shows_the_epochs(capsys):
    fb.CNNClassifier(epochs=2, verbose=True).fit(X, Y)
    assert "epoch 2/2" in capsys.readouterr().err
    fb.CNNClassifier(epochs=2).fit(X, Y)
    assert capsys.readouterr().err == ""
