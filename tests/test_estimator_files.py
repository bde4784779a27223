"""Fitted estimators in model files: save, load_estimator, and what is wrong with damaged ones."""

import json
import warnings

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

import fullback as fb
from fullback.errors import FullbackWarning, InputError, ModelFileError

pytestmark = pytest.mark.filterwarnings("ignore::fullback.DeadUnitWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300], Y[:300]


def known(model):
    """Everything that an estimator knows, but for the network."""
    fitted = {name: value for name, value in vars(model).items() if name != "network_"}
    return {
        name: (str(value.dtype), value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in fitted.items()
    }


def in_file(model, path):
    model.save(path)
    return fb.load_estimator(path)


@pytest.mark.parametrize(
    "names",
    [
        np.array(["dent", "scratch", "überall"]),
        np.array(["a", "b", "c"], object),
        np.array([-7, 0, 300], np.int16),
        np.array([1, 2, 3], np.uint8),
        np.array([0.0, 1.0, 2.0]),
        np.array([False, True, True]),
        np.array(["only"] * 3),
    ],
)
def test_a_classifier_comes_back(names, tmp_path):
    y = names[Y % 3]
    model = fb.CNNClassifier("conv2 relu pool", epochs=2, random_state=0).fit(X, y)
    again = in_file(model, tmp_path / "model.safetensors")
    assert type(again) is fb.CNNClassifier
    assert known(again) == known(model)
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.predict(X).tolist() == model.predict(X).tolist()
    net = fb.load(tmp_path / "model.safetensors")
    assert net.class_names == model.network_.class_names == again.network_.class_names
    np.testing.assert_array_equal(
        net.logits(X.reshape(-1, 1, 8, 8)), model.network_.logits(X.reshape(-1, 1, 8, 8))
    )


@pytest.mark.parametrize("y", [144.7 + Y, np.stack([1e4 * Y - 1e6, np.full(300, 3.0)], 1)])
def test_a_regressor_comes_back(y, tmp_path):
    model = fb.CNNRegressor(
        "conv2 relu pool", epochs=4, early_stopping=True, random_state=np.int64(3)
    ).fit(X, y)
    again = in_file(model, tmp_path / "model.safetensors")
    assert known(again) == known(model)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    answers = fb.load(tmp_path / "model.safetensors").predict(X.reshape(-1, 1, 8, 8))
    np.testing.assert_allclose(answers.reshape(y.shape), model.predict(X), rtol=1e-6)
    fb.save(model.network_, tmp_path / "network.safetensors")
    alone = fb.load(tmp_path / "network.safetensors")
    np.testing.assert_array_equal(alone.predict(X.reshape(-1, 1, 8, 8)), answers)


@pytest.mark.parametrize("kind", [fb.CNNClassifier, fb.CNNRegressor])
def test_training_goes_on_as_it_would_have(kind, tmp_path):
    model = kind("conv2 relu pool", epochs=2, warm_start=True, random_state=0).fit(X, Y)
    again = in_file(model, tmp_path / "model.safetensors")
    for _ in range(2):
        answers = [part.fit(X, Y).partial_fit(X, Y).predict(X) for part in (model, again)]
        np.testing.assert_array_equal(*answers)
    assert known(again) == known(model)


def test_images_are_read_as_before(tmp_path):
    x, y = np.moveaxis(np.random.default_rng(0).random((30, 3, 9, 8)), 1, 3), np.arange(30) % 2
    model = fb.CNNClassifier(epochs=1, random_state=0).fit((255 * x).astype(np.uint8), y)
    again = in_file(model, tmp_path / "model.safetensors")
    for images in (255 * x, np.moveaxis(255 * x, 3, 1), 255 * x.reshape(30, -1)):
        np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))


@pytest.mark.parametrize(
    "params",
    [
        {"layers": [fb.Conv2D(2, (3, 1)), fb.ReLU(), fb.Dropout(0.1)]},
        {"image_shape": [4, 16], "pixel_range": (0, 16.5), "schedule": fb.schedules.cosine},
        {"schedule": fb.schedules.Steps(0.3, at=(0.2, 0.8)), "augment": fb.Augment(shift=1)},
        {"schedule": fb.schedules.WarmUp(0.2, then=fb.schedules.OneCycle(0.4)), "clip_norm": None},
        {"class_weight": {n: 1 + n / 10 for n in range(10)}, "learning_rate_init": np.float32(0.1)},
        {"class_weight": "balanced", "solver": "adamw", "augment": "shift=1", "tol": 0},
    ],
)
def test_parameters_come_back(params, tmp_path):
    model = fb.CNNClassifier(epochs=1, random_state=0).set_params(**params).fit(X, Y)
    again = in_file(model, tmp_path / "model.safetensors")
    for name, value in model.get_params().items():
        given = getattr(again, name)
        assert given == (tuple(value) if name == "image_shape" and value else value), name
    again.fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_parameters_that_are_no_data_are_left_out(tmp_path):
    state = np.random.RandomState(0)
    model = fb.CNNClassifier(epochs=1, schedule=lambda done: 1.0, random_state=state).fit(X, Y)
    with pytest.warns(FullbackWarning) as warned:
        model.save(tmp_path / "model.safetensors")
    assert sorted(str(warning.message).partition("=")[0] for warning in warned) == [
        "random_state",
        "schedule",
    ]
    again = fb.load_estimator(tmp_path / "model.safetensors")
    assert (again.schedule, again.random_state) == ("warm_cosine", None)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        fb.CNNClassifier().save(tmp_path / "model.safetensors")
    model = fb.CNNClassifier("dense2 relu", epochs=1).fit(X, Y.astype("datetime64[D]"))
    with pytest.raises(InputError, match=r"labels of type datetime64.D. like .* cannot be written"):
        model.save(tmp_path / "model.safetensors")
    model = fb.CNNClassifier("dense2 relu", epochs=1).fit(X, Y % 2)
    model.loss_curve_ = [0.123456789] * 100_000
    with pytest.raises(InputError, match="characters"):
        model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_is_no_estimator(tmp_path):
    fb.save(fb.zoo.question(), tmp_path / "network.safetensors")
    with pytest.raises(ModelFileError, match=r"holds a network, not an estimator; fullback.load"):
        fb.load_estimator(tmp_path / "network.safetensors")
    with pytest.raises(ModelFileError, match="does not exist"):
        fb.load_estimator(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("x")
    with pytest.raises(ModelFileError, match="cannot be read"):
        fb.load_estimator(tmp_path / "text")


WRONG = [None, True, -1, 2, 1e400, float("nan"), 10**400, "", "x", [], [1], [None], {}, {"x": 1}]
WRONG += [[[1]], "\ud800", {"layers": [{}]}, {"tuple": [1, "x"]}, {"schedule": {"name": "steps"}}]


def changed(value, path=()):
    """Every copy of a JSON value with one of its parts replaced by something else, or left out."""
    if isinstance(value, dict):
        for name in value:
            yield {other: part for other, part in value.items() if other != name}
            for part in changed(value[name]):
                yield {**value, name: part}
    elif isinstance(value, list) and value:
        yield value[1:]
        yield [*value, value[0]]
        for part in changed(value[0]):
            yield [part, *value[1:]]
    for wrong in WRONG:
        if wrong != value or type(wrong) is not type(value):
            yield wrong


@pytest.mark.parametrize("kind", [fb.CNNClassifier, fb.CNNRegressor])
def test_damaged_files_are_model_file_errors_or_work(kind, tmp_path):
    """Also of parts whose value is another one that is possible: then the estimator works."""
    path = tmp_path / "model.safetensors"
    model = kind([fb.Conv2D(1), fb.ReLU()], epochs=2, early_stopping=True, random_state=0)
    model.set_params(schedule=fb.schedules.Steps(), image_shape=(8, 8), pixel_range=(0, 16))
    if kind is fb.CNNClassifier:
        model.set_params(class_weight={0: 1.0, 1: 2.0})
    model.fit(X, Y % 2)
    model.save(path)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(file.metadata()["fullback"])
    good = refused = 0
    for wrong in changed(described["estimator"]):
        whole = {**described, "estimator": wrong}
        save_file(arrays, path, metadata={"fullback": json.dumps(whole)})
        try:
            again = fb.load_estimator(path)
        except ModelFileError:
            refused += 1
            continue
        good += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FullbackWarning)
            assert np.isfinite(again.predict(X[:2]).astype(float)).all()
        again.get_params()
        repr(again)
        again.save(tmp_path / "again.safetensors")
    assert refused > 300
    assert good < refused / 2
