"""Binary cross-entropy of sigmoids: by hand, against PyTorch, in training, answers and files."""

from math import log

import numpy as np
import pytest

from fullback import BinaryCrossEntropy, InputError, MeanSquaredError, Network, OptionError
from fullback.errors import ShapeError
from fullback.explorer.config import require_shown
from fullback.report.document import document
from support.command import run

LOSS = BinaryCrossEntropy()


def network(outputs, **options):
    return Network.parse(f"conv3 relu pool flatten dense{outputs}", (2, 9, 8), loss=LOSS, **options)


def batch(outputs, images=37, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, 2, 9, 8)).astype("f"), rng.integers(0, max(outputs, 2), images)


def test_by_hand():
    # sigmoids of 0, log 3: 1/2, 3/4; of -log 3, 0: 1/4, 1/2
    logits = np.array([[0, log(3)], [-log(3), 0]])
    loss, cache = LOSS.forward(logits, np.array([1, 0]))
    losses = [-log(1 / 2) - log(3 / 4), -log(1 / 4) - log(1 / 2)]
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-14)
    np.testing.assert_allclose(LOSS.backward(cache), [[1 / 4, -1 / 8], [-3 / 8, 1 / 4]], rtol=1e-14)
    loss, cache = LOSS.forward(logits, np.array([[0.5, 1], [0, 0]]), np.array([3.0, 1.0]))
    losses = [log(2) - log(3 / 4), -log(3 / 4) - log(1 / 2)]
    assert loss == pytest.approx((3 * losses[0] + losses[1]) / 4, rel=1e-14)
    np.testing.assert_allclose(LOSS.backward(cache), [[0, -3 / 16], [1 / 16, 1 / 8]], atol=1e-16)


def test_of_large_logits():
    loss, cache = LOSS.forward(np.array([[1000.0, -1000.0]]), np.array([1]))
    assert loss == 2000
    np.testing.assert_array_equal(LOSS.backward(cache), [[1, -1]])
    loss, _ = LOSS.forward(np.array([[-50.0]]), np.array([0]))
    assert loss == pytest.approx(np.exp(-50), rel=1e-14)


@pytest.mark.parametrize("outputs", [1, 4])
def test_it_is_that_of_pytorch(outputs):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(5, outputs)) * 3, rng.random((5, outputs))
    leaf = torch.tensor(logits, requires_grad=True)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        leaf, torch.tensor(targets), reduction="sum"
    )
    (wanted / 5).backward()
    loss, cache = LOSS.forward(logits, LOSS.targets(targets, 5, outputs))
    assert loss == pytest.approx(wanted.item() / 5, rel=1e-13)
    np.testing.assert_allclose(LOSS.backward(cache), leaf.grad, rtol=1e-12)
    np.testing.assert_allclose(LOSS.probabilities(logits), leaf.sigmoid().detach(), rtol=1e-12)


def test_targets():
    assert LOSS.targets([2, 0], 2, 3).tolist() == [2, 0]
    assert LOSS.targets([[0, 0, 1], [1, 0, 0]], 2, 3).tolist() == [2, 0]  # one-hot rows
    assert LOSS.targets([[True], [False]], 2, 1).tolist() == [1, 0]
    assert LOSS.targets([1.0, 0.0], 2, 1).tolist() == [1, 0]
    assert LOSS.targets([[0, 1, 1], [0, 0, 0]], 2, 3).tolist() == [[0, 1, 1], [0, 0, 0]]
    assert LOSS.targets([0.25, 1], 2, 1).tolist() == [[0.25], [1]]


@pytest.mark.parametrize(
    ("y", "outputs", "error", "message"),
    [
        ([0, 3], 3, InputError, "label 3 of image 1 is out of range: the network has 3 outputs"),
        ([0, 2], 1, InputError, "label 2 .* the network has one output, for 0 and 1, for labels"),
        ([[0, 1], [0, 2]], 2, InputError, r"must be from 0 to 1, but image 1 has another; MeanSq"),
        ([[0, 1], [0, -1]], 2, InputError, "must be from 0 to 1"),
        ([[0, np.nan], [0, 1]], 2, InputError, "target of image 0 is not finite"),
        ([0.5, 0.5], 2, InputError, "labels must be whole numbers from 0 to 1, got float64"),
        ([[0, 1, 0]] * 2, 2, ShapeError, r"y must have shape \(2, 2\)"),
    ],
)
def test_what_are_no_targets(y, outputs, error, message):
    with pytest.raises(error, match=message):
        LOSS.targets(y, 2, outputs)


def test_labels_mean_one_hot_rows_for_squared_errors():
    loss = MeanSquaredError()
    assert loss.targets([2, 0], 2, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert loss.targets([2, 0], 2, 1).tolist() == [[2], [0]]
    with pytest.raises(InputError, match="label 3 of image 0 is out of range"):
        loss.targets([3, 0], 2, 3)
    with pytest.raises(ShapeError, match=r"y must have shape \(2, 3\)"):
        loss.targets([2.0, 0.0], 2, 3)


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("kind", ["labels", "rows", "weights"])
def test_the_engines_agree(outputs, kind):
    net = network(outputs)
    x, y = batch(outputs)
    rng = np.random.default_rng(2)
    weight = rng.uniform(0, 1, len(x)) if kind == "weights" else None
    y = rng.random((len(x), outputs)) if kind == "rows" else y
    (loss, found), (wanted_loss, wanted) = (
        net.loss_and_gradients(x, y, sample_weight=weight, engine=engine)
        for engine in ("lanes", "reference")
    )
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    for key, gradient in wanted.items():
        np.testing.assert_allclose(found[key], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_training_with_either_engine(outputs, mixup):
    x, y = batch(outputs, 50)
    x[y == 0, 0] += 2
    histories = [
        network(outputs).fit(
            x, y, epochs=4, batch_size=16, mixup=mixup, engine=engine, validation_data=(x, y),
            verbose=False,
        )
        for engine in ("lanes", "reference")
    ]  # fmt: skip
    for one, other in zip(*histories, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.03)
        assert one.validation_f1 is not None
    assert histories[0].epochs[-1].validation_accuracy > 1 / max(outputs, 2)


def test_rows_that_are_no_labels_have_an_accuracy_and_no_classes():
    net = network(3)
    x, _ = batch(3)
    y = np.random.default_rng(3).integers(0, 2, (len(x), 3))
    (epoch,) = net.fit(x, y, epochs=1, validation_data=(x, y), verbose=False)
    assert epoch.validation_accuracy == net.score(x, y)
    assert epoch.validation_f1 is None
    answers = net.logits(x).argmax(axis=1)
    assert net.score(x, y) == y[np.arange(len(x)), answers].mean()
    with pytest.raises(OptionError, match="class_weight needs labels of shape"):
        net.fit(x, y, epochs=1, class_weight="balanced")


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_answers(engine):
    x, y = batch(1)
    one, net = network(1), network(3)
    p = 1 / (1 + np.exp(-one.logits(x, engine=engine)))
    np.testing.assert_allclose(
        one.predict_proba(x, engine=engine), np.hstack([1 - p, p]), rtol=1e-5
    )
    np.testing.assert_array_equal(one.predict(x, engine=engine), (p > 0.5)[:, 0])
    assert one.score(x, y, engine=engine) == ((p > 0.5)[:, 0] == y).mean()
    p = 1 / (1 + np.exp(-net.logits(x, engine=engine)))
    np.testing.assert_allclose(net.predict_proba(x, engine=engine), p, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(x, engine=engine), p.argmax(axis=1))


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_file_is_evaluated_and_predicted_with(outputs, tmp_path):
    net = network(outputs)
    x, y = batch(outputs)
    net.fit(x, y, epochs=1, verbose=False)
    net.save(tmp_path / "m.safetensors")
    np.savez(tmp_path / "data.npz", x_test=x, y_test=y, x_train=x, y_train=y)
    found = run("eval", tmp_path / "m.safetensors", "--data", tmp_path / "data.npz")
    assert f"{net.score(x, y):.2%}" in found.out, found


@pytest.mark.parametrize(("outputs", "y"), [(1, 1), (3, 2), (3, [1, 0.5, 0])])
def test_the_report_of_one_image(outputs, y):
    net = network(outputs, dtype="float64")
    shown = document(net, batch(outputs)[0][0], y)
    assert shown["network"]["loss"] == "binary_cross_entropy"
    assert shown["label"] == (y if np.size(y) == 1 else None)
    assert shown["probabilities"] is not None


def test_a_network_does_not_end_in_its_own_sigmoid():
    with pytest.raises(OptionError, match="takes logits and holds their sigmoid itself"):
        Network.parse("dense3 sigmoid", (4,), loss=LOSS)


def test_what_has_no_place_for_it():
    with pytest.raises(InputError, match="networks with a softmax"):
        require_shown(Network.parse("flatten dense3", (1, 4, 4), loss=LOSS))
