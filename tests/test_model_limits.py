"""Limits of options and a pass's memory: from Python, the text form and model files."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fullback as fb
from fullback import memory
from fullback.engine import machine

LARGE = (2**21, 2**31, 2**63, 2**64, 10**30, 10**5000)
LONG = (
    [1] * 10_000,
    "x" * 100_000,
    {"a": [[[[[1]]]]]},
    float("nan"),
    float("inf"),
    True,
    b"",
    None,
)
VALUES = (*LARGE[1:], *LONG)
WHOLE = {
    "filters": lambda value: fb.Conv2D(value),
    "groups": lambda value: fb.Conv2D(8, groups=value),
    "kernel_size": lambda value: fb.Conv2D(8, value),
    "stride": lambda value: fb.Conv2D(8, stride=(1, value)),
    "padding": lambda value: fb.Conv2D(8, padding=value),
    "dilation": lambda value: fb.Conv2D(8, dilation=(value, 1)),
    "units": lambda value: fb.Dense(value),
    "pool size": lambda value: fb.MaxPool2D(value),
    "pool stride": lambda value: fb.AvgPool2D(2, stride=(1, value)),
    "pool padding": lambda value: fb.AvgPool2D(2, padding=value),
}
NUMBERS = {
    "rate": lambda value: fb.Dropout(value),
    "slope": lambda value: fb.LeakyReLU(value),
    "epsilon": lambda value: fb.BatchNorm2D(epsilon=value),
    "momentum": lambda value: fb.BatchNorm2D(momentum=value),
    "label_smoothing": lambda value: fb.SoftmaxCrossEntropy(value),
}


class TestOptions:
    @pytest.mark.parametrize("case", range(len(VALUES)))
    @pytest.mark.parametrize("option", [*WHOLE, *NUMBERS])
    def test_values_out_of_range(self, option, case):
        value = VALUES[case]
        with pytest.raises(fb.OptionError) as caught:
            {**WHOLE, **NUMBERS}[option](value)
        assert len(str(caught.value)) < 400
        assert "got" in str(caught.value) or "smaller than" in str(caught.value)

    def test_the_largest(self):
        assert fb.Conv2D(2**28, 2**20, 2**20, 2**20, 2**20).filters == 2**28
        with pytest.raises(
            fb.OptionError, match=r"stride must be at most 1,048,576, got \(1, 1048"
        ):
            fb.Conv2D(1, stride=(1, 2**20 + 1))
        with pytest.raises(
            fb.OptionError, match="units must be at most 268,435,456, got 268435457"
        ):
            fb.Dense(2**28 + 1)
        with pytest.raises(
            fb.OptionError, match=r"filters must be at most .* a number of 16,610 bi"
        ):
            fb.Conv2D(10**5000)

    @pytest.mark.parametrize(
        "text", ["conv2(stride=999999999)", "conv2(padding=1x1500000)", "pool(size=9999999)"]
    )
    def test_text(self, text):
        with pytest.raises(fb.OptionError, match="must be at most 1,048,576"):
            fb.Network.parse(f"{text} globalavgpool", (1, 28, 28))

    @pytest.mark.parametrize("what", ["layers", "input_shape", "loss", "dtype", "seed"])
    @pytest.mark.parametrize("case", range(4))
    def test_networks(self, what, case):
        value = (10**5000, -(10**5000), "x" * 100_000, ["y"] * 10_000)[case]
        options = {"layers": [fb.Dense(2)], "input_shape": (3,), what: value}
        if (what, case) == ("seed", 0):
            assert fb.Network(**options).output_shape == (2,)
            return
        with pytest.raises((fb.OptionError, fb.ShapeError)) as caught:
            fb.Network(**options)
        assert len(str(caught.value)) < 400


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "shape", "message"),
        [
            ("conv1(padding=1x1000000) globalavgpool", (1, 28, 28), "conv1: .* is 30x2000028, whi"),
            ("conv1(padding=1000) globalavgpool", (1, 28, 28), "is 2028x2028, which is too large"),
            ("conv1(dilation=2000) globalavgpool", (9, 28, 28), "is 4028x4028, which is too large"),
            ("pool999(padding=998) globalavgpool", (1, 28, 28), "is 2024x2024, which is too large"),
            ("conv1(kernel_size=700, padding=350) globalavgpool", (1, 28, 28), "the windows over"),
            ("pool500(stride=1) globalavgpool", (1, 1000, 1000), "pool1: the windows over an inpu"),
            ("conv999 relu conv999 globalavgpool", (1, 300, 300), "relu1: an output of shape .99"),
            ("globalavgpool", (1, 2**14, 2**14), "an input of shape .* is too large for one image"),
        ],
    )
    def test_too_large(self, text, shape, message):
        with pytest.raises(fb.ShapeError, match=message):
            fb.Network.parse(text, shape)

    @pytest.mark.parametrize(
        ("text", "shape"),
        [
            ("conv64 relu conv64 relu pool conv128 relu globalavgpool dense9", (3, 512, 512)),
            ("conv64(kernel_size=7, stride=2, padding=3) globalavgpool dense9", (3, 224, 224)),
            ("conv8(kernel_size=1x400, stride=1x160) relu globalavgpool dense2", (1, 1, 48000)),
            ("conv8(padding=200) globalavgpool dense2", (3, 512, 512)),
        ],
    )
    def test_large_but_sensible(self, text, shape):
        assert fb.Network.parse(text, shape).output_shape


# Memory -----------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Set how much memory there seems to be."""

    def set_free(size):
        for module in (memory, machine):
            monkeypatch.setattr(module, "available_memory", lambda: size)

    return set_free


def test_available_memory(monkeypatch, tmp_path):
    info = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "_free", list)
    monkeypatch.setattr(memory, "_process", list)
    monkeypatch.setattr(memory, "LIMITS", (str(info),))
    assert memory.available_memory() is None
    info.write_text("max\n")
    assert memory.available_memory() is None
    info.write_text("12345\n")
    assert memory.available_memory() == 12345
    monkeypatch.setattr(memory, "_process", lambda: [-5])
    assert memory.available_memory() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_memory_of_this_machine():
    assert 2**20 < memory.available_memory() < 2**50


class TestMemory:
    NET = "conv8 batchnorm relu pool globalavgpool dense3"

    def test_batches_that_meet(self, free):
        """Batch normalisation holds all blocks of a batch at once: 1,437 images take gigabytes."""
        net = fb.Network.parse(self.NET, (1, 256, 256))
        x, y = np.zeros((1437, 1, 256, 256), np.uint8), np.zeros(1437, int)
        free(2**30)
        with pytest.raises(
            fb.NotEnoughMemoryError, match=r"a batch of 1440 images takes \d+\.\d GiB"
        ):
            fb.fit(net, x, y, epochs=1, batch_size=1437, verbose=False)
        with pytest.raises(MemoryError, match=r"and 1\.0 GiB are free; use smaller batches"):
            net.loss_and_gradients(x, y)

    def test_a_pass_that_does_not_fit(self, free):
        net = fb.Network.parse("conv64 relu conv64 globalavgpool dense2", (3, 300, 300))
        free(2**28)
        with pytest.raises(
            fb.NotEnoughMemoryError, match=r"takes \d+ MiB|GiB .* a smaller network"
        ):
            net.predict(np.zeros((20, 3, 300, 300), np.uint8))
        with pytest.raises(fb.NotEnoughMemoryError, match=r"a pass of 20 images takes .* GiB"):
            net.trace(np.zeros((20, 3, 300, 300), np.uint8), np.zeros(20, int))

    def test_fewer_threads_where_memory_is_scarce(self, free, monkeypatch):
        monkeypatch.setenv("FULLBACK_NUM_THREADS", "8")
        net = fb.Network.parse("conv16 relu globalavgpool dense2", (1, 128, 128))
        x = np.random.default_rng(0).integers(0, 255, (200, 1, 128, 128), np.uint8)
        wanted = net.logits(x)
        assert len(net.machines["logits"]) == 1
        before = net.machines["logits"].pop()
        free(3 * 4 * before.arena_size)
        assert np.array_equal(net.logits(x), wanted)
        if before.library.compiled:
            assert (before.workers, net.machines["logits"][0].workers) == (8, 2)

    def test_the_reference_takes_fewer_images_at_a_time(self):
        net = fb.Network.parse("conv16(kernel_size=7) globalavgpool dense2", (8, 64, 64))
        x = np.random.default_rng(0).random((40, 8, 64, 64), np.float32)
        assert len(x) * net.pass_values > 2**26
        wanted = np.concatenate(
            [net.logits(x[n : n + 5], engine="reference") for n in range(0, 40, 5)]
        )
        assert np.allclose(net.logits(x, engine="reference"), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize("megabytes", [150, 270])
def test_too_little_memory_is_no_interrupt(megabytes, tmp_path):
    """OpenBLAS raises SIGINT where it has no memory for its threads."""
    script = (
        "import resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_AS, ({megabytes * 2**20},) * 2); "
        "sys.argv[1:] = ['train', '--epochs', '1', '--json']; "
        "from fullback.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 1
    assert "memory" in ran.stderr.splitlines()[-1].lower()
    assert "interrupted" not in ran.stderr
    assert "Traceback" not in ran.stderr


# Model files ------------------------------------------------------------------------------------

FUZZ = """
import json, random, resource, sys, warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import save as to_bytes

import fullback as fb
from fullback.errors import FullbackError
from fullback.layers import LAYERS
from fullback.architecture import architecture_of

warnings.simplefilter("ignore")
path, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
BASE = json.loads(sys.argv[4])
LAYER_OPTIONS = {
    "conv": ("filters", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
    "pool": ("size", "stride", "padding"), "avgpool": ("size", "stride", "padding"),
    "dense": ("units", "bias"), "dropout": ("rate",), "leakyrelu": ("slope",),
    "batchnorm": ("momentum", "epsilon"),
}
NUMBERS = [
    0, 1, 2, 3, 5, 7, 8, 16, 28, 31, 64, 100, 128, 255, 1000, 1024, 4096, 2**15, 2**16, 10**6,
    1500000, 2**20, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**40, -1, -2**63,
]
OTHERS = [
    None, True, False, "same", "valid", "", "x" * 300, 0.5, -0.0, 1e-300, 1e300, 1.5, float("nan"),
    float("inf"), [], {}, [1], [[1, 2], [3]], "\\ud800", "\\x1b[2J", [None] * 50,
]

def value():
    kind = draw.random()
    if kind < 0.5:
        return draw.choice(NUMBERS)
    if kind < 0.75:
        return [draw.choice(NUMBERS), draw.choice(NUMBERS)]
    return draw.choice(OTHERS)

def layer():
    kind = draw.choice(list(LAYERS))
    made = {"kind": kind}
    if kind in ("conv", "dense"):
        made[{"conv": "filters", "dense": "units"}[kind]] = draw.choice((1, 2, 8, 100, 5000))
    for option in LAYER_OPTIONS.get(kind, ()):
        if draw.random() < 0.2:
            made[option] = value()
    return made

def mutated(tree):
    if draw.random() < 0.01:
        return value()
    if isinstance(tree, dict):
        made = {key: mutated(own) for key, own in tree.items() if draw.random() > 0.004}
        if draw.random() < 0.01:
            made[draw.choice(["evil", "kind", "__class__", "filters", "units"])] = value()
        return made
    if isinstance(tree, list):
        made = [mutated(own) for own in tree]
        if made and draw.random() < 0.05:
            made.insert(draw.randrange(len(made)), value())
        return made
    return tree

def arrays(described):
    "What the file needs so that it is read to its end; the base's, where that is too much."
    from fullback.export.safetensors import read_layers
    try:
        layers = read_layers(described["layers"])
        built = architecture_of(layers, described["input_shape"])
        shapes = {**built.parameters, **built.statistics}
        if sum(int(np.prod(s, dtype=object)) for s in shapes.values()) < 10**6:
            return {name: np.full(shape, 0.01, "f4") for name, shape in shapes.items()}
    except Exception:
        pass
    return {"conv1.weight": np.zeros((1, 1, 3, 3), "f4")}

limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
fb.zoo.question().predict(np.zeros((1, 1, 28, 28)))  # what is loaded once is not counted
limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit + 300 * 2**20,) * 2)
worked = refused = 0
for number in range(count):
    described = dict(BASE)
    if number % 2:
        described["layers"] = [layer() for _ in range(draw.randint(1, 5))]
        described["layers"] += draw.choice(([{"kind": "flatten"}], [{"kind": "globalavgpool"}]))
        described["input_shape"] = draw.choice(([1, 28, 28], [3, 64, 64], [2, 500, 400], [1, 1, 9]))
    described = mutated(described)
    try:
        path.write_bytes(to_bytes(arrays(described), {"fullback": json.dumps(described)}))
    except (UnicodeEncodeError, ValueError, TypeError):
        continue
    try:
        net = fb.load(path)
        net.summary(), repr(net)
        net.predict(np.zeros((1, *net.input_shape), np.uint8))
        worked += 1
    except FullbackError as error:
        assert len(str(error)) < 1000, str(error)
        refused += 1
    except BaseException:
        print(json.dumps(described)[:2000], file=sys.stderr)
        raise
print(worked, refused)
"""

BASE = """{"version": 2, "input_shape": [1, 28, 28], "dtype": "float32", "frozen": ["conv1"],
"loss": {"kind": "softmax_cross_entropy", "label_smoothing": 0.0}, "class_names": ["a", "b"],
"trained_on": {"low": 0, "high": 255, "mean": 30, "border": 0, "black": 0, "white": 1.0},
"layers": [{"kind": "normalize"}, {"kind": "conv", "filters": 4, "kernel_size": 3, "stride": 1,
"padding": "same", "dilation": 1, "groups": 1, "bias": true}, {"kind": "batchnorm", "momentum": 0.1,
"epsilon": 1e-05}, {"kind": "leakyrelu", "slope": 0.01}, {"kind": "pool", "size": 2, "stride": null,
"padding": "valid"}, {"kind": "dropout", "rate": 0.5}, {"kind": "flatten"}, {"kind": "dense",
"units": 2, "bias": true}]}"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize("seed", [0, 1])
def test_random_model_files(tmp_path, seed):
    """Whatever a file says, it is refused in one line, or works within 300 MB."""
    ran = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path / "m.safetensors"), str(seed), "1000", BASE],
        env={**os.environ, "FULLBACK_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    worked, refused = map(int, ran.stdout.split())
    assert worked > 100
    assert refused > 100
