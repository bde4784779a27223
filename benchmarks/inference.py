# ruff: noqa: D102 -- documented once, in Fullback
"""Prediction beside PyTorch and onnxruntime: one image, and 10,000 of them.

Every framework answers with probabilities, from uint8 pixels and from floats; what a framework
needs to turn the one into the other counts. PyTorch runs in inference mode with channels last,
onnxruntime with all its graph optimisations, both with one thread and with all, and with every
batch size of the sweep; the best is shown. All answers are compared with the reference first.
The first ratio is of one uint8 image, the second of many float32 ones.
"""

import argparse
import collections
import importlib
import importlib.util
import os
import statistics
import time
from typing import Any, TypeAlias

import numpy as np
from tables import console, progress, table

from fullback import Network, zoo
from fullback.bench.children import Children, Handle
from fullback.bench.pytorch import torch_module
from fullback.engine.machine import threads as every_thread
from fullback.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
from fullback.layers.window import pads

NETWORKS = {name: zoo.NETWORKS[name] for name in ("question", "small", "wide")}
IMAGES = 10_000
SIZES = (16, 64, 256, 1024, 10_000)
DTYPES = ("uint8", "float32")
CHECKED = 100  # images whose answers are compared
APART = 1e-5  # of probabilities: a hundred roundings of float32
Times: TypeAlias = dict[tuple[str, int], list[float]]  # seconds, by dtype and batch size


def images(count: int, kind: str) -> np.ndarray:
    """Return images of 28x28, the same in every process."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), np.uint8)
    return pixels if kind == "uint8" else pixels / np.float32(255)


class Fullback:
    """The public call: it chooses batches itself."""

    name, modules = "fullback", ("fullback",)
    sweep = (IMAGES,)

    def __init__(self, net: Network, threads: int) -> None:
        os.environ["FULLBACK_NUM_THREADS"] = str(threads)
        self.net = net

    def answer(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of a batch, as an array."""
        return self.net.predict_proba(x)

    def probabilities(self, count: int) -> np.ndarray:
        """Return the answers to the first images."""
        return np.array(self.answer(images(count, "uint8")))

    def one(self, kind: str, calls: int) -> float:
        """Return the median time of the answer to one image."""
        x, times = images(1, kind), []
        for _ in range(calls):
            start = time.perf_counter()
            self.answer(x)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def load(self, kind: str) -> None:
        """Have all images in memory."""
        self.images = images(IMAGES, kind)

    def many(self, size: int) -> float:
        """Return the time of the answers to all images."""
        start = time.perf_counter()
        for first in range(0, IMAGES, size):
            self.answer(self.images[first : first + size])
        return time.perf_counter() - start


class PyTorch(Fullback):
    """PyTorch's module."""

    name, modules, sweep = "PyTorch", ("torch",), SIZES

    def __init__(self, net: Network, threads: int) -> None:
        self.torch = torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        self.model = torch_module(net).eval().to(memory_format=torch.channels_last)

    def answer(self, x: np.ndarray) -> np.ndarray:
        torch = self.torch
        with torch.inference_mode():
            tensor = torch.from_numpy(x)
            if x.dtype == np.uint8:
                tensor = tensor.float().div_(255)
            tensor = tensor.contiguous(memory_format=torch.channels_last)
            return self.model(tensor).softmax(1).numpy()


class OnnxRuntime(Fullback):
    """onnxruntime, with a model of one node a layer."""

    name, modules, sweep = "onnxruntime", ("onnx", "onnxruntime"), SIZES

    def __init__(self, net: Network, threads: int) -> None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = runtime.InferenceSession(
            onnx_model(net), options, providers=["CPUExecutionProvider"]
        )

    def answer(self, x: np.ndarray) -> np.ndarray:
        x = x / np.float32(255) if x.dtype == np.uint8 else x
        return self.session.run(None, {"x": x})[0]


def onnx_model(net: Network) -> bytes:
    """Return the network and a softmax as an ONNX file."""
    onnx = importlib.import_module("onnx")
    helper: Any = onnx.helper
    nodes, last = [], "x"
    for name, layer, given in zip(
        net.names, net.layers, (net.input_shape, *net.shapes), strict=False
    ):
        weights, options = [f"{name}.weight", f"{name}.bias"], {}
        match layer:
            case Conv2D(dilation=1, groups=1, bias=True):
                around = pads(layer.padding, given[1:], layer.kernel_size, layer.stride)
                kind, options = "Conv", {"pads": [*(a for a, _ in around), *(b for _, b in around)]}
            case Dense(bias=True):
                kind, options = "Gemm", {"transB": 1}
            case MaxPool2D(stride=None, padding="valid", size=int(size)):
                kind, weights = "MaxPool", []
                options = {"kernel_shape": [size, size], "strides": [size, size]}
            case ReLU() | Flatten():
                kind, weights = {"relu": "Relu", "flatten": "Flatten"}[layer.kind], []
            case _:
                raise ValueError(f"{layer} is not among the layers that are compared")
        nodes.append(helper.make_node(kind, [last, *weights], [name], **options))
        last = name
    nodes.append(helper.make_node("Softmax", [last], ["p"], axis=1))
    shapes = {"x": net.input_shape, "p": net.output_shape}
    x, p = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])
        for name, shape in shapes.items()
    )
    arrays = [onnx.numpy_helper.from_array(p, name) for name, p in net.parameters.items()]
    graph = helper.make_graph(nodes, "fullback", [x], [p], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def measure(handle: Handle, kind: type[Fullback], times: Times, *, quick: bool) -> None:
    """Add the seconds of one image and of all images to the times, by type and batch size."""
    calls = 200 if quick else 3000
    for dtype in DTYPES:
        handle.call("one", dtype, calls // 10)
        times[dtype, 1].append(handle.call("one", dtype, calls))
        handle.call("load", dtype)
        for size in kind.sweep[-2:] if quick else kind.sweep:
            handle.call("many", size)
            times[dtype, size].append(handle.call("many", size))


def compare(name: str, rounds: int, *, quick: bool) -> None:
    """Check and time all frameworks on one network, and show them."""
    net, every = NETWORKS[name](), every_thread()
    wanted = net.predict_proba(images(CHECKED, "uint8"), engine="reference")
    rows: dict[tuple[str, int], Times] = {}
    with Children() as children, progress.status(name) as status:
        entries = []
        for kind in (Fullback, OnnxRuntime, PyTorch):
            if not all(importlib.util.find_spec(module) for module in kind.modules):
                advice = f"{kind.name} is not installed: pip install 'fullback[bench]'"
                console.print(advice, markup=False)
                continue
            for threads in sorted({1, every}):
                handle = children.get(kind.name, threads).make(kind, net, threads)
                given = handle.call("probabilities", CHECKED)
                if not np.abs(given - wanted).max() <= APART:
                    raise SystemExit(f"{kind.name} answers {name} otherwise than the reference")
                entries.append((kind, threads, handle))
                rows[kind.name, threads] = collections.defaultdict(list)
        for turn in range(rounds):
            for kind, threads, handle in entries:
                status.update(f"{name}, round {turn + 1}: {kind.name}, {threads} threads")
                measure(handle, kind, rows[kind.name, threads], quick=quick)
    show(name, rows, rows["fullback", every])


def show(name: str, rows: dict[tuple[str, int], Times], ours: Times) -> None:
    """Write the tables of one network: medians, and of the batch sizes the best."""
    head = ("framework", "threads", *DTYPES)
    one = table(f"{name}: microseconds of one image", *head, "ratio")
    many = table(f"{name}: images a second, of {IMAGES:,}", *head, "batch", "ratio")
    for (framework, threads), times in rows.items():
        by_one = [best(times, dtype, one=True)[0] for dtype in DTYPES]
        by_many = [best(times, dtype, one=False) for dtype in DTYPES]
        one.add_row(
            framework,
            str(threads),
            *(f"{seconds * 1e6:.1f}" for seconds in by_one),
            f"{by_one[0] / best(ours, 'uint8', one=True)[0]:.2f} x",
        )
        many.add_row(
            framework,
            str(threads),
            *(f"{IMAGES / seconds:,.0f}" for seconds, _ in by_many),
            f"{by_many[1][1]:,}",
            f"{by_many[1][0] / best(ours, 'float32', one=False)[0]:.2f} x",
        )
    console.print("", one, many)


def best(times: Times, dtype: str, *, one: bool) -> tuple[float, int]:
    """Return the median seconds of the best batch size, and that size."""
    return min(
        (statistics.median(taken), size)
        for (own, size), taken in times.items()
        if own == dtype and (size == 1) == one
    )


def main() -> None:
    """Compare the three networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are shown")
    parser.add_argument("--net", choices=list(NETWORKS), action="append")
    parser.add_argument("--quick", action="store_true", help="one round of few calls and sizes")
    options = parser.parse_args()
    for name in options.net or NETWORKS:
        compare(name, 1 if options.quick else options.rounds, quick=options.quick)


if __name__ == "__main__":
    main()
