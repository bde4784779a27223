"""One image's forward and backward pass as a document that pages show.

Every number in it is ``net.trace``'s.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fullback.errors import InputError, ShapeError
from fullback.layers import BatchNorm2D, BinaryCrossEntropy, Dropout, Normalize
from fullback.layers.loss import one_hot
from fullback.layers.window import pads
from fullback.report.steps import program_steps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fullback.layers import Layer
    from fullback.layers.base import Array, Shape
    from fullback.network import Network
    from fullback.passes import Trace


def document(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    classes: Sequence[str] | None = None,
    training: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Run one image forward and backward; return everything as a dict that JSON takes.

    The program is that of a training step, whatever ``training`` is.

    Arrays are ``{"shape": [...], "data": base64 of little-endian float32}``; those of a float64
    network are rounded to float32, and ``["network"]["dtype"]`` says so.

    Parameters
    ----------
    net : the network
    x : one image, of shape (C, H, W), (1, C, H, W), or (H, W) for one channel; uint8 or float
    y : its label, or its target of shape (outputs,) for MeanSquaredError
    classes : names of the outputs; without them, the network's own, or else their numbers
    training, seed : as in ``Network.trace``

    Raises
    ------
    ShapeError, InputError
        It is not one image, or not its label, or the names of the classes are not one an output.
    """
    images = one_image(net, x)
    trace = net.trace(images, _one_target(net, y), training=training, seed=seed)
    outputs = net.output_shape[0]
    names = class_names(net) if classes is None else [str(name) for name in classes]
    if len(names) != outputs:
        raise ShapeError(f"classes must be {outputs} names, one per output, got {len(names)}")
    return {
        "network": _network(net, training=training),
        "classes": names,
        "layers": _layers(net),
        "input": packed(trace.activations["input"][0]),
        "range": list(shown_range(net, trace.activations["input"][0])),
        "label": int(np.asarray(y).reshape(()))
        if net.loss.classifies and np.size(y) == 1
        else None,
        "target": packed(_target(net, images, y)),
        "loss": trace.loss if math.isfinite(trace.loss) else None,
        "probabilities": None if trace.probabilities is None else packed(trace.probabilities[0]),
        "activations": {name: packed(value[0]) for name, value in trace.activations.items()},
        "deltas": {name: packed(value[0]) for name, value in trace.deltas.items()},
        "parameters": {name: packed(value) for name, value in net.parameters.items()},
        "gradients": {name: packed(value) for name, value in trace.gradients.items()},
        "kept": {name: packed(value) for name, value in _kept(net, trace).items()},
        "program": program_steps(net),
    }


def class_names(net: Network, others: Sequence[str] = ()) -> list[str]:
    """Return a name for every output: the network's, or else others, or else its number."""
    outputs = net.output_shape[0]
    names = [str(name) for name in (net.class_names or others)][:outputs]
    return names + [str(n) for n in range(len(names), outputs)]


def shown_range(net: Network, image: Array) -> tuple[float, float]:
    """Return the values of the network's input that are drawn black and white.

    ``image`` is what is drawn where nothing is known of the network's images: from its smallest to
    its largest value, unless all of them lie between 0 and 1.
    """
    record = net.trained_on
    if record is not None and record.black is not None and record.white is not None:
        return record.black, record.white
    low, high = float(image.min()), float(image.max())
    if record is not None:
        low, high = record.low, record.high
    elif 0 <= low <= high <= 1:
        return 0.0, 1.0
    return (low, high) if low < high else (low, low + 1)


def packed(array: Array) -> dict[str, Any]:
    """Return an array as JSON takes it, and ``arrays.js`` reads it."""
    values = np.ascontiguousarray(array, dtype="<f4")
    return {"shape": list(array.shape), "data": base64.b64encode(values.tobytes()).decode("ascii")}


def one_image(net: Network, x: ArrayLike) -> Array:
    """Check that ``x`` is one image for the network, and return a batch of it.

    Raises
    ------
    ShapeError, InputError
        It is not.
    """
    image = np.asarray(x)
    if image.shape in (net.input_shape, net.input_shape[1:]) and (
        image.shape == net.input_shape or net.input_shape[0] == 1
    ):
        image = image.reshape(1, *net.input_shape)
    images = net.check_images(image)
    if len(images) != 1:
        raise ShapeError(
            f"x must be one image, of shape {net.input_shape}, but holds {len(images)}; x[0] is "
            "the first"
        )
    return images


def _one_target(net: Network, y: ArrayLike) -> Array:
    target = np.asarray(y)
    if net.loss.classifies:
        if isinstance(net.loss, BinaryCrossEntropy) and target.size == net.output_shape[0] > 1:
            return target.reshape(1, -1)
        if target.size != 1:
            raise InputError(f"y must be one label, the image's, but has shape {target.shape}")
        return target.reshape(1)
    return target.reshape(1, -1)


def _target(net: Network, images: Array, y: ArrayLike) -> Array:
    """Return the distribution, or the numbers, that the loss compares the output with."""
    targets: Array = net.loss.targets(_one_target(net, y), len(images), net.output_shape[0])[0]
    if targets.ndim:
        return targets
    if isinstance(net.loss, BinaryCrossEntropy):
        row: Array = one_hot(targets[None], net.output_shape[0])[0]
        return row
    smoothing = getattr(net.loss, "label_smoothing", 0.0)
    t = np.full(net.output_shape, smoothing / net.output_shape[0])
    t[targets] += 1 - smoothing
    return t


def _network(net: Network, *, training: bool) -> dict[str, Any]:
    return {
        "text": ", ".join(map(repr, net.layers)),
        "input_shape": list(net.input_shape),
        "parameter_count": sum(value.size for value in net.parameters.values()),
        "dtype": str(net.dtype),
        "loss": net.loss.kind,
        "loss_text": repr(net.loss),
        "training": training,
        "frozen": sorted(net.frozen),
    }


def _layers(net: Network) -> list[dict[str, Any]]:
    given = (net.input_shape, *net.shapes)
    return [
        {
            "name": name,
            "kind": layer.kind,
            "text": repr(layer),
            "input_shape": list(x),
            "output_shape": list(y),
            "options": _options(layer, x),
        }
        for name, layer, x, y in zip(net.names, net.layers, given[:-1], given[1:], strict=True)
    ]


def _options(layer: Layer, given: Shape) -> dict[str, Any]:
    """Return a layer's options, and of windows the numbers that follow from them.

    Those are ``window`` (rows, columns), ``step`` (down, across), ``reach`` from cell to cell
    (down, across), and ``pads`` ((above, below), (left, right)).
    """
    options = {
        field.name: getattr(layer, field.name)
        for field in dataclasses.fields(layer)  # type: ignore[arg-type]
    }
    size = options.get("kernel_size", options.get("size"))
    if size is None or len(given) != 3:
        return options
    stride = layer.step if hasattr(layer, "step") else options["stride"]
    dilation = options.get("dilation", 1)
    return options | {
        "window": _both(size),
        "step": _both(stride),
        "reach": _both(dilation),
        "pads": [list(p) for p in pads(options["padding"], given[1:], size, stride, dilation)],
    }


def _both(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _kept(net: Network, trace: Trace) -> dict[str, Array]:
    """Return what else layers computed with: masks of dropout, means and variances."""
    kept: dict[str, Array] = {}
    for name, layer, cache in zip(net.names, net.layers, trace.kept, strict=True):
        if isinstance(layer, Dropout) and cache is not None:
            kept[f"{name}.mask"] = cache[0]
        elif isinstance(layer, BatchNorm2D):
            statistics = net.arrays_of(name)
            mean, variance = cache[2] or (statistics["mean"], statistics["variance"])
            kept |= {f"{name}.mean": mean, f"{name}.variance": variance}
            kept[f"{name}.batch"] = np.asarray(cache[2] is not None, float)
        elif isinstance(layer, Normalize):
            measured = net.arrays_of(name)
            kept |= {f"{name}.{key}": measured[key] for key in ("mean", "deviation")}
    return kept
