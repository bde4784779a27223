"""A network: a list of layers and a dict of parameters, checked where they meet a user.

The file is longer than others because the class is all that users call: most methods are a check
and a call into another part of the package.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fullback.architecture import (
    array_shapes,
    gain_after,
    layer_names,
    output_shapes,
    require_input_shape,
)
from fullback.arrays import Arrays
from fullback.errors import FullbackWarning, InputError, OptionError, ShapeError
from fullback.layers import Dense, Layer, Loss, Normalize, SoftmaxCrossEntropy
from fullback.layers.base import Array, Shape
from fullback.layers.text import parse_layers
from fullback.options import require_whole, short
from fullback.passes import (
    Engine,
    Seed,
    Trace,
    first_not_finite,
    forward_batch,
    scaled,
    softmax,
    trace_batch,
)
from fullback.pixels import ImageRecord, as_images, finite_range
from fullback.threshold import Threshold

if TYPE_CHECKING:
    import os

    from fullback.data import Dataset
    from fullback.engine.listing import Program
    from fullback.explorer.serve import Explorer
    from fullback.training.history import History

PREDICTION_BATCH = 256
"""Images that prediction takes at a time, so that its memory does not grow with the data."""

_PASS_VALUES = 2**26  # that prediction with the reference holds at a time, where it has a choice


@dataclass(frozen=True)
class Evaluation:
    """Loss and score on a data set: the score is accuracy, or R^2 for MeanSquaredError."""

    loss: float
    score: float


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
    class_names : names of the outputs, where somebody gave them some; kept in model files
    data_options : options of ``load_data`` by which the images were read, and are to be again:
        resize, test_share and split_seed; kept in model files
    trained_on : what the images were like that it was trained on, and on which scale; None before
        training; kept in model files. uint8 images are brought to that scale
    threshold : the probability from which on one class is answered, see ``Threshold``; None, the
        default, answers the most probable class. ``predict`` and ``score`` apply it; it may be
        assigned, training removes it, and model files keep it

    Where a method takes ``engine``, it is ``"lanes"``, the fast one, or ``"reference"``, the pages
    of ``layers/`` in NumPy. None, the default, is ``"lanes"`` for a float32 network; a float64
    network has the reference only.

    Raises
    ------
    OptionError, ShapeError
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
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise OptionError(f"layers must be a list of layers, got {short(layers)}")
        self.layers = tuple(layers)
        self.input_shape = require_input_shape(input_shape)
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        if not isinstance(self.loss, Loss):
            raise OptionError(f"loss must be a loss like SoftmaxCrossEntropy(), got {short(loss)}")
        if dtype not in ("float32", "float64"):
            raise OptionError(f"dtype must be 'float32' or 'float64', got {short(dtype)}")
        require_whole("seed", seed, 0)
        self.dtype = np.dtype(dtype)
        self.names = layer_names(self.layers)
        self.shapes = output_shapes(self.layers, self.names, self.input_shape)
        maps = (self.input_shape, *self.shapes)
        self.pass_values = sum(map(prod, maps)) + max(
            layer.workspace(shape) for layer, shape in zip(self.layers, maps, strict=False)
        )  # values of one image that a forward pass of the reference holds at most
        self._frozen: frozenset[str] = frozenset()
        self.class_names: tuple[str, ...] = ()
        self._scale_unknown = False  # read from a file that does not say it
        self.data_options: dict[str, Any] = {}
        self.trained_on: ImageRecord | None = None
        self._threshold: Threshold | None = None
        self.machines: dict[str, list[Any]] = {}  # the lane engine's, kept for the next prediction
        parameters, statistics = array_shapes(self.layers, self.input_shape)
        self._parameters = Arrays(parameters, self.dtype)
        self._statistics = Arrays(statistics, self.dtype)
        self._arrays_of: dict[str, dict[str, Array]] = {name: {} for name in self.names}
        for arrays in (self.parameters, self.statistics):
            for full_name, array in arrays.items():
                name, key = full_name.split(".")
                self._arrays_of[name][key] = array
        inputs = zip(self.names, self.layers, (self.input_shape, *self.shapes), strict=False)
        for index, (name, layer, given) in enumerate(inputs):
            rng = np.random.default_rng([seed, index])
            gain = gain_after(self.layers[index + 1 :])
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
        OptionError, ShapeError
            The text cannot be read, or the layers do not fit together.
        """
        return cls(parse_layers(text), input_shape, loss=loss, seed=seed, dtype=dtype)

    @property
    def parameters(self) -> Arrays:
        """What training updates, by name; its entries may be assigned."""
        return self._parameters

    @property
    def statistics(self) -> Arrays:
        """What is measured and not trained, by name; its entries may be assigned."""
        return self._statistics

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the layers that training leaves alone; ``freeze`` and ``unfreeze`` set them."""
        return self._frozen

    @property
    def threshold(self) -> Threshold | None:
        """The probability from which on one class is answered; None for the most probable class.

        Raises
        ------
        OptionError
            What is assigned is no ``Threshold`` of one of the classes.
        """
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: Threshold | None) -> None:
        if threshold is not None:
            if not isinstance(threshold, Threshold):
                raise OptionError(f"threshold must be a Threshold(label, value), got {threshold!r}")
            outputs = self.output_shape[0]
            if not self.loss.classifies or outputs < 2 or threshold.label >= outputs:
                raise OptionError(
                    f"{threshold} needs a classifier with that class, but the network has "
                    f"{outputs} outputs and the loss {self.loss}"
                )
        self._threshold = threshold

    @property
    def output_shape(self) -> Shape:
        """Shape of the last layer's output for one image: (classes,)."""
        return self.shapes[-1]

    def __repr__(self) -> str:
        return (
            f"Network({list(self.layers)}, input_shape={self.input_shape}, loss={self.loss}, "
            f"dtype='{self.dtype}')"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "machines": {}}

    def _repr_html_(self) -> str:
        from fullback.show.notebook import network_html

        return network_html(self)

    def explore(self, data: Dataset | None = None, *, height: int = 900) -> Explorer:
        """Open the explorer in a notebook: the network in a page to touch, train and break.

        The page works on a copy; the network stays as it is. As the last line of a cell, the
        explorer shows itself; its ``address`` opens in any browser on this machine, and ``close``
        ends it.

        Parameters
        ----------
        data : what images are picked from, and trained on; None for the built-in digits
        height : of the page, in pixels

        Raises
        ------
        OptionError
            The packages of the extra ``explore`` are not installed.
        ShapeError, InputError
            The page cannot show the network: it takes no images, or tells no classes apart.
        """
        from fullback.explorer.launch import in_notebook

        return in_notebook(self, data, height)

    def copy(
        self, *, dtype: Literal["float32", "float64"] | None = None, seed: int | None = None
    ) -> Network:
        """Return a network with the same layers and loss, for the same images.

        Parameters
        ----------
        dtype : of the copy; None for the network's own
        seed : for new initial parameters and statistics, of which none are frozen; None copies
            them, and what is frozen
        """
        copy = self._alike(self.layers, self.loss, seed or 0, dtype)
        copy.class_names, copy.trained_on = self.class_names, self.trained_on
        if seed is None:
            copy.parameters.update(self.parameters)
            copy.statistics.update(self.statistics)
            copy._frozen, copy.threshold = self._frozen, self.threshold
        return copy

    def with_head(
        self, classes: int | Sequence[str], *, loss: Loss | None = None, seed: int = 0
    ) -> Network:
        """Return a network with a new last layer, to be trained on other classes.

        Every other layer has its parameters and statistics, and is frozen where it is here; the
        scale of images is kept too. ``net.with_head(3)`` and then ``freeze("conv")`` and ``fit``
        trains the dense layers alone.

        Parameters
        ----------
        classes : how many outputs the new layer has, or the names of its classes
        loss : of the new network; None for this one's
        seed : fixes the new layer's initial parameters

        Raises
        ------
        OptionError
            The last layer is not Dense, or the classes are none.
        """
        last, name = self.layers[-1], self.names[-1]
        if not isinstance(last, Dense):
            raise OptionError(
                f"with_head needs a Dense layer as the last one, and {name} is {last}"
            )
        names = tuple(classes) if isinstance(classes, Sequence) else ()
        if (
            isinstance(classes, str)
            or not all(isinstance(own, str) for own in names)
            or len({*names}) < len(names)
        ):
            raise OptionError(f"class names must be different texts, got {short(classes)}")
        outputs = len(classes) if isinstance(classes, Sequence) else classes
        require_whole("with_head: classes", outputs, 1)
        layers = [*self.layers[:-1], Dense(outputs, bias=last.bias)]
        network = self._alike(layers, self.loss if loss is None else loss, seed, None)
        for new, known in (
            (network.parameters, self.parameters),
            (network.statistics, self.statistics),
        ):
            new.update({key: known[key] for key in new if not key.startswith(f"{name}.")})
        network._frozen = self._frozen - {name}
        network.class_names, network.trained_on = names, self.trained_on
        return network

    def _alike(
        self,
        layers: Sequence[Layer],
        loss: Loss,
        seed: int,
        dtype: Literal["float32", "float64"] | None,
    ) -> Network:
        """Return a network of new parameters for the same images, read in the same way."""
        own: Literal["float32", "float64"] = "float32" if self.dtype == np.float32 else "float64"
        network = Network(layers, self.input_shape, loss=loss, seed=seed, dtype=dtype or own)
        network.data_options = dict(self.data_options)
        return network

    def fit(self, x: ArrayLike, y: ArrayLike, **options: Any) -> History:
        """Train the network in place: ``fullback.fit(net, x, y, **options)``."""
        from fullback.training.fit import fit

        return fit(self, x, y, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a model file: ``fullback.save(net, path)``."""
        from fullback.export.safetensors import save

        save(self, path)

    def choose_engine(self, engine: Engine | None) -> Engine:
        """Return the engine that is meant: see the class.

        Raises
        ------
        OptionError
            There is no such engine, or it cannot compute in the network's dtype.
        """
        if engine is None:
            return "lanes" if self.dtype == np.float32 else "reference"
        if engine not in ("lanes", "reference"):
            raise OptionError(f"engine must be 'lanes' or 'reference', got {short(engine)}")
        if engine == "lanes" and self.dtype != np.float32:
            raise OptionError(
                f"the lane engine computes in float32, but the network is {self.dtype}; give "
                "engine='reference', or build the network with dtype='float32'"
            )
        return engine

    def summary(self) -> str:
        """Return a table of the layers: names, options, shapes, parameters, multiply-adds."""
        from fullback.show.summary import summary_text

        return summary_text(self)

    def program(self, batch_size: int = 64, *, training: bool = True) -> Program:
        """Return what the lane engine runs: a list of instructions, forward and backward.

        ``print`` shows the two sides by side. The program is that of a training step with SGD, or,
        where ``training`` is false, of a prediction.
        """
        from fullback.engine.lanes import program_of

        self.choose_engine("lanes")
        require_whole("batch_size", batch_size, 1)
        return program_of(self, batch_size, training=training)

    def arrays_of(self, name: str) -> dict[str, Array]:
        """Return a layer's own parameters and statistics, by their short names: "weight", ...

        Raises
        ------
        OptionError
            There is no such layer.
        """
        if name not in self._arrays_of:
            raise OptionError(
                f"no layer is called {short(name)}; there are {', '.join(self.names)}"
            )
        return self._arrays_of[name]

    # Freezing -----------------------------------------------------------------------------------

    def freeze(self, *names: str) -> None:
        """Keep training from changing these layers: a name ("conv1") or a kind ("conv").

        A frozen BatchNorm2D uses its running statistics and leaves them as they are.

        Raises
        ------
        OptionError
            No layer with parameters or statistics has that name or kind.
        """
        self._frozen |= self._matching(names)

    def unfreeze(self, *names: str) -> None:
        """Let training change these layers again; takes what ``freeze`` takes."""
        self._frozen -= self._matching(names)

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
                raise OptionError(
                    f"no layer to freeze is called {short(pattern)}; there are {', '.join(owners)}"
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
        batch = self._batch(x, y, sample_weight, seed)
        return trace_batch(self, *batch, training=training, seed=seed)

    def loss_and_gradients(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        training: bool = True,
        seed: Seed = 0,
        engine: Engine | None = None,
    ) -> tuple[float, dict[str, Array]]:
        """Return the batch's loss, and dL/dp for every parameter p; takes what ``trace`` takes."""
        batch = self._batch(x, y, sample_weight, seed)
        if self.choose_engine(engine) == "lanes":
            from fullback.engine.lanes import loss_and_gradients

            return loss_and_gradients(self, *batch, training=training, seed=seed)
        trace = trace_batch(self, *batch, training=training, seed=seed)
        return trace.loss, trace.gradients

    def _batch(
        self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, seed: Seed
    ) -> tuple[Array, Array, Array | None]:
        """Check a batch and return its images, targets and weights."""
        images = self.check_images(x)
        targets = self.loss.targets(y, len(images), self.output_shape[0])
        for number in seed if isinstance(seed, tuple) else (seed,):
            require_whole("seed", number, 0)
        return images, targets, check_weights(sample_weight, len(images))

    # Prediction ---------------------------------------------------------------------------------

    def logits(self, x: ArrayLike, *, engine: Engine | None = None) -> Array:
        """Return the last layer's output, before any softmax, of shape (N, outputs).

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, values that are not finite, no images; or the network's own
            weights are not finite.
        """
        return self._finite_answers(self.check_images(x), engine)

    def predict_proba(self, x: ArrayLike, *, engine: Engine | None = None) -> Array:
        """Return the probability of every class, of shape (N, classes).

        Raises
        ------
        OptionError
            The loss is not SoftmaxCrossEntropy, so the outputs are not logits of classes.
        """
        if not self.loss.classifies:
            raise OptionError(f"predict_proba needs a classifier, but the loss is {self.loss}")
        return self._finite_answers(self.check_images(x), engine, probabilities=True)

    def _finite_answers(
        self, images: Array, engine: Engine | None, *, probabilities: bool = False
    ) -> Array:
        """Return logits or probabilities, or raise where they are not finite."""
        if self.choose_engine(engine) == "lanes":
            from fullback.engine.lanes import answers

            given = answers(self, images, probabilities=probabilities)
        else:
            step = max(1, min(PREDICTION_BATCH, _PASS_VALUES // self.pass_values))
            logits = [forward_batch(self, batch)[0][-1] for batch in in_batches(images, step)]
            given = np.concatenate(logits)
            given = softmax(given) if probabilities else given
        finite = np.isfinite(given)
        if not finite.all():
            wrong = images[np.flatnonzero(~finite.all(axis=1))[:1]]
            activations, _ = forward_batch(self, wrong)
            where = first_not_finite(zip(("input", *self.names), activations, strict=True))
            raise InputError(
                f"{where or self.names[-1]} is the first whose output is not finite in "
                f"{self.dtype}: the network's weights or the images are too large, or not finite"
            )
        return given

    def predict(self, x: ArrayLike, *, engine: Engine | None = None) -> Array:
        """Return the label of every image, of shape (N,); for MeanSquaredError, the outputs.

        The label is that of the most probable class, or what ``threshold`` makes of the
        probabilities.
        """
        if self.threshold is not None:
            return self.threshold.answers(self.predict_proba(x, engine=engine))
        logits = self.logits(x, engine=engine)
        return logits.argmax(axis=1) if self.loss.classifies else logits

    def score(self, x: ArrayLike, y: ArrayLike, *, engine: Engine | None = None) -> float:
        """Return the share of images that are predicted right; for MeanSquaredError, R^2.

        R^2 of a single image is NaN.
        """
        return self.evaluate(x, y, engine=engine).score

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, engine: Engine | None = None) -> Evaluation:
        """Return the loss and the score on a data set, with the network as in prediction."""
        logits = self.logits(x, engine=engine)
        found = evaluate_logits(self.loss, logits, y)
        if self.threshold is None:
            return found
        targets = self.loss.targets(y, *logits.shape)
        right = self.threshold.answers(softmax(logits)) == targets
        return Evaluation(found.loss, float(right.mean()))

    # Data ---------------------------------------------------------------------------------------

    def adapt(self, x: ArrayLike) -> None:
        """Measure the images' mean and deviation for the Normalize layer that comes first.

        Raises
        ------
        OptionError
            The first layer is not Normalize.
        """
        first = self.layers[0]
        if not isinstance(first, Normalize):
            raise OptionError(f"adapt needs Normalize() as the first layer, but it is {first}")
        measured = first.measured(
            scaled(batch, np.dtype(np.float64)) for batch in in_batches(self.check_images(x))
        )
        for key, value in measured.items():
            self.statistics[f"{self.names[0]}.{key}"] = value

    def check_images(self, x: ArrayLike) -> Array:
        """Check images and return them as (N, *input_shape), uint8 or float, without a copy.

        uint8 images come back as floats, in a copy, where the network was trained on images whose
        black and white are not 0 and 1; see ``trained_on``.

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, values that are not finite, no images; or uint8 images for a
            network of whose scale nothing is known.

        Warns
        -----
        FullbackWarning
            The values of float images are on another scale than those of training; or uint8
            images for a network whose file is of version 1, which does not say their scale.
        """
        images = as_images(x, self.input_shape)
        if images.dtype == np.uint8:
            if self.trained_on is None:
                if self._scale_unknown:
                    warnings.warn(
                        "the model's file is of version 1, which does not say which scale its "
                        "images had; uint8 images are taken for 0 (black) to 1 (white). Where "
                        "that is right, set trained_on to an ImageRecord and save it again",
                        FullbackWarning,
                        stacklevel=3,
                    )
                return images
            self.trained_on.warn_of_bytes(images)
            if self.trained_on.is_default:
                return images
            return self.trained_on.from_bytes(images, self.dtype)
        low, high = finite_range(images)
        if self.trained_on is not None:
            self.trained_on.warn_of_scale(low, high)
        return images


def in_batches(images: Array, step: int = PREDICTION_BATCH) -> Iterator[Array]:
    """Yield images, so many at a time."""
    for start in range(0, len(images), step):
        yield images[start : start + step]


def evaluate_logits(loss: Loss, logits: Array, y: ArrayLike) -> Evaluation:
    """Return the loss and the score of a network's answers (N, outputs) to images of targets y."""
    targets = loss.targets(y, *logits.shape)
    with np.errstate(all="ignore"):
        mean, _ = loss.forward(logits, targets)
    if loss.classifies:
        return Evaluation(mean, float((logits.argmax(axis=1) == targets).mean()))
    if len(logits) < 2:
        return Evaluation(mean, float("nan"))  # there is no spread to explain
    from sklearn.metrics import r2_score

    return Evaluation(mean, float(r2_score(targets, logits)))


def check_weights(sample_weight: ArrayLike | None, images: int) -> Array | None:
    """Check sample weights: shape (N,), finite, not negative, not all zero."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.dtype.kind not in "biuf":
        raise InputError(f"sample weights must be numbers, got {weights.dtype}")
    weights = weights.astype(np.float64)
    if weights.shape != (images,):
        raise ShapeError(
            f"sample_weight must be {images} numbers, one per image, but has shape {weights.shape}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise InputError("sample weights must be finite, not negative and not all zero")
    return weights
