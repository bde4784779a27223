"""Everything a user can get wrong: one line on standard error and the right exit code.

1 is failure; 2 is wrong usage, of the options or in what is written in them.
"""

import errno
import gzip
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.cli import main
from fullback.data.mnist import SHA256
from support.command import run
from support.files import as_png, header, idx_bytes, png

pytestmark = pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (40, 9, 8), np.uint8)
Y = np.arange(40) % 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with good and with bad files of every kind, which no command may change."""
    d = tmp_path_factory.mktemp("wrong")
    net = fb.Network.parse("flatten dense4", (1, 9, 8))
    fb.save(net, d / "good.safetensors")
    good = (d / "good.safetensors").read_bytes()
    fb.save(fb.Network.parse("flatten dense2", (1, 9, 8)), d / "two.safetensors")
    fb.save(fb.Network.parse("flatten dense10", (3, 28, 28)), d / "colour.safetensors")
    fb.save(fb.Network.parse("dense4", (72,)), d / "features.safetensors")
    fb.save(fb.Network.parse("flatten dense4", (2, 9, 8)), d / "pairs.safetensors")
    regressor = fb.Network([fb.Flatten(), fb.Dense(1)], (1, 9, 8), loss=fb.MeanSquaredError())
    fb.save(regressor, d / "regressor.safetensors")
    (d / "cut.safetensors").write_bytes(good[:-1])
    (d / "foreign.safetensors").write_bytes(good.replace(b"fullback", b"halfback"))
    newer = good.replace(b'\\"version\\": 2', b'\\"version\\": 7')
    assert newer != good
    (d / "newer.safetensors").write_bytes(newer)

    np.savez(d / "toy.npz", x=X, y=Y)
    np.savez(d / "colour.npz", x=np.stack([X] * 3, axis=1), y=Y)
    np.savez(d / "nan.npz", x=np.where(np.equal(X, X[3, 0, 0]), np.nan, X / 255), y=Y)
    np.savez(d / "none.npz", x=X[:0], y=Y[:0])
    np.savez(d / "labels.npz", x=X, y=-Y)
    np.savez(d / "many.npz", x=X, y=Y * 30_000)
    np.savez(d / "short.npz", x=X, y=Y[:-1])
    np.savez(d / "objects.npz", x=X.astype(object), y=Y)
    np.savez(d / "names.npz", images=X, targets=Y)
    np.savez(d / "test.npz", x_train=X, y_train=Y % 2, x_test=X, y_test=Y)
    (d / "cut.npz").write_bytes((d / "toy.npz").read_bytes()[:-99])
    (d / "text.npz").write_text("x,y\n1,2\n")
    (d / "text.txt").write_text("x,y\n1,2\n")
    (d / "empty").mkdir()
    (d / "mnist").mkdir()
    for name, array in zip(SHA256, (X, Y, X, Y), strict=True):
        content = gzip.compress(idx_bytes(array.astype(np.uint8)))
        (d / "mnist" / f"{name}.gz").write_bytes(content[: -9 if "t10k-im" in name else None])
    (d / "magic-images-idx3-ubyte").write_bytes(b"\x01\x02" + idx_bytes(X)[2:])
    (d / "magic-labels-idx1-ubyte").write_bytes(idx_bytes(Y.astype(np.uint8)))

    Image.fromarray(X[0]).save(d / "good.png")
    for name, content in {
        "text.png": b"no image",
        "empty.png": b"",
        "cut.png": as_png(RNG.integers(0, 256, (99, 99), np.uint8))[:-900],
        "bomb.png": png(header(50_000, 50_000), (b"IDAT", b"")),
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    }.items():
        (d / name).write_bytes(content)
    return d


def train(*options, data="toy.npz", net="flatten dense4"):
    """The arguments of a training run, {d} being the folder, that would succeed but for these."""
    out = () if "--out" in options else ("--out", "{d}/out.safetensors")
    return "train", "--data", f"{{d}}/{data}", "--net", net, "--epochs", "1", *out, *options


def evaluate(model="good.safetensors", data="toy.npz"):
    return "eval", f"{{d}}/{model}", "--data", f"{{d}}/{data}"


def predict(*images, model="good.safetensors"):
    return "predict", *(f"{{d}}/{image}" for image in images), "--model", f"{{d}}/{model}"


FAILURES = {
    # data
    train(data="nowhere.npz"): r"unknown data set '.*nowhere\.npz', and no such file; expected",
    (
        "train",
        "--data",
        "digit",
    ): "unknown data set 'digit'.* did you mean 'digits'",
    ("train", "--data", ""): "unknown data set '', and no such file",
    ("train", "--data", "mnist", "--data-dir", "{d}/no"): "no",
    ("train", "--data", "mnist", "--data-dir", "{d}/empty"): "has no train-images-idx3-ubyte",
    ("train", "--data", "mnist", "--data-dir", "{d}/mnist"): "t10k-images-idx3-ubyte.gz",
    train(data="empty"): "empty: holds no images and no IDX, .* expected a folder a class",
    train(data="text.txt"): r"the label column 'y' has '2' in all 1 rows",
    train(data="text.npz"): r"is not an intact \.npz file",
    train(data="cut.npz"): r"cut\.npz",
    train(data="magic-images-idx3-ubyte"): "magic-images-idx3-ubyte",
    train(data="nan.npz"): r"NaN or infinity in \d+ of 40 images",
    train(data="none.npz"): "expected at least one number",
    train(data="labels.npz"): "holds -1 at index 1; labels are whole numbers from 0",
    train(data="many.npz"): "holds 90000 at index 3; labels are whole numbers from 0 to 65535",
    train(data="short.npz"): "has 40 images but y has 39 labels",
    train(data="objects.npz"): "has dtype object; expected plain numbers",
    train(data="names.npz"): "has the arrays 'images', 'targets'; expected x_train",
    # where to save
    train("--out", "{d}"): "is not a file that can be replaced; give another path",
    train("--out", ""): "is a folder; give the name of a file for the model",
    train("--out", "{d}/no/m.safetensors"): "no does not exist; make it or give another path",
    train("--out", "{d}/toy.npz/m.safetensors"): "does not exist",
    train("--out", "{d}/" + "x" * 300): "File name too long",
    # models
    evaluate("nowhere.safetensors"): "does not exist; expected a model file that fullback saved",
    evaluate("empty"): "is not a file; expected a model file",
    evaluate("cut.safetensors"): "cannot be read as a safetensors file",
    evaluate("toy.npz"): "cannot be read as a safetensors file",
    evaluate("foreign.safetensors"): "not a fullback model",
    evaluate("newer.safetensors"): "version 7, but this fullback reads .* install a newer",
    evaluate("colour.safetensors"): r"images of shape \(3, 28, 28\), but toy has .* \(1, 9, 8\)",
    evaluate("good.safetensors", "colour.npz"): r"\(1, 9, 8\), but colour has .* \(3, 9, 8\)",
    ("explain", "{d}/regressor.safetensors", "{d}/good.png"): r"answers in numbers.* its loss is",
    evaluate("features.safetensors"): r"takes images of shape \(72,\), but toy has images",
    evaluate("two.safetensors"): "class .3., number 3, but the model has 2 classes",
    evaluate("good.safetensors", "cut.npz"): r"cut\.npz",
    ("summary", "{d}/cut.safetensors"): "cannot be read as a safetensors file",
    ("summary", "{d}/toy.npz"): "cannot be read as a safetensors file",
    ("summary", "nowhere.safetensors"): r"nowhere\.safetensors does not exist",
    # images
    predict("good.png", model="nowhere.safetensors"): "does not exist; expected a model file",
    predict("good.png", model="newer.safetensors"): "install a newer fullback",
    predict("good.png", model="features.safetensors"): r"take \(1, H, W\) or \(3, H, W\), not \(72",
    predict("good.png", model="pairs.safetensors"): r"not \(2, 9, 8\)",
    predict("nowhere.png"): r"nowhere\.png: no such file; expected an image: check the path",
    predict("empty"): "empty: holds no files; expected images",
    predict("text.png"): r"text\.png: is not an image of a known format .*; convert it to PNG",
    predict("empty.png"): r"empty\.png: is not an image of a known format",
    predict("drawing.svg"): r"drawing\.svg: is not an image of a known format",
    predict("cut.png"): r"cut\.png: cannot be read as an image",
    predict("bomb.png"): r"bomb\.png: has too many pixels; make it smaller",
}
if os.name == "posix":
    FAILURES[train("--out", "/dev/null")] = "/dev/null is not a file that can be replaced"
if sys.platform == "linux":
    FAILURES[train("--out", "/proc/m")] = "the folder /proc cannot be written to"

IN_TRAINING = {  # exit code 1; the page of the run has begun
    train("--batch-size", "8", "--lr", "1e30", "--clip", "inf", net="conv1 flatten dense4"): (
        r"epoch 1, batch \d: \w+\d is the first layer whose output is not finite; .* than 1.1e\+29"
    ),
    train("--optimizer", "adam", "--lr", "1e99"): r"epoch 1.* smaller learning rate than 1.1e\+98",
}

WRONG_NETWORKS = {  # exit code 2, in one line
    "": "the network's text is empty",
    "rubbish": "'rubbish' is not a layer; the layers are conv, pool",
    "cnov8 flatten dense4": "'cnov' is not a layer; did you mean conv?",
    "flatten, dense4": "cannot read 'flatten,' in the network's text",
    "conv(": r"cannot read 'conv\('",
    "conv flatten dense4": "conv needs its number of filters, like conv8",
    "relu3 flatten dense4": "relu takes no number",
    "conv8(stride=0) flatten dense4": "stride must be",
    "conv8(evil=1) flatten dense4": "'evil=1' is not one of its options",
    "conv8(stride=1, stride=2) flatten dense4": "is given twice",
    "dropout1 flatten dense4": "rate must be a number in",
    "conv1(padding=999999999, stride=999999999) flatten dense4": "stride must be at most 1,048,576",
    "conv1(dilation=999999999) flatten dense4": "dilation must be at most 1,048,576",
    "pool999999999(padding=same) flatten dense4": "size must be at most 1,048,576",
    "dense4": r"dense1: Dense takes one row of features .* put Flatten\(\)",
    "conv8": "the last layer, conv1, gives .* end with",
    "pool99 flatten dense4": "pool1: MaxPool2D: a window over 99x99 cells does not fit into 9x8",
    "pool pool pool pool flatten dense4": "pool4 after pool3: .* use a smaller window",
    "flatten flatten dense4 conv8": "conv1 after dense1",
    "flatten dense3": "the network has 3 outputs, but toy has 4 classes; end it with dense4",
    "flatten dense999999999": "units must be at most 268,435,456",
    "flatten dense9999999999": "units must be",
    "flatten dense99999999": "would have 7,299,999,927 parameters; use smaller layers",
    "conv999999999 flatten dense4": "filters must be at most 268,435,456",
    "conv8(padding=999999999) flatten dense4": "padding must be at most 1,048,576",
    "relu " * 3000: "may have 10000 characters, got 15000",
    "lenet5 ": "unknown network 'lenet5 '; did you mean lenet5",
    "Small": "unknown network 'Small'; did you mean small",
    "../net.txt": r"cannot read '\.\./net\.txt'",
    "flatten\x00dense4": "cannot read",
    "[bold]conv8[/bold]": r"cannot read '\[bold\]conv8",
}
WRONG_OPTIONS = {  # exit code 2, in one line
    ("train", "--data-dir", "{d}"): "--data-dir goes with --data mnist, not with --data digits",
    train("--schedule", "none"): "unknown schedule 'none'; did you mean cosine",
    train("--schedule", "steps(at=2)"): "at must be a number",
    train("--augment", "shfit=2"): "did you mean shift",
    train("--mixup", "-1"): "mixup must be a number",
    train("--average", "1"): "average must be a number",
    train("--clip", "0"): "clip_norm must be a number",
    train("--weight-decay", "-1"): "weight_decay must be a number",
    train("--label-smoothing", "1"): "label_smoothing must be",
    train("--validation", "1"): "--validation must be a number",
    train("--patience", "3"): "--patience needs images for validation; give --validation 0.1",
    ("train", "--data", "{d}/toy.npz", "--test-share", "2"): "test_share must be a number",
    train("--image-size", "5x5"): "an image shape goes with image files and CSV files",
    train("--lr", "0"): r"learning_rate must be a number in \(0, inf\), got 0",
    train("--lr", "-1"): r"learning_rate must be a number in \(0, inf\), got -1",
    train("--lr", "nan"): "learning_rate must be .* got nan",
    train("--lr", "inf"): "learning_rate must be .* got inf",
    train("--momentum", "1"): r"momentum must be a number in \[0, 1\), got 1",
    train("--momentum", "-0.5"): "momentum must be",
    train("--freeze", "conv"): "no layer to freeze is called 'conv'; there are dense1",
    train("--compare"): "--compare needs filters that are trained, and the network has none",
    train("--compare", "--freeze", "conv", net="conv1 flatten dense4"): "needs filters that are tr",
    train("--compare", net="conv4 globalavgpool"): "--compare needs layers to train beside the fi",
    ("summary", "lenet5", "--input-shape", "1x8x8"): "a window over 5x5 cells does not fit",
    ("summary", "--input-shape", "28x28"): "--input-shape must be like 1x28x28, got '28x28'",
    ("summary", "--input-shape", "0x8x8"): "input_shape must be",
    ("summary", "--input-shape", "1x28x-28"): "--input-shape must be like 1x28x28",
    ("summary", "--input-shape", "64"): "Conv2D",
    ("summary", "flatten dense5", "--input-shape", "999999x999999x999999"): "too large",
}
USAGE = {  # exit code 2, in one line that ends with where to look
    ("train", "--epochs", "0"): "--epochs",
    ("train", "--epochs", "-1"): "--epochs",
    ("train", "--epochs", "many"): "'--epochs': Input should be a valid integer, unable to parse "
    "string as an integer, got 'many'; see",
    ("train", "--epochs", "1.5"): "--epochs",
    ("train", "--batch-size", "0"): "--batch-size",
    ("train", "--lr", "fast"): "got 'fast'; see",
    ("train", "--seed", "-1"): "--seed",
    ("train", "--optimizer", "adagrad"): "'--optimizer': 'adagrad' is not one of",
    ("train", "--fast"): "--fast",
    ("train", "digits"): "digits",
    ("train", "--net"): "--net",
    ("trian",): "Did you mean 'train'? See fullback --help",
    ("eval",): "MODEL",
    ("eval", "a", "b"): "b",
    ("predict",): "IMAGE",
    ("summary", "--classes", "0"): "--classes",
    ("--fast",): "--fast",
}


def refused(folder, arguments, code):
    """Run a command that must fail without a trace in the folder."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ran = run(*(argument.replace("{d}", str(folder)) for argument in arguments), columns=200)
    assert ran.code == code, ran
    assert "Traceback" not in ran.out + ran.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return ran


def refused_in_one_line(folder, arguments, code, text):
    ran = refused(folder, arguments, code)
    *warnings, line = ran.err.splitlines()
    if arguments in IN_TRAINING:
        assert all(warning.startswith("warning: ") for warning in warnings)
    else:
        assert (ran.out, warnings) == ("", [])
    assert re.fullmatch(f"error: .*{text}.*", line), ran.err
    assert len(line) < 1000


@pytest.mark.parametrize("arguments", {**FAILURES, **IN_TRAINING}, ids=" ".join)
def test_failures(folder, arguments):
    refused_in_one_line(folder, arguments, 1, {**FAILURES, **IN_TRAINING}[arguments])


@pytest.mark.parametrize("net", WRONG_NETWORKS)
def test_wrong_networks(folder, net):
    refused_in_one_line(folder, train(net=net), 2, WRONG_NETWORKS[net])


@pytest.mark.parametrize("arguments", WRONG_OPTIONS, ids=" ".join)
def test_wrong_options(folder, arguments):
    refused_in_one_line(folder, arguments, 2, WRONG_OPTIONS[arguments])


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_usage(folder, arguments, monkeypatch, capsys):
    """Through ``main``, which is where Typer's own errors are brought to one line."""
    monkeypatch.setattr(sys, "argv", ["fullback", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    written = capsys.readouterr()
    assert written.out == ""
    assert re.fullmatch("error: .*(; see|\\? See) fullback.* --help\n", written.err)
    assert USAGE[arguments] in written.err


def test_momentum_without_sgd(folder):
    ran = refused(folder, ("train", "--optimizer", "adam", "--momentum", "0.5"), 2)
    assert ran.err == "error: --momentum goes with sgd, not with adam\n"


def test_nothing_to_train(folder):
    ran = refused(folder, train("--freeze", "dense1"), 2)
    assert ran.err == "error: every layer with parameters is frozen: there is nothing to train\n"


def test_labels_of_the_test_part_are_checked_before_training(folder):
    ran = refused(folder, train(data="test.npz", net="flatten dense2"), 2)
    assert "the network has 2 outputs, but test has 4 classes; end it with dense4" in ran.err
    assert ran.out == ""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root"
)
@pytest.mark.parametrize("name", ["good.safetensors", "toy.npz", "good.png"])
def test_unreadable_files(folder, tmp_path, name):
    path = tmp_path / name
    path.write_bytes((folder / name).read_bytes())
    path.chmod(0)
    arguments = {
        "good.safetensors": ("eval", str(path)),
        "toy.npz": train("--data", str(path)),
        "good.png": ("predict", str(path), "--model", "{d}/good.safetensors"),
    }[name]
    refused_in_one_line(folder, arguments, 1, "ermission")


class TestTrouble:
    """What goes wrong in the system around a command."""

    @pytest.fixture
    def fails(self, folder, tmp_path, monkeypatch):
        """Run a training whose named part raises; a model that was there stays as it was."""

        def call(place, error, *options):
            def fail(*_, **__):
                raise error

            monkeypatch.setattr(place, fail)
            out = tmp_path / "m.safetensors"
            out.write_bytes(b"old")
            data = ("--data", folder / "toy.npz", "--net", "flatten dense4", "--epochs", 1)
            ran = run("train", *data, *options, "--out", out)
            assert out.read_bytes() == b"old"
            assert [path.name for path in tmp_path.iterdir()] == [out.name]
            return ran

        return call

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_a_full_disk(self, fails, tmp_path, options):
        ran = fails("os.fsync", OSError(errno.ENOSPC, "No space left on device"), *options)
        error = ran.err.splitlines()[-1]  # behind a warning of what was trained
        assert error == f"error: {tmp_path / 'm.safetensors'}: No space left on device"
        assert ran.code == 1
        if options:
            assert [event["event"] for event in ran.events] == ["start", "epoch"]

    def test_no_memory(self, fails):
        ran = fails("fullback.training.fit.fit", MemoryError())
        assert ran.err.startswith("error: there is not enough memory; use a smaller network, batch")
        assert ran.code == 1

    @pytest.mark.parametrize("place", ["fullback.training.fit.fit", "fullback.data.load_data"])
    def test_ctrl_c(self, fails, place):
        ran = fails(place, KeyboardInterrupt())
        assert (ran.code, ran.err) == (130, "error: interrupted\n")

    def test_control_characters_do_not_reach_the_terminal(self, folder):
        ran = run("predict", "x\x1b[2J\r\udcff\n.png", "--model", folder / "good.safetensors")
        assert ran.err.startswith("error: x\\x1b[2J \\udcff .png: no such file")
        assert ran.err.count("\n") == 1
