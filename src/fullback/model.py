"""What a network is: layers with their names, shapes and arrays, and what it was trained on.

Every room takes a ``Model``. What can be done with one, from prediction to training, is called by
users on ``fullback.Network``, a model with a method for each.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fullback.architecture import architecture_of, gain_after
from fullback.arrays import Arrays
from fullback.errors import FullbackWarning, InputError, OptionError, ShapeError
from fullback.layers import (
    BinaryCrossEntropy,
    Dense,
    Layer,
    Loss,
    Sigmoid,
    SoftmaxCrossEntropy,
)
from fullback.layers.base import Array, Shape
from fullback.layers.text import parse_layers
from fullback.options import require_whole, short
from fullback.pixels import ImageRecord, as_images, finite_range
from fullback.threshold import Threshold

M = TypeVar("M", bound="Model")

DType: TypeAlias = Literal["float32", "float64"]

Engine: TypeAlias = Literal["lanes", "reference"]
"""What computes: ``"lanes"``, the fast one, in float32; ``"reference"``, the layers' own pages."""

_UNKNOWN_SCALE = (
    "the model's file is of version 1, which does not say which scale its images had; uint8 images "
    "are taken for 0 (black) to 1 (white). Where that is right, set trained_on to an ImageRecord "
    "and save it again"
)


class Model:
    """A list of layers with their parameters: ``Network`` documents parameters and attributes.

    Beside those, ``pass_values`` is how many values of one image a forward pass of the reference
    holds at most, and ``machines`` what the lane engine keeps for its next prediction.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        *,
        loss: Loss | None = None,
        seed: int = 0,
        dtype: DType = "float32",
    ) -> None:
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise OptionError(f"layers must be a list of layers, got {short(layers)}")
        self.layers = tuple(layers)
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        if not isinstance(self.loss, Loss):
            raise OptionError(f"loss must be a loss like SoftmaxCrossEntropy(), got {short(loss)}")
        ends = [isinstance(layer, Sigmoid) for layer in self.layers[-1:]]
        if isinstance(self.loss, BinaryCrossEntropy) and any(ends):
            raise OptionError(
                "BinaryCrossEntropy takes logits and holds their sigmoid itself: leave the last "
                "layer, sigmoid, out; predict_proba has the sigmoids"
            )
        if dtype not in ("float32", "float64"):
            raise OptionError(f"dtype must be 'float32' or 'float64', got {short(dtype)}")
        require_whole("seed", seed, 0)
        self.dtype = np.dtype(dtype)
        self.input_shape, self.names, self.shapes, parameters, statistics = architecture_of(
            self.layers, input_shape
        )
        maps = (self.input_shape, *self.shapes)
        inputs = list(zip(self.names, self.layers, maps, strict=False))
        self.pass_values = sum(map(prod, maps)) + max(
            layer.workspace(shape) for _, layer, shape in inputs
        )
        self._frozen: frozenset[str] = frozenset()
        self.class_names: tuple[str, ...] = ()
        self.data_options: dict[str, Any] = {}
        self.trained_on: ImageRecord | None = None
        self.scale_unknown = False  # read from a file that does not note it
        self._threshold: Threshold | None = None
        self.machines: dict[str, list[Any]] = {}
        self._parameters = Arrays(parameters, self.dtype)
        self._statistics = Arrays(statistics, self.dtype)
        self._keys_of: dict[str, list[tuple[Arrays, str]]] = {name: [] for name in self.names}
        for arrays in (self.parameters, self.statistics):
            for full_name in arrays:
                self._keys_of[full_name.split(".")[0]].append((arrays, full_name))
        for index, (name, layer, shape) in enumerate(inputs):
            rng = np.random.default_rng([seed, index])
            gain = gain_after(self.layers[index + 1 :])
            for key, value in layer.initial_parameters(shape, rng, gain).items():
                self.parameters[f"{name}.{key}"] = value
            for key, value in layer.initial_statistics(shape).items():
                self.statistics[f"{name}.{key}"] = value

    @classmethod
    def parse(
        cls: type[M],
        text: str,
        input_shape: Sequence[int],
        *,
        loss: Loss | None = None,
        seed: int = 0,
        dtype: DType = "float32",
    ) -> M:
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
    def answer_names(self) -> tuple[str, ...]:
        """A name for every class that is answered: its own, or its number."""
        classes = self.loss.classes(self.output_shape[0])
        names = self.class_names[:classes]
        return (*names, *map(str, range(len(names), classes)))

    @property
    def output_shape(self) -> Shape:
        """Shape of the last layer's output for one image: (classes,)."""
        return self.shapes[-1]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({list(self.layers)}, input_shape={self.input_shape}, "
            f"loss={self.loss}, dtype='{self.dtype}')"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "machines": {}}

    def choose_engine(self, engine: Engine | None) -> Engine:
        """Return the engine that is meant; None is "lanes" for float32, and else "reference".

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

    def copy(self: M, *, dtype: DType | None = None, seed: int | None = None) -> M:
        """Return a network with the same layers and loss, for the same images.

        Parameters
        ----------
        dtype : of the copy; None for the network's own
        seed : for new initial parameters and statistics, of which none are frozen; None copies
            them, and what is frozen
        """
        copy = self._alike(self.layers, self.loss, seed or 0, dtype)
        copy.class_names = self.class_names
        if seed is None:
            copy.parameters.update(self.parameters)
            copy.statistics.update(self.statistics)
            copy._frozen, copy.threshold = self._frozen, self.threshold
        return copy

    def with_head(
        self: M, classes: int | Sequence[str], *, loss: Loss | None = None, seed: int = 0
    ) -> M:
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
            or not all(isinstance(label, str) for label in names)
            or len({*names}) < len(names)
        ):
            raise OptionError(f"class names must be different texts, got {short(classes)}")
        outputs = len(classes) if isinstance(classes, Sequence) else classes
        require_whole("with_head: classes", outputs, 1)
        layers = [*self.layers[:-1], Dense(outputs, bias=last.bias)]
        network = self._alike(layers, self.loss if loss is None else loss, seed, None)
        for new, old in (
            (network.parameters, self.parameters),
            (network.statistics, self.statistics),
        ):
            new.update({key: old[key] for key in new if not key.startswith(f"{name}.")})
        network._frozen, network.class_names = self._frozen - {name}, names
        return network

    def _alike(self: M, layers: Sequence[Layer], loss: Loss, seed: int, dtype: DType | None) -> M:
        """Return a network of new parameters for the same images, read in the same way."""
        same: DType = "float32" if self.dtype == np.float32 else "float64"
        network = self._new(layers, loss, seed, dtype or same)
        network.data_options = dict(self.data_options)
        network.trained_on, network.scale_unknown = self.trained_on, self.scale_unknown
        return network

    def _new(self: M, layers: Sequence[Layer], loss: Loss, seed: int, dtype: DType) -> M:
        """Return a new network of the same type for the same images."""
        return type(self)(layers, self.input_shape, loss=loss, seed=seed, dtype=dtype)

    def arrays_of(self, name: str) -> dict[str, Array]:
        """Return a layer's own parameters and statistics, by their short names: "weight", ...

        Raises
        ------
        OptionError
            There is no such layer.
        """
        if name not in self._keys_of:
            raise OptionError(
                f"no layer is called {short(name)}; there are {', '.join(self.names)}"
            )
        return {
            full_name.split(".")[1]: arrays[full_name] for arrays, full_name in self._keys_of[name]
        }

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

    def check_images(self, x: ArrayLike, *, part: tuple[int, int] = (0, 1)) -> Array:
        """Check images and return them as (N, *input_shape), uint8 or float, without a copy.

        uint8 images come back as floats, in a copy, where the network was trained on images whose
        black and white are not 0 and 1; see ``trained_on``. Of float images, ``part`` 2 of 3 alone
        is looked at where it is (1, 3): where several processes have the same ones.

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
        images, note = self.read_images(x, part=part)
        if note is not None:
            warnings.warn(note, FullbackWarning, stacklevel=3)
        return images

    def read_images(
        self, x: ArrayLike, *, part: tuple[int, int] = (0, 1)
    ) -> tuple[Array, str | None]:
        """Return what ``check_images`` does, and what it warns of, or None."""
        images = as_images(x, self.input_shape)
        known = self.trained_on
        if images.dtype != np.uint8:
            first, stop = (len(images) * (part[0] + n) // part[1] for n in (0, 1))
            low, high = finite_range(images, first, stop)
            return images, None if known is None or low > high else known.scale_note(low, high)
        if known is None:
            return images, _UNKNOWN_SCALE if self.scale_unknown else None
        note = known.bytes_note(images)
        return images if known.is_default else known.from_bytes(images, self.dtype), note


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
