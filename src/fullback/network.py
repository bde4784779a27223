"""A network: a list of layers, a dict of parameters, and the two loops over them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fullback.errors import InputError, LayerError, ShapeError
from fullback.layers import Layer, Loss, MeanSquaredError, Normalize, SoftmaxCrossEntropy
from fullback.layers.base import Array, Shape
from fullback.layers.text import parse_layers
from fullback.options import require_whole

Seed: TypeAlias = int | tuple[int, ...]

PREDICTION_BATCH = 256
"""Images that prediction takes at a time, so that its memory does not grow with the data."""

_MOST_VALUES = 2**28  # parameters of a network, or values of one activation of one image


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything one forward and backward pass computed, by layer name.

    Attributes
    ----------
    loss : the batch's loss
    activations : each layer's output, of shape (N, *output_shape); ``"input"`` is the images
    deltas : dL/d output of each layer, in the shapes of ``activations``; ``"input"`` is dL/d images
    gradients : dL/dp for every parameter p, in the shapes of ``Network.parameters``
    probabilities : softmax of the logits, of shape (N, classes); None for other losses
    """

    loss: float
    activations: dict[str, Array]
    deltas: dict[str, Array]
    gradients: dict[str, Array]
    probabilities: Array | None
    kept: tuple[Any, ...] = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"Trace(loss={self.loss:.6g}, layers={list(self.activations)}, "
            f"gradients={list(self.gradients)})"
        )


@dataclass(frozen=True)
class Evaluation:
    """Loss and score on a data set: the score is accuracy, or R^2 for MeanSquaredError."""

    loss: float
    score: float


class Arrays(MutableMapping[str, Array]):
    """A dict of arrays whose names, shapes and dtype are fixed: assigning copies the values in.

    Raises
    ------
    KeyError
        There is no such name; the message says what there is.
    ShapeError
        The value has another shape.
    """

    def __init__(self, shapes: Mapping[str, Shape], dtype: np.dtype[Any]) -> None:
        self._arrays = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            near = difflib.get_close_matches(str(name), self._arrays, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {list(self._arrays)}"
            raise KeyError(f"no array is called {name!r}; {hint}")
        return self._arrays[name]

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        array, value = self[name], np.asarray(value)
        if value.shape != array.shape:
            raise ShapeError(f"{name} has shape {array.shape}, got an array of shape {value.shape}")
        if value.dtype.kind not in "iuf":
            raise InputError(f"{name} takes numbers, got an array of {value.dtype}")
        array[...] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} belongs to the network's layers and cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name!r}: {array.shape}" for name, array in self.items())
        return f"Arrays({{{rows}}})"


class Network:
    """A list of layers with their parameters.

    Parameters
    ----------
    layers : the layers, from the input to the output
    input_shape : shape of one image, (channels, rows, columns), or (features,)
    loss : what training minimises; SoftmaxCrossEntropy() where it is not given
    seed : fixes the initial parameters; each layer draws from a generator of its own
    dtype : "float32" or "float64", the type of every parameter and activation

    Attributes
    ----------
    layers, input_shape, loss, dtype : as given
    names : name of every layer, kind and number: ("conv1", "relu1", "pool1", "conv2", ...)
    shapes : output shape of every layer, for one image
    parameters : what training updates: {"conv1.weight": (K, C, R, S), "conv1.bias": (K,), ...}.
        Entries may be assigned; shapes are checked and values cast
    statistics : what is measured and not trained: {"batchnorm1.mean": (C,), ...}; likewise
    frozen : names of the layers whose parameters and statistics training leaves alone

    Raises
    ------
    LayerError, ShapeError
        The layers do not make a network, or one does not fit the shape it is given; the message
        names it.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        *,
        loss: Loss | None = None,
        seed: int = 0,
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        self.layers = tuple(layers)
        self.input_shape = _require_input_shape(input_shape)
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        if not isinstance(self.loss, Loss):
            raise LayerError(f"loss must be a loss like SoftmaxCrossEntropy(), got {loss!r}")
        if dtype not in ("float32", "float64"):
            raise LayerError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
        require_whole("seed", seed, 0)
        self.dtype = np.dtype(dtype)
        self.names = _names(self.layers)
        self.shapes = _shapes(self.layers, self.names, self.input_shape)
        self.frozen: frozenset[str] = frozenset()
        parameters, statistics = array_shapes(self.layers, self.input_shape)
        self.parameters = Arrays(parameters, self.dtype)
        self.statistics = Arrays(statistics, self.dtype)
        self._arrays_of: dict[str, dict[str, Array]] = {name: {} for name in self.names}
        for arrays in (self.parameters, self.statistics):
            for full_name, array in arrays.items():
                name, key = full_name.split(".")
                self._arrays_of[name][key] = array
        inputs = zip(self.names, self.layers, (self.input_shape, *self.shapes), strict=False)
        for index, (name, layer, given) in enumerate(inputs):
            rng = np.random.default_rng([seed, index])
            gain = _gain_after(self.layers[index + 1 :])
            for key, value in layer.initial_parameters(given, rng, gain).items():
                self.parameters[f"{name}.{key}"] = value
            for key, value in layer.initial_statistics(given).items():
                self.statistics[f"{name}.{key}"] = value

    @classmethod
    def parse(
        cls,
        text: str,
        input_shape: Sequence[int],
        *,
        loss: Loss | None = None,
        seed: int = 0,
        dtype: Literal["float32", "float64"] = "float32",
    ) -> Network:
        """Build a network from its text form, like ``"conv8 relu pool flatten dense10"``.

        A layer is its kind and its first option as a number; other options follow in brackets:
        ``conv8(kernel_size=5, padding=valid)``. The other arguments are the constructor's.

        Raises
        ------
        LayerError, ShapeError
            The text cannot be read, or the layers do not fit together.
        """
        return cls(parse_layers(text), input_shape, loss=loss, seed=seed, dtype=dtype)

    @property
    def output_shape(self) -> Shape:
        """Shape of the last layer's output for one image: (classes,)."""
        return self.shapes[-1]

    def __repr__(self) -> str:
        return (
            f"Network({list(self.layers)}, input_shape={self.input_shape}, loss={self.loss}, "
            f"dtype='{self.dtype}')"
        )

    def summary(self) -> str:
        """Return a table of the layers: names, options, shapes, parameters, multiply-adds."""
        from fullback.summary import summary_text

        return summary_text(self)

    def arrays_of(self, name: str) -> dict[str, Array]:
        """Return a layer's own parameters and statistics, by their short names: "weight", ...

        Raises
        ------
        LayerError
            There is no such layer.
        """
        if name not in self._arrays_of:
            raise LayerError(f"no layer is called {name!r}; there are {', '.join(self.names)}")
        return self._arrays_of[name]

    # Freezing -----------------------------------------------------------------------------------

    def freeze(self, *names: str) -> None:
        """Keep training from changing these layers: a name ("conv1") or a kind ("conv").

        A frozen BatchNorm2D uses its running statistics and leaves them as they are.

        Raises
        ------
        LayerError
            No layer with parameters or statistics has that name or kind.
        """
        self.frozen |= self._matching(names)

    def unfreeze(self, *names: str) -> None:
        """Let training change these layers again; takes what ``freeze`` takes."""
        self.frozen -= self._matching(names)

    def trainable(self) -> list[str]:
        """Return the names of the parameters that training updates."""
        return [name for name in self.parameters if name.split(".")[0] not in self.frozen]

    def _matching(self, patterns: Sequence[str]) -> frozenset[str]:
        owners = dict.fromkeys(key.split(".")[0] for key in (*self.parameters, *self.statistics))
        found = set()
        for pattern in patterns:
            matching = {
                name
                for name, layer in zip(self.names, self.layers, strict=True)
                if name in owners and pattern in (name, layer.kind)
            }
            if not matching:
                raise LayerError(
                    f"no layer to freeze is called {pattern!r}; there are {', '.join(owners)}"
                )
            found |= matching
        return frozenset(found)

    # The backward pass --------------------------------------------------------------------------

    def trace(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        training: bool = True,
        seed: Seed = 0,
    ) -> Trace:
        """Run one batch forward and backward and keep everything.

        Parameters
        ----------
        x : images, uint8 or float, of shape (N, C, H, W), or (N, H, W) for one channel
        y : labels of shape (N,), or targets of shape (N, outputs) for MeanSquaredError
        sample_weight : weights of shape (N,), for a weighted mean as the loss
        training : whether dropout and batch statistics are in force, as in a training step
        seed : fixes what dropout leaves out

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, labels out of range, values that are not finite, no images.
        """
        images = self.check_images(x)
        targets = self.loss.targets(y, len(images), self.output_shape[0])
        weights = check_weights(sample_weight, len(images))
        return trace_batch(self, images, targets, weights, training=training, seed=seed)

    def loss_and_gradients(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        training: bool = True,
        seed: Seed = 0,
    ) -> tuple[float, dict[str, Array]]:
        """Return the batch's loss, and dL/dp for every parameter p; takes what ``trace`` takes."""
        trace = self.trace(x, y, sample_weight=sample_weight, training=training, seed=seed)
        return trace.loss, trace.gradients

    # Prediction ---------------------------------------------------------------------------------

    def logits(self, x: ArrayLike) -> Array:
        """Return the last layer's output, before any softmax, of shape (N, outputs).

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, values that are not finite, no images.
        """
        images = self.check_images(x)
        batches = range(0, len(images), PREDICTION_BATCH)
        return np.concatenate(
            [forward_batch(self, images[i : i + PREDICTION_BATCH])[0][-1] for i in batches]
        )

    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the probability of every class, of shape (N, classes).

        Raises
        ------
        LayerError
            The loss is not SoftmaxCrossEntropy, so the outputs are not logits of classes.
        """
        if not isinstance(self.loss, SoftmaxCrossEntropy):
            raise LayerError(f"predict_proba needs a classifier, but the loss is {self.loss}")
        return softmax(self.logits(x))

    def predict(self, x: ArrayLike) -> Array:
        """Return the label of every image, of shape (N,); for MeanSquaredError, the outputs."""
        logits = self.logits(x)
        return logits if isinstance(self.loss, MeanSquaredError) else logits.argmax(axis=1)

    def score(self, x: ArrayLike, y: ArrayLike) -> float:
        """Return the share of images that are predicted right; for MeanSquaredError, R^2."""
        return self.evaluate(x, y).score

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """Return the loss and the score on a data set, with the network as in prediction."""
        logits = self.logits(x)
        targets = self.loss.targets(y, len(logits), self.output_shape[0])
        with np.errstate(all="ignore"):
            loss, _ = self.loss.forward(logits, targets)
        if isinstance(self.loss, MeanSquaredError):
            from sklearn.metrics import r2_score

            return Evaluation(loss, float(r2_score(targets, logits)))
        return Evaluation(loss, float((logits.argmax(axis=1) == targets).mean()))

    # Data ---------------------------------------------------------------------------------------

    def adapt(self, x: ArrayLike) -> None:
        """Measure the images' mean and deviation for the Normalize layer that comes first.

        Raises
        ------
        LayerError
            The first layer is not Normalize.
        """
        first = self.layers[0]
        if not isinstance(first, Normalize):
            raise LayerError(f"adapt needs Normalize() as the first layer, but it is {first}")
        images = self.check_images(x)
        batches = range(0, len(images), PREDICTION_BATCH)
        measured = first.measured(
            scaled(images[i : i + PREDICTION_BATCH], np.dtype(np.float64)) for i in batches
        )
        for key, value in measured.items():
            self.statistics[f"{self.names[0]}.{key}"] = value

    def check_images(self, x: ArrayLike) -> Array:
        """Check images and return them as (N, *input_shape), uint8 or float, without a copy.

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, values that are not finite, no images.
        """
        images = np.asarray(x)
        if images.ndim > 1 and (1, *images.shape[1:]) == self.input_shape:
            images = images.reshape(len(images), *self.input_shape)  # (N, H, W), one channel
        if images.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, ("N", *self.input_shape)))
            hint = "; x[None] makes a batch of one image" * (images.shape == self.input_shape)
            raise ShapeError(f"x must have shape ({wanted}), got {images.shape}{hint}")
        if not len(images):
            raise InputError("x holds no images")
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise InputError(
                f"images must be uint8 (0 to 255) or float (used as it is), got {images.dtype}; "
                "convert them with x.astype('uint8') or x / 255"
            )
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
            raise InputError(
                f"image {int(np.flatnonzero(~finite)[0])} holds NaN or infinity "
                f"({int((~finite).sum())} of {len(images)} images do); remove them or mend them"
            )
        return images


def array_shapes(
    layers: Sequence[Layer], input_shape: Sequence[int]
) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Return the shapes of a network's parameters and of its statistics, by their full names.

    Raises
    ------
    LayerError, ShapeError
        The layers do not make a network, or one of unreasonable size.
    """
    shape, names = _require_input_shape(input_shape), _names(layers)
    inputs = list(zip(names, layers, (shape, *_shapes(layers, names, shape)), strict=False))
    parameters = {
        f"{name}.{key}": own
        for name, layer, given in inputs
        for key, own in layer.parameter_shapes(given).items()
    }
    statistics = {
        f"{name}.{key}": own
        for name, layer, given in inputs
        for key, own in layer.statistic_shapes(given).items()
    }
    count = sum(int(np.prod(own, dtype=object)) for own in parameters.values())
    if count > _MOST_VALUES:
        raise ShapeError(f"the network would have {count:,} parameters; use smaller layers")
    return parameters, statistics


def forward_batch(
    net: Network, x: Array, *, training: bool = False, seed: Seed = 0
) -> tuple[list[Array], list[Any]]:
    """Run checked images forward: the input and every layer's output, and what each kept."""
    activations, kept = [scaled(x, net.dtype)], []
    with np.errstate(all="ignore"):  # what is not finite is looked for, and named, by the callers
        for index, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
            y, memory = layer.forward(
                activations[-1],
                net.arrays_of(name),
                training=training and name not in net.frozen,
                key=_key(seed, index) if layer.random else 0,
            )
            activations.append(y)
            kept.append(memory)
    return activations, kept


def backward_batch(
    net: Network, delta: Array, kept: Sequence[Any]
) -> tuple[list[Array], dict[str, Array]]:
    """Run the delta of the last layer's output back: the delta of every output and of the input."""
    deltas, gradients = [delta], {}
    with np.errstate(all="ignore"):
        for name, layer, memory in zip(
            reversed(net.names), reversed(net.layers), reversed(kept), strict=True
        ):
            delta, own = layer.backward(delta, memory, net.arrays_of(name))
            deltas.append(delta)
            gradients.update({f"{name}.{key}": value for key, value in own.items()})
    return deltas[::-1], {name: gradients[name] for name in net.parameters}


def trace_batch(
    net: Network,
    x: Array,
    targets: Array,
    sample_weight: Array | None,
    *,
    training: bool,
    seed: Seed,
) -> Trace:
    """Run checked images and targets forward and backward."""
    activations, kept = forward_batch(net, x, training=training, seed=seed)
    with np.errstate(all="ignore"):
        loss, memory = net.loss.forward(activations[-1], targets, sample_weight)
        delta = net.loss.backward(memory)
    deltas, gradients = backward_batch(net, delta, kept)
    classifies = isinstance(net.loss, SoftmaxCrossEntropy)
    return Trace(
        loss=loss,
        activations=dict(zip(("input", *net.names), activations, strict=True)),
        deltas=dict(zip(("input", *net.names), deltas, strict=True)),
        gradients=gradients,
        probabilities=softmax(activations[-1]) if classifies else None,
        kept=tuple(kept),
    )


def scaled(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return images as floats: uint8 is divided by 255, floats are used as they are."""
    return x.astype(dtype) / dtype.type(255) if x.dtype == np.uint8 else x.astype(dtype, copy=False)


def softmax(logits: Array) -> Array:
    """Return each row's exponentials divided by their sum, of shape (N, classes)."""
    with np.errstate(all="ignore"):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def check_weights(sample_weight: ArrayLike | None, images: int) -> Array | None:
    """Check sample weights: shape (N,), finite, not negative, not all zero."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (images,):
        raise ShapeError(
            f"sample_weight must be {images} numbers, one per image, but has shape {weights.shape}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise InputError("sample weights must be finite, not negative and not all zero")
    return weights


def _key(seed: Seed, index: int) -> int:
    """Mix the step's seed and the layer's place into one 64-bit number."""
    entropy = [seed, index] if isinstance(seed, int) else [*seed, index]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def _require_input_shape(input_shape: Sequence[int]) -> Shape:
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    whole = all(isinstance(n, int | np.integer) and n > 0 for n in shape)
    if not whole or len(shape) not in (1, 3):
        raise ShapeError(
            f"input_shape must be (channels, rows, columns) or (features,), got {input_shape!r}"
        )
    return tuple(int(n) for n in shape)


def _names(layers: Sequence[Layer]) -> tuple[str, ...]:
    if not layers:
        raise LayerError("a network needs at least one layer")
    counts: dict[str, int] = {}
    names = []
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise LayerError(f"layer {index} is not a layer like Conv2D(8) but {layer!r}")
        if isinstance(layer, Normalize) and index:
            raise LayerError("Normalize must be the first layer: it is measured on the images")
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        names.append(f"{layer.kind}{counts[layer.kind]}")
    return tuple(names)


def _shapes(layers: Sequence[Layer], names: Sequence[str], input_shape: Shape) -> tuple[Shape, ...]:
    shapes: list[Shape] = []
    shape = input_shape
    for name, layer in zip(names, layers, strict=True):
        try:
            shape = layer.output_shape(shape)
        except ShapeError as error:
            before = f" after {names[len(shapes) - 1]}" if shapes else ""
            raise ShapeError(f"{name}{before}: {error}") from None
        if int(np.prod(shape, dtype=object)) > _MOST_VALUES:
            raise ShapeError(f"{name}: an output of shape {shape} is too large for one image")
        shapes.append(shape)
    if len(shape) != 1:
        raise ShapeError(
            f"the last layer, {names[-1]}, gives {shape}, but the loss takes one row per image; "
            "end with Flatten() or GlobalAvgPool2D(), and Dense(classes)"
        )
    return tuple(shapes)


def _gain_after(layers: Sequence[Layer]) -> float:
    """Return the factor for a layer's initial weights, given the layers behind it.

    It is the gain of the activation that the output meets first, and 1 where that is another
    layer's weights. The output layer starts small: the first deltas that reach the filters are
    then small too, and grow as the layers above learn. At full size the first steps, which add up
    over all positions of an image, can push a filter so far that its ReLU never answers again.
    """
    for layer in layers:
        if layer.gain is not None:
            return layer.gain
        if layer.kind in ("conv", "dense"):
            return 1.0
    return 0.1
