# ruff: noqa: D102 -- documented once, in Rival
"""TensorFlow and JAX, trained beside fullback: one forward pass in the functions of either."""

from __future__ import annotations

import functools
import importlib
import os
from abc import abstractmethod
from typing import Any

import numpy as np

from fullback.bench.problem import MOMENTUM, RATE, Problem
from fullback.bench.rival import Rival, unknown
from fullback.layers import AvgPool2D, BatchNorm2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Tanh
from fullback.layers.base import Array
from fullback.layers.window import pads, pair


class _Functions(Rival):
    """A framework of functions over arrays, which are (N, H, W, C) or (N, C, H, W)."""

    channels_last = True
    ops: Any  # the module with reshape and tanh
    relu: Any

    def logits(self, p: dict[str, Any], x: Any) -> Any:
        """Return the network's output for images in the framework's order of axes."""
        net = self.problem.net
        for name, layer, given in zip(
            net.names, net.layers, (net.input_shape, *net.shapes), strict=False
        ):
            weight, bias = p.get(f"{name}.weight"), p.get(f"{name}.bias")
            match layer:
                case Conv2D(dilation=1, groups=1):
                    around = pads(layer.padding, given[1:], layer.kernel_size, layer.stride)
                    x = self.conv(x, weight, pair(layer.stride), around)
                    x = x if bias is None else x + self.channel(bias)
                case (
                    MaxPool2D(stride=None, padding="valid")
                    | AvgPool2D(stride=None, padding="valid")
                ):
                    x = self.pool(x, pair(layer.size), isinstance(layer, MaxPool2D))
                case BatchNorm2D():
                    x = self.norm(x, weight, bias, layer.epsilon)
                case Dense():
                    x = x @ weight
                    x = x if bias is None else x + bias
                case Flatten():
                    x = self.ops.reshape(x, (-1, int(np.prod(given))))
                case ReLU():
                    x = self.relu(x)
                case Tanh():
                    x = self.ops.tanh(x)
                case _:
                    raise unknown(layer)
        return x

    @abstractmethod
    def conv(self, x: Any, weight: Any, stride: Any, around: Any) -> Any:
        """Convolve; the weight is (R, S, C, K)."""

    @abstractmethod
    def pool(self, x: Any, size: tuple[int, int], largest: bool) -> Any:
        """Pool windows that do not overlap."""

    @abstractmethod
    def norm(self, x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
        """Normalise by the batch's statistics."""

    def channel(self, values: Any) -> Any:
        """Return one number a channel so that it can be added to images."""
        return values if self.channels_last else values.reshape((-1, 1, 1))

    def images(self) -> Array:
        """Return the images in the framework's order of axes."""
        x = self.problem.floats
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.channels_last else x

    def turned(self, name: str, array: Array, *, back: bool = False) -> Array:
        """Turn a parameter of fullback's layout to the framework's, or back."""
        net = self.problem.net
        if array.ndim == 4:
            return np.ascontiguousarray(array.transpose((3, 2, 0, 1) if back else (2, 3, 1, 0)))
        if array.ndim == 1:
            return array
        index = net.names.index(name.split(".")[0])
        before = net.layers[index - 1] if index else None
        array = array.T if back else array
        if isinstance(before, Flatten) and self.channels_last and len(net.shapes[index - 2]) == 3:
            c, h, w = net.shapes[index - 2]
            split, axes = ((h, w, c), (0, 3, 1, 2)) if back else ((c, h, w), (0, 2, 3, 1))
            array = array.reshape(-1, *split).transpose(axes).reshape(len(array), -1)
        return np.ascontiguousarray(array if back else array.T)

    def initial(self) -> dict[str, Array]:
        """Return the network's weights in the framework's layout."""
        return {name: self.turned(name, p) for name, p in self.problem.net.parameters.items()}

    def returned(self, arrays: dict[str, Any]) -> dict[str, Array]:
        """Return weights or gradients in fullback's layout."""
        return {name: self.turned(name, np.asarray(p), back=True) for name, p in arrays.items()}


class TensorFlow(_Functions):
    """TensorFlow's functions, as graphs, or compiled by XLA; the loop over steps is in the graph.

    Keras, on TensorFlow, runs the same functions, a step a call.
    """

    framework = "TensorFlow"
    module = "tensorflow"
    install = "pip install tensorflow-cpu"
    variants = ("graph", "jit")

    def __init__(self, problem: Problem, variant: str, threads: int) -> None:
        super().__init__(problem, variant, threads)
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        self.ops = tf = importlib.import_module("tensorflow")
        self.relu = tf.nn.relu
        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.x, self.y = tf.constant(self.images()), tf.constant(problem.labels)
        self.order = tf.constant(problem.order)
        initial = self.initial()
        self.p = {name: tf.Variable(p) for name, p in initial.items()}
        self.v = {name: tf.Variable(np.zeros_like(p)) for name, p in initial.items()}
        compiled = variant == "jit"
        self._step = tf.function(self._make_step, jit_compile=compiled)
        self._gradients = tf.function(self._make_gradients, jit_compile=compiled)
        self._run = tf.function(self._make_run)

    def conv(self, x: Any, weight: Any, stride: Any, around: Any) -> Any:
        return self.ops.nn.conv2d(x, weight, stride, [(0, 0), *around, (0, 0)])

    def pool(self, x: Any, size: tuple[int, int], largest: bool) -> Any:
        pool = self.ops.nn.max_pool2d if largest else self.ops.nn.avg_pool2d
        return pool(x, size, size, "VALID")

    def norm(self, x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
        return self.ops.compat.v1.nn.fused_batch_norm(x, weight, bias, epsilon=epsilon)[0]

    def _make_gradients(self, x: Any, y: Any) -> Any:
        tf = self.ops
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, self.logits(self.p, x))
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, self.p)

    def _make_step(self, x: Any, y: Any) -> None:
        for name, g in self._make_gradients(x, y).items():
            self.v[name].assign(MOMENTUM * self.v[name] + g)
            self.p[name].assign_sub(RATE * self.v[name])

    def _make_run(self, steps: Any) -> None:
        tf, size = self.ops, self.problem.batch
        for n in tf.range(steps):
            place = n % self.problem.steps * size
            chosen = self.order[place : place + size]
            x = tf.ensure_shape(tf.gather(self.x, chosen), (size, *self.x.shape[1:]))
            self._step(x, tf.ensure_shape(tf.gather(self.y, chosen), (size,)))

    def gradients(self) -> dict[str, Array]:
        first = self.problem.first
        return self.returned(
            self._gradients(self.ops.gather(self.x, first), self.ops.gather(self.y, first))
        )

    def parameters(self) -> dict[str, Array]:
        return self.returned(self.p)

    def train(self, steps: int) -> None:
        self._run(self.ops.constant(steps))
        for p in self.p.values():
            p.numpy()


class Jax(_Functions):
    """JAX, compiled: a step a call, or a loop over steps; images in either order of axes."""

    framework = "JAX"
    module = "jax"
    install = "pip install jax"
    variants = ("NHWC", "NCHW", "NHWC loop", "NCHW loop")
    styles = ("reshape", "windows")  # how to pool: the gradients of the two differ much in speed

    def __init__(self, problem: Problem, variant: str, threads: int) -> None:
        super().__init__(problem, variant, threads)
        if hasattr(os, "sched_setaffinity"):  # it takes a thread for every core it may run on
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        os.environ["JAX_PLATFORMS"] = "cpu"
        self.jax = jax = importlib.import_module("jax")
        self.ops, self.lax, self.relu = jax.numpy, jax.lax, jax.nn.relu
        self.channels_last = variant.startswith("NHWC")
        asarray = jax.numpy.asarray
        self.data = tuple(map(asarray, (self.images(), problem.labels, problem.order)))
        p = {name: asarray(array) for name, array in self.initial().items()}
        self.state = (p, jax.tree.map(jax.numpy.zeros_like, p))
        # The style is read while a function is traced, so each style needs a function of its own.
        traced = self._make_loop if variant.endswith("loop") else self._make_step
        self.run = {style: jax.jit(functools.partial(traced)) for style in self.styles}

    def _axes(self, rows: Any, columns: Any, else_: Any) -> tuple[Any, ...]:
        inner = (rows, columns)
        return (else_, *inner, else_) if self.channels_last else (else_, else_, *inner)

    def conv(self, x: Any, weight: Any, stride: Any, around: Any) -> Any:
        order = "NHWC" if self.channels_last else "NCHW"
        return self.lax.conv_general_dilated(
            x, weight, stride, around, dimension_numbers=(order, "HWIO", order)
        )

    def pool(self, x: Any, size: tuple[int, int], largest: bool) -> Any:
        rows, columns = size
        first = 1 if self.channels_last else 2
        if self.style == "reshape":
            h, w = x.shape[first] // rows, x.shape[first + 1] // columns
            x = x[self._axes(slice(h * rows), slice(w * columns), slice(None))]
            shape = (*x.shape[:first], h, rows, w, columns, *x.shape[first + 2 :])
            return (self.ops.max if largest else self.ops.mean)(
                x.reshape(shape), axis=(first + 1, first + 3)
            )
        window = self._axes(rows, columns, 1)
        if largest:
            return self.lax.reduce_window(x, -np.inf, self.lax.max, window, window, "VALID")
        total = self.lax.reduce_window(x, 0.0, self.lax.add, window, window, "VALID")
        return total / (rows * columns)

    def norm(self, x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
        axes = (0, 1, 2) if self.channels_last else (0, 2, 3)
        mean = self.channel(x.mean(axes))
        scale = weight * self.lax.rsqrt(self.ops.square(x - mean).mean(axes) + epsilon)
        return (x - mean) * self.channel(scale) + self.channel(bias)

    def _loss(self, p: Any, x: Any, y: Any) -> Any:
        logs = self.jax.nn.log_softmax(self.logits(p, x))
        return -self.ops.take_along_axis(logs, y[:, None], 1).mean()

    def _make_step(self, state: Any, n: Any, data: Any) -> Any:
        (p, v), (x, y, order), size = state, data, self.problem.batch
        place = n % self.problem.steps * size
        chosen = self.lax.dynamic_slice_in_dim(order, place, size)
        g = self.jax.grad(self._loss)(p, x[chosen], y[chosen])
        v = self.jax.tree.map(lambda v, g: MOMENTUM * v + g, v, g)
        return self.jax.tree.map(lambda p, v: p - RATE * v, p, v), v

    def _make_loop(self, state: Any, steps: Any, data: Any) -> Any:
        # What lax.scan is made of, for a number of steps that is not compiled in.
        return self.lax.fori_loop(0, steps, lambda n, state: self._make_step(state, n, data), state)

    def gradients(self) -> dict[str, Array]:
        x, y, order = self.data
        first = order[: self.problem.batch]
        return self.returned(
            self.jax.jit(self.jax.grad(self._loss))(self.state[0], x[first], y[first])
        )

    def parameters(self) -> dict[str, Array]:
        return self.returned(self.state[0])

    def train(self, steps: int) -> None:
        run = self.run[self.style]
        for n in [steps] if self.variant.endswith("loop") else range(steps):
            self.state = run(self.state, n, self.data)
        self.jax.block_until_ready(self.state)
