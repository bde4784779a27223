"""What ``fit`` is made of: its options, the data that are checked once, the scale of targets."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from safetensors import safe_open

import fullback as fb
from fullback.training.options import TrainingOptions
from fullback.training.run import EpochFigures, TrainingRun
from fullback.training.schedules import constant
from fullback.training.stepper import PieceLength
from fullback.training.target_scale import TargetScale
from fullback.training.training_data import TrainingData

X = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 6), dtype=np.uint8)
Y = np.arange(40) % 3


def network(text="flatten dense3"):
    return fb.Network.parse(text, (1, 8, 6), seed=1)


def test_options_have_the_defaults_of_fit():
    signature = inspect.signature(fb.fit).parameters
    fields = dataclasses.fields(TrainingOptions)
    assert {field.name: field.default for field in fields} == {
        field.name: signature[field.name].default for field in fields
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"optimizer": "sgd"}, "optimizer must be an optimizer like SGD"),
        ({"schedule": "cosine"}, "schedule must be a function"),
        ({"augment": "shift=2"}, "augment must be like Augment"),
        ({"mixup": -1}, "mixup must be a number"),
        ({"average": 1}, "average must be a number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"sums": "quick"}, "sums must be 'exact' or 'fast'"),
    ],
)
def test_options_that_no_network_can_be_trained_with(options, message):
    with pytest.raises(fb.OptionError, match=message):
        TrainingOptions(**options)


def test_options_of_a_run():
    options = TrainingOptions(batch_size=64).for_run(network(), 40)
    assert (options.batch_size, options.engine) == (40, "lanes")
    with pytest.raises(fb.OptionError, match="at least 2 images"):
        TrainingOptions(mixup=1.0).for_run(network(), 1)


def test_a_checkpoint_describes_a_run_by_these_names(tmp_path):
    """Those of files that are there: with another name they could not go on."""
    fb.fit(network(), X, Y, epochs=1, checkpoint=tmp_path / "run", verbose=False)
    with safe_open(tmp_path / "run", "numpy") as file:
        described = json.loads(file.metadata()["fullback-run"])
    assert list(described["run"]) == [
        *("layers", "input_shape", "loss", "frozen", "epochs", "batch_size", "optimizer"),
        *("schedule", "augment", "mixup", "average", "seed", "engine", "images", "data"),
        *("sample_weight", "validation_data"),
    ]


def test_validation_images_are_looked_at_once(monkeypatch):
    looks = []
    check = fb.Network.check_images

    def look(net, x, **options):
        looks.append(len(x))
        return check(net, x, **options)

    monkeypatch.setattr(fb.Network, "check_images", look)
    counts = []
    for epochs in (1, 5):
        looks.clear()
        fb.fit(network(), X, Y, epochs=epochs, validation_data=(X[:9], Y[:9]), verbose=False)
        counts.append(looks.count(9))
    assert counts[0] == counts[1]


def test_validation_images_are_brought_to_the_scale_of_training():
    """Bytes beside floats from 0 to 255 are those floats."""
    floats, options = X.astype(np.float32), {"pixel_range": (0, 255), "verbose": False}
    found = [fb.fit(network(), floats, Y, validation_data=(x, Y), **options) for x in (X, floats)]
    assert found[0]["validation_loss"] == found[1]["validation_loss"]


def test_the_length_of_pieces_follows_the_clock():
    length = PieceLength(0.1)
    assert length.batches == 1
    length.note(1, 0.001)
    assert length.batches == 2  # at most twice as many
    length.note(8, 0.05)
    assert length.batches == 16
    length.note(16, 10.0)
    assert length.batches == 1


def test_the_scale_of_targets_goes_in_and_out():
    net = network("flatten dense4 relu dense2")
    scale = TargetScale(np.array([5.0, -3.0]), np.array([2.0, 0.0]))  # the second is constant
    before = net.logits(X)
    scale.into(net)
    np.testing.assert_allclose(net.logits(X)[:, 0], 2 * before[:, 0] + 5, rtol=1e-5)
    np.testing.assert_array_equal(net.logits(X)[:, 1], -3)
    scale.out_of(net)
    np.testing.assert_allclose(net.logits(X)[:, 0], before[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(net.logits(X)[:, 1], 0)
    targets = np.array([[7.0, -3.0], [3.0, -3.0]])
    np.testing.assert_array_equal(scale.standardised(targets), [[1, 0], [-1, 0]])


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_an_epoch_is_the_same_in_any_pieces(engine):
    results = []
    for seconds, shared in [(0.0, False), (0.0, True), (1e9, False)]:  # one batch a piece, or more
        net = network("flatten dense5 relu dense3")
        options = TrainingOptions(epochs=1, batch_size=3, engine=engine).for_run(net, len(X))
        run = TrainingRun(net, TrainingData.of(net, X, Y), options)
        figures = EpochFigures(run)
        for piece in run.epoch(1, constant, PieceLength(seconds), shared=shared):
            figures.add(piece)
        assert figures.batches == 14
        results.append((figures.so_far()[:2], [p.tobytes() for p in net.parameters.values()]))
    assert results[0] == results[1] == results[2]


def test_pieces_that_are_closed_leave_what_was_learned():
    learned = []
    for shared in (False, True):
        net = network()
        options = TrainingOptions(batch_size=3).for_run(net, len(X))
        pieces = TrainingRun(net, TrainingData.of(net, X, Y), options).epoch(
            1, constant, PieceLength(0.0), shared=shared
        )
        before = net.parameters["dense1.weight"].copy()
        next(pieces), next(pieces)
        assert np.array_equal(before, net.parameters["dense1.weight"]) is not shared
        pieces.close()
        learned.append(net.parameters["dense1.weight"].copy())
    assert not np.array_equal(learned[0], before)
    np.testing.assert_array_equal(*learned)
