"""fit(checkpoint=...): a run goes on to the weights that it would have had."""

import json
import struct

import numpy as np
import pytest

import fullback as fb
from fullback.errors import InputError, ModelFileError
from fullback.training.checkpoint import read_run

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (40, 1, 8, 6), dtype=np.uint8)
Y = np.arange(40) % 3
TEXT = "normalize conv3 batchnorm relu pool dropout0.3 flatten dense3"


class Killed(Exception):  # noqa: N818 -- it is no error
    pass


def network():
    return fb.Network.parse(TEXT, (1, 8, 6), seed=1)


def train(path, *, until=None, net=None, x=X, y=Y, **options):
    """Train, and be killed after an epoch."""

    def kill(epoch):
        if epoch.epoch == until:
            raise Killed

    net = net or network()
    options = {"epochs": 5, "batch_size": 16, "callbacks": [kill], "verbose": False, **options}
    try:
        return net, fb.fit(net, x, y, checkpoint=path, **options)
    except Killed:
        return net, None


@pytest.mark.parametrize("engine", ["lanes", "reference"])
@pytest.mark.parametrize(
    "optimizer", [fb.SGD(0.05, momentum=0.9), fb.Adam(0.01), fb.AdamW(0.01)], ids=str
)
def test_a_run_goes_on_to_the_same_weights(tmp_path, engine, optimizer):
    options = {"engine": engine, "optimizer": optimizer, "validation_data": (X[:9], Y[:9])}
    whole, history = train(None, **options)
    path = tmp_path / "run.safetensors"
    for until in (1, 2, 4):
        assert train(path, until=until, **options)[1] is None
    resumed, again = train(path, **options)
    for name, array in (*whole.parameters.items(), *whole.statistics.items()):
        own = resumed.parameters if name in resumed.parameters else resumed.statistics
        np.testing.assert_array_equal(own[name], array, err_msg=name)
    for name in ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"):
        assert again[name] == history[name]
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_run_that_has_ended_is_only_read(tmp_path):
    path = tmp_path / "run.safetensors"
    first, history = train(path)
    content = path.read_bytes()
    second, again = train(path)
    assert list(again) == list(history)
    np.testing.assert_array_equal(
        second.parameters["conv1.weight"], first.parameters["conv1.weight"]
    )
    assert path.read_bytes() == content


def test_what_is_shown(tmp_path, capsys):
    path = tmp_path / "run.safetensors"
    train(path, until=2)
    train(path, verbose=True)
    assert f"goes on after epoch 2 of 5, from {path}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 8}, "cannot go on: batch size was 16, and is 8 now; give another file, or"),
        ({"seed": 1}, "seed was 0, and is 1 now"),
        ({"optimizer": fb.Adam()}, r"optimizer was SGD\(.*\), and is Adam\(\) now"),
        ({"schedule": fb.schedules.constant}, "schedule was warm_cosine, and is constant now"),
        ({"engine": "reference"}, "engine was lanes, and is reference now"),
        (
            {"x": X[:14], "y": Y[:14], "batch_size": 14},
            "cannot go on: the images have changed; it was started with 40 of them, .* are 14",
        ),
        ({"y": Y[::-1]}, "the images or labels have changed"),
        ({"x": 255 - X}, "the images or labels have changed"),
        ({"x": 255 - X, "batch_size": 8}, "the images or labels have changed"),
        ({"sample_weight": np.arange(40.0)}, "the weights of the images have changed"),
        ({"validation_data": (X, Y)}, "the validation images or labels have changed"),
        ({"net": fb.Network.parse("flatten dense3", (1, 8, 6))}, "network has other layers: Norm"),
    ],
)
def test_another_run_is_refused(tmp_path, changed, message):
    path = tmp_path / "run.safetensors"
    train(path, until=1)
    content = path.read_bytes()
    net = changed.get("net") or network()
    before = {name: array.copy() for name, array in net.parameters.items()}
    with pytest.raises(InputError, match=message):
        train(path, **{**changed, "net": net})
    assert path.read_bytes() == content
    for name, array in before.items():
        np.testing.assert_array_equal(net.parameters[name], array)


class TestAnotherNumberOfEpochs:
    def test_a_constant_rate_gives_the_weights_of_the_longer_run(self, tmp_path):
        path = tmp_path / "run.safetensors"
        options = {"schedule": fb.schedules.constant}
        whole, history = train(None, epochs=7, **options)
        train(path, epochs=4, **options)
        longer, again = train(path, epochs=7, **options)
        assert again["loss"] == history["loss"]
        assert_same(longer, whole)

    def test_a_schedule_of_the_new_length_is_told_of(self, tmp_path):
        """It goes on bit for bit as well, once it has been made longer."""
        path, copy = tmp_path / "run.safetensors", tmp_path / "copy.safetensors"
        train(path, epochs=4)
        copy.write_bytes(path.read_bytes())
        message = "started for 4 epochs and goes on to 7: from epoch 5 on, the learning rate is"
        with pytest.warns(fb.FullbackWarning, match=message) as caught:
            longer, history = train(path, epochs=7)
        assert len(caught) == 1
        assert history["learning_rate"][4] > history["learning_rate"][3]
        with pytest.warns(fb.FullbackWarning, match=message):
            train(copy, epochs=7, until=5)
        again, _ = train(copy, epochs=7)
        assert_same(again, longer)

    def test_not_to_fewer_than_are_finished(self, tmp_path):
        path = tmp_path / "run.safetensors"
        train(path, epochs=4)
        with pytest.raises(InputError, match="has 4 finished epochs, more than the 3 wanted; give"):
            train(path, epochs=3)


def assert_same(one, other):
    for name, array in (*one.parameters.items(), *one.statistics.items()):
        own = other.parameters if name in other.parameters else other.statistics
        np.testing.assert_array_equal(own[name], array, err_msg=name)


def described(path, change):
    """Change the JSON in a checkpoint's metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    run = json.loads(header["__metadata__"]["fullback-run"])
    change(run)
    header["__metadata__"]["fullback-run"] = json.dumps(run)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accuracy", [-1, 5]),
        ("accuracy", 1.5),
        ("accuracy", -0.1),
        ("accuracy", float("nan")),
        ("loss", "0.5"),
        ("loss", None),
        ("loss", float("inf")),
        ("loss", 10**400),
        ("loss", True),
        ("seconds", -1),
        ("epoch", 1.0),
        ("epoch", True),
        ("validation_f1", {}),
        ("learning_rate", float("nan")),
    ],
)
def test_figures_that_are_none_are_refused(tmp_path, name, value):
    path = tmp_path / "run.safetensors"
    train(path, until=1)
    described(path, lambda run: run["epochs"][0].update({name: value}))
    with pytest.raises(ModelFileError, match="its metadata does not describe a run"):
        read_run(path)


def test_checkpoints_of_an_earlier_version_are_read(tmp_path):
    """Epochs had neither learning rate, balanced accuracy nor F1 then."""
    path = tmp_path / "run.safetensors"
    whole, _ = train(None)
    train(path, until=2)
    added = ("learning_rate", "validation_balanced", "validation_f1")
    described(path, lambda run: [epoch.pop(key) for epoch in run["epochs"] for key in added])
    resumed, history = train(path)
    assert history["learning_rate"][:2] == [None, None]
    assert_same(resumed, whole)


def test_a_checkpoint_is_written_once_a_second(tmp_path, monkeypatch):
    """And at the end: a short run writes once, whatever it lasts."""
    written = []
    monkeypatch.setattr(
        "fullback.training.checkpoint.write_atomically", lambda path, content: written.append(path)
    )
    train(tmp_path / "run.safetensors", epochs=50)
    assert 1 <= len(written) < 10


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(path, until=1)
    good = path.read_bytes()

    def refused(message):
        net = network()
        before = net.parameters["conv1.weight"].copy()
        with pytest.raises(ModelFileError, match=message) as caught:
            train(path, net=net)
        assert "delete it to begin anew" in str(caught.value)
        np.testing.assert_array_equal(net.parameters["conv1.weight"], before)
        path.write_bytes(good)

    for content in (b"", b"nonsense", good[:100], good[:-5]):
        path.write_bytes(content)
        refused("cannot be read as the checkpoint of a run")
    for change, message in (
        (lambda run: run.update(version=2), "version 2"),
        (lambda run: run.pop("epochs"), "does not describe a run"),
        (lambda run: run["epochs"][0].update(epoch=2), "not in order"),
        (lambda run: run["epochs"][0].update(more=2), "does not describe a run"),
    ):
        described(path, change)
        refused(message)
    fb.save(network(), path)
    refused("does not describe a run")
    path.write_bytes(good.replace(b'"net.conv1.bias"', b'"net.conv1.bibs"'))
    refused("its arrays are not those")
    nan = np.float32(np.nan).tobytes() * 3
    path.write_bytes(good[: -len(nan)] + nan)
    refused("is not finite")


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        train(tmp_path / "no" / "run.safetensors")
    with pytest.raises(InputError, match="is not a file that can be replaced"):
        train(tmp_path)


def test_ctrl_c_keeps_the_last_whole_epoch(tmp_path, monkeypatch):
    """An interrupted epoch is trained again from its beginning."""
    from fullback.training.delayed_interrupt import DelayedInterrupt

    path = tmp_path / "run.safetensors"
    whole, _ = train(None)
    calls = []

    def requested(self):
        calls.append(1)
        return len(calls) > 6

    with monkeypatch.context() as patch:
        patch.setattr(
            DelayedInterrupt,
            "requested",
            property(requested, lambda self, value: None),
            raising=False,
        )
        _, history = train(path)
    assert history.interrupted
    assert 0 < len(history) < 5
    resumed, _ = train(path)
    for name, array in whole.parameters.items():
        np.testing.assert_array_equal(resumed.parameters[name], array)


def test_one_changed_image_of_many_is_noticed(tmp_path):
    x = np.concatenate([X] * 10)
    y = np.concatenate([Y] * 10)
    train(tmp_path / "run.safetensors", x=x, y=y, until=1)
    x[201, 0, 3, 3] ^= 1
    with pytest.raises(InputError, match="cannot go on: the images or labels have changed"):
        train(tmp_path / "run.safetensors", x=x, y=y)
