# ruff: noqa: D102 -- documented once, in Rival
"""PyTorch, trained beside fullback."""

from __future__ import annotations

import importlib
import itertools
from collections import OrderedDict
from typing import Any

from fullback.bench.problem import MOMENTUM, RATE, Problem
from fullback.bench.rival import Rival, unknown
from fullback.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Tanh,
)
from fullback.layers.base import Array, Shape
from fullback.layers.window import pads
from fullback.network import Network


class PyTorch(Rival):
    """PyTorch: as it comes, with channels last in memory, or compiled."""

    framework = "PyTorch"
    module = "torch"
    install = "pip install 'fullback[bench]'"
    variants = ("eager", "channels_last", "compile")
    styles = tuple(map(" ".join, itertools.product(("fused", "foreach"), ("gather", "slices"))))

    def __init__(self, problem: Problem, variant: str, threads: int) -> None:
        super().__init__(problem, variant, threads)
        self.torch = torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        self.model = torch_module(problem.net).train()
        self.x = torch.from_numpy(problem.floats)
        self.y = torch.from_numpy(problem.labels)
        self.order = torch.from_numpy(problem.order)
        if variant == "channels_last":  # kept as (N, H, W, C), so that a batch is one already
            self.model = self.model.to(memory_format=torch.channels_last)
            self.x = self.x.permute(0, 2, 3, 1).contiguous()
        self.loss = self._loss
        if variant == "compile":
            compiler = importlib.import_module("torch._dynamo")
            compiler.reset()  # it compiles one function a few times, and from then on silently not
            compiler.config.suppress_errors = False
            self.loss = torch.compile(self._loss, dynamic=False)
        self.optimizers = {
            way: torch.optim.SGD(self.model.parameters(), RATE, MOMENTUM, **{way: True})
            for way in ("fused", "foreach")
        }

    def _loss(self, x: Any, y: Any) -> Any:
        if self.variant == "channels_last":
            x = x.permute(0, 3, 1, 2)
        return self.torch.nn.functional.cross_entropy(self.model(x), y)

    def _named(self, of: str) -> dict[str, Array]:
        named = self.model.named_parameters()
        return {name: getattr(p, of).detach().numpy().copy() for name, p in named}

    def gradients(self) -> dict[str, Array]:
        first = self.order[: self.problem.batch]
        self.loss(self.x[first], self.y[first]).backward()
        gradients = self._named("grad")
        self.model.zero_grad(set_to_none=True)
        return gradients

    def parameters(self) -> dict[str, Array]:
        return self._named("data")

    def train(self, steps: int) -> None:
        optimizer, batches = self.style.split()
        step = self.optimizers[optimizer]
        size, x, y = self.problem.batch, self.x, self.y
        for n in range(steps):
            place = n % self.problem.steps * size
            if batches == "gather":
                chosen = self.order[place : place + size]
                images, labels = x.index_select(0, chosen), y.index_select(0, chosen)
            else:
                if not place:  # shuffle everything once an epoch
                    some = self.order[: min(steps - n, self.problem.steps) * size]
                    all_images, all_labels = x.index_select(0, some), y.index_select(0, some)
                images = all_images[place : place + size]
                labels = all_labels[place : place + size]
            loss = self.loss(images, labels)
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()


def torch_module(net: Network) -> Any:
    """Return the network as a PyTorch module of the same names and weights."""
    nn = importlib.import_module("torch.nn")
    shapes = (net.input_shape, *net.shapes)
    named = zip(net.names, net.layers, shapes, strict=False)
    model = nn.Sequential(
        OrderedDict((name, _torch_layer(nn, layer, given)) for name, layer, given in named)
    )
    with importlib.import_module("torch").no_grad():
        for name, parameter in model.named_parameters():
            parameter.numpy()[...] = net.parameters[name]
    return model


def _torch_layer(nn: Any, layer: Layer, given: Shape) -> Any:
    match layer:
        case Conv2D():
            around = pads(layer.padding, given[1:], layer.kernel_size, layer.stride, layer.dilation)
            if all(before == after for before, after in around):
                padding = tuple(before for before, _ in around)
                sizes = (layer.kernel_size, layer.stride, padding, layer.dilation)
                return nn.Conv2d(given[0], layer.filters, *sizes, layer.groups, layer.bias)
        case MaxPool2D(padding="valid"):
            return nn.MaxPool2d(layer.size, layer.stride)
        case AvgPool2D(padding="valid"):
            return nn.AvgPool2d(layer.size, layer.stride)
        case BatchNorm2D():
            return nn.BatchNorm2d(given[0], layer.epsilon, layer.momentum)
        case Dense():
            return nn.Linear(given[0], layer.units, layer.bias)
        case ReLU() | Tanh() | Flatten():
            return getattr(nn, type(layer).__name__)()
    raise unknown(layer)
