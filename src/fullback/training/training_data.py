"""What a network is trained on and validated on, checked once."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.distributed.ranks import Ranks
from fullback.engine import choice
from fullback.errors import DataError, InputError, OptionError
from fullback.layers.base import Array
from fullback.layers.loss import answered, share_right
from fullback.mapped import gathered, mapped_file
from fullback.model import Model, check_weights
from fullback.passes import evaluate_logits
from fullback.training.class_weights import ClassWeight, class_weights
from fullback.training.history import ValidationFigures

_LOOKED_AT = 2**28  # bytes of images by which a data set is known again
_AT_ONCE = 2**24  # bytes that are looked at together: the images may be on the disk


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Checked training images with their targets, and what they are validated on.

    Attributes
    ----------
    images : of shape (N, C, H, W), or (N, features)
    targets : as the loss takes them
    weights : of the images, of shape (N,); those of weight 0 take no part. None for 1 each
    validation : images on which the network is measured after every epoch, or None
    scattered : whether rank 0 alone has the images, and gives every rank what it trains on; on the
        others ``images`` has their shape and dtype, and no values
    """

    images: Array
    targets: Array
    weights: Array | None = None
    validation: Validation | None = None
    scattered: bool = False

    @classmethod
    def of(
        cls,
        net: Model,
        images: Array,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> TrainingData:
        """Return what a network is trained on, given checked images; the others are as for ``fit``.

        Raises
        ------
        OptionError, ShapeError, InputError
            They cannot be used.
        """
        targets = net.loss.targets(y, len(images), net.output_shape[0])
        if not len(images):
            raise InputError("there are no images to train on")
        weights, of_class = check_weights(sample_weight, len(images)), None
        if class_weight is not None:
            of_class = class_weights(net, targets, class_weight, weights)
            weights = of_class[targets] * (1.0 if weights is None else weights)
        validation = None
        if validation_data is not None:
            validation = Validation.of(net, validation_data, of_class)
        return cls(images, targets, weights, validation)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The images that take part, by index."""
        return np.arange(len(self)) if self.weights is None else np.flatnonzero(self.weights)

    def fingerprints(self) -> dict[str, int | None]:
        """Return the numbers by which a checkpoint knows the data again."""
        weights, validation = self.weights, self.validation
        return {
            "images": len(self),
            "data": fingerprint(self.images, self.targets),
            "sample_weight": None if weights is None else fingerprint(weights, weights),
            "validation_data": None
            if validation is None
            else fingerprint(validation.images, validation.targets),
        }


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some of the images of an array on the disk, which are read when they are looked at.

    Attributes
    ----------
    every : all images, of shape (N, ...)
    places : which of them
    """

    every: Array
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, some: slice | NDArray[np.int64]) -> Array:
        return gathered(self.every, self.places[some])

    def parts(self) -> Iterator[Array]:
        """Yield all images, so many at a time."""
        step = max(1, _AT_ONCE // self.every[:1].nbytes)
        for start in range(0, len(self), step):
            yield self[start : start + step]


@dataclass(frozen=True, eq=False)
class Validation:
    """Checked validation images with their targets, and weights of the images or None."""

    images: Array | Chosen
    targets: Array
    weights: Array | None

    @classmethod
    def of(cls, net: Model, data: object, of_class: Array | None) -> Validation:
        """Check a pair of images and labels, and give the images the weights of their classes."""
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise OptionError("validation_data must be a pair (images, labels)")
        images = _checked(net, data[0])
        targets = net.loss.targets(data[1], len(images), net.output_shape[0])
        weights = None if of_class is None else of_class[targets]
        if weights is not None and not weights.any():
            raise InputError("with this class_weight every validation image has weight 0")
        return cls(images, targets, weights)

    def as_taken_by(self, net: Model) -> Validation:
        """Return the same with the images on the scale that a network is trained on."""
        return dataclasses.replace(self, images=_checked(net, self.images))

    def measure(self, net: Model, ranks: Ranks | None = None) -> ValidationFigures:
        """Return what a network is worth on these images, which ranks share out.

        Raises
        ------
        InputError
            The network's answers are not finite.
        DataError
            A file that images are mapped from has become shorter.
        """
        check_files(self.images.every if isinstance(self.images, Chosen) else self.images)
        logits = _answers(net, self.images) if ranks is None else self._logits(net, ranks)
        if self.weights is None:
            loss = evaluate_logits(net.loss, logits, self.targets).loss
        else:
            loss, _ = net.loss.forward(logits, self.targets, self.weights)
        if not net.loss.classifies:
            return ValidationFigures(loss)
        answers = answered(net.loss, logits)
        accuracy = float(share_right(answers, self.targets).mean())
        if self.targets.ndim == 2:  # an image may be of several classes, or of none
            return ValidationFigures(loss, accuracy)
        return ValidationFigures(loss, accuracy, *by_class(self.targets, answers))

    def _logits(self, net: Model, ranks: Ranks) -> Array:
        """Return the answers to all images, of which every rank has computed a part."""
        ends = [len(self.images) * n // ranks.size for n in range(ranks.size + 1)]
        first, stop = ends[ranks.rank : ranks.rank + 2]
        own: Array | Chosen
        if isinstance(self.images, Chosen):
            own = Chosen(self.images.every, self.images.places[first:stop])
        else:
            own = self.images[first:stop]
        found = _answers(net, own) if len(own) else np.zeros((0, *net.output_shape))
        logits = np.empty((len(self.images), *net.output_shape), np.float32)
        sizes = [int(size) * logits[0].size for size in np.diff(ends)]
        ranks.gather(np.ascontiguousarray(found, np.float32), logits, sizes)
        return logits


def _checked(net: Model, images: ArrayLike | Chosen) -> Array | Chosen:
    """Check images, and bring them to the scale that a network is trained on."""
    if isinstance(images, Chosen):
        return Chosen(net.check_images(images.every), images.places)
    return net.check_images(images)


def _answers(net: Model, images: Array | Chosen) -> Array:
    if isinstance(images, Chosen):
        return np.concatenate([choice.answers(net, part) for part in images.parts()])
    return choice.answers(net, images)


def by_class(targets: NDArray[np.int64], answers: NDArray[np.int64]) -> tuple[float, float]:
    """Return balanced accuracy and macro F1, as scikit-learn defines them, in a fraction of a ms.

    balanced accuracy = mean over the classes of the targets of  right / images
    macro F1          = mean over the classes of targets or answers of  2 right / (images + answers)
    """
    classes = int(max(targets.max(), answers.max())) + 1
    images = np.bincount(targets, minlength=classes)
    answered = np.bincount(answers, minlength=classes)
    right = np.bincount(targets[targets == answers], minlength=classes)
    there, either = images > 0, images + answered > 0
    f1 = 2 * right[either] / (images + answered)[either]
    return float((right[there] / images[there]).mean()), float(f1.mean())


def check_files(images: Array) -> None:
    """Raise DataError where a file that images are mapped from has become shorter.

    To read what is no longer there would end the process by a signal. A file that is cut short in
    the middle of an epoch still does that.
    """
    file = mapped_file(images)
    mapped = getattr(file, "_mmap", None)
    if file is not None and mapped is not None and mapped.size() < len(mapped):
        raise DataError(
            f"{file.filename} has been cut short while it was trained on: it has "
            f"{mapped.size():,} bytes, and {len(mapped):,} were mapped; restore it, and "
            "leave it as it is while training runs"
        )


def fingerprint(images: Array | Chosen, targets: Array) -> int:
    """Return a number by which a data set is known again.

    It is of all targets, and of all images where they take up to 256 MiB, else of so many that are
    spread over the set.
    """
    number = zlib.crc32(np.ascontiguousarray(targets).data)
    size = max(images[:1].nbytes, 1)
    count = min(len(images), max(_LOOKED_AT // size, 64))
    places = np.linspace(0, len(images) - 1, count).astype(int)
    for part in np.array_split(places, -(-count * size // _AT_ONCE)):
        found = images[part] if isinstance(images, Chosen) else gathered(images, part)
        number = zlib.crc32(np.ascontiguousarray(found).data, number)
    return number
