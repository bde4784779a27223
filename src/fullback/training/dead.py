"""Dead units: activations that are 0 for every image, and so get no gradient and never recover."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.engine import choice
from fullback.errors import DeadUnitWarning, InputError
from fullback.layers.base import Array
from fullback.mapped import gathered
from fullback.model import Model
from fullback.options import listed
from fullback.passes import forward_batch, in_batches
from fullback.pixels import sample_size
from fullback.training.history import Epoch, History
from fullback.training.listeners import Listener, Stage
from fullback.training.training_data import TrainingData

_FEWEST, _MOST = 64, 256  # training images on which dead units are looked for
_PART = 40  # and no more than this part of the images that are trained on in a run
_EVERY = 16_384  # images that are trained on from one look to the next, at least
_JUDGED = 2000  # images on which it is judged whether a run failed
_BY_CHANCE = 1.1  # times the recall of chance
_NO_BETTER = 0.99  # of the loss of a network that gives every image the same answer


def dead_units(net: Model, x: ArrayLike) -> dict[str, NDArray[np.intp]]:
    """Return the dead units of every ReLU layer that has some, by the layer's name.

    A unit is a channel of an image, or a feature; it is dead when it is 0, at every position, for
    every one of the images ``x``.

    Raises
    ------
    ShapeError, InputError
        The images do not fit the network.
    """
    return _dead(net, net.check_images(x))


def _dead(net: Model, images: Array) -> dict[str, NDArray[np.intp]]:
    """Return the dead units by layer, on checked images.

    On the lane engine they are told by their means over an image: 0 for a channel that is 0
    everywhere.
    """
    if not any(layer.rectifies for layer in net.layers):
        return {}
    if net.choose_engine(None) == "lanes":
        from fullback.engine.lanes import unit_means

        means = unit_means(net, images)
        alive = {name: (found != 0).any(axis=0) for name, found in means.items()}
    else:
        alive = _alive_by_reference(net, images)
    return {name: np.flatnonzero(~units) for name, units in alive.items() if not units.all()}


def _alive_by_reference(net: Model, images: Array) -> dict[str, NDArray[np.bool_]]:
    rectifiers = [index for index, layer in enumerate(net.layers) if layer.rectifies]
    alive = {net.names[index]: np.zeros(net.shapes[index][0], bool) for index in rectifiers}
    for batch in in_batches(images):
        activations, _ = forward_batch(net, batch)
        for index in rectifiers:
            y = activations[index + 1]
            alive[net.names[index]] |= (y != 0).any(axis=(0, *range(2, y.ndim)))
    return alive


class DeadUnitWatch(Listener):
    """Looks for dead units while a network is trained, and warns once of every dead layer.

    It looks at few images, and after few epochs, so that it takes a small part of the time.

    Parameters
    ----------
    net : the network
    data : what it is trained on
    epochs : of the run
    """

    stage = Stage.JUDGE

    def __init__(self, net: Model, data: TrainingData, epochs: int) -> None:
        self.net, order = net, data.order
        most = sample_size(data.images, _MOST)
        count = min(len(order), most, max(_FEWEST, len(order) * epochs // _PART))
        some = order[np.linspace(0, len(order) - 1, count).astype(int)]
        self.images = gathered(data.images, some)
        self._an_epoch = len(order)
        self._known: set[str] = set()
        self._trained = 0

    def __call__(self, epoch: Epoch) -> None:
        """Warn of layers that are dead, where many images were trained on since the last time."""
        self._trained += self._an_epoch
        if self._trained >= _EVERY:
            self._trained = 0
            self._warn(_dead(self.net, self.images), layers_only=True)

    def finish(self, history: History) -> None:
        """Give the history the dead units, and warn where more than half of a layer's are dead."""
        history.dead_units = _dead(self.net, self.images)
        self._warn(history.dead_units, layers_only=False)

    def _warn(self, found: Mapping[str, NDArray[np.intp]], *, layers_only: bool) -> None:
        for name, units in found.items():
            total = self.net.shapes[self.net.names.index(name)][0]
            if name in self._known or 2 * len(units) <= total:
                continue
            if len(units) == total:
                message = (
                    f"{name} is dead: it is 0 everywhere for all of {len(self.images)} training "
                    "images, so nothing below it learns; try another seed, a smaller learning "
                    "rate or LeakyReLU"
                )
            elif layers_only:
                continue
            else:
                message = (
                    f"{name}: {len(units)} of {total} units are dead, 0 for all of "
                    f"{len(self.images)} training images ({listed(units.tolist(), 8)})"
                )
            self._known.add(name)
            # At the line that calls fit: from after an epoch, or from the end.
            warnings.warn(message, DeadUnitWarning, stacklevel=8 if layers_only else 6)


def broken(net: Model, images: Array) -> str | None:
    """Tell why a network will not learn however long it is trained, or None where it may.

    A whole ReLU layer is dead for checked images, or the network's answers are not finite.
    """
    for name, units in _dead(net, images[:_MOST]).items():
        if len(units) == net.shapes[net.names.index(name)][0]:
            return f"{name} is dead: it answers 0 to every image, so that all get the same answer"
    try:
        choice.answers(net, images)
    except InputError:  # the images are checked, so it is the weights
        return "the network's answers are not finite: its weights are too large"
    return None


def failed(net: Model, history: History, x: ArrayLike, y: ArrayLike) -> str | None:
    """Tell why a training run has taught a network nothing, or None where it has.

    It failed where a whole ReLU layer is dead, where the network's answers are not finite, or where
    it is no better than one answer to all images: a classifier whose cross-entropy is not below
    that of the classes' shares, which is right no more often than the commonest class is, and whose
    recall, as the classes' mean, is that of chance; a regressor whose mean squared error is not
    below the variance of the targets.

    Parameters
    ----------
    net : the network after training
    history : what ``fit`` returned
    x, y : the images that it was trained on, and their labels or targets; up to 2,000 of them,
        spread over the set, are looked at
    """
    count = len(np.asarray(y))
    images = net.check_images(x)
    some = np.linspace(0, count - 1, min(count, sample_size(images, _JUDGED))).astype(int)
    images = gathered(images, some)
    targets = net.loss.targets(y, count, net.output_shape[0])[some]
    reason = broken(net, images)
    if reason is not None:
        return reason
    epochs = f"after {len(history)} epoch{'s' * (len(history) != 1)}"
    if net.loss.classifies and targets.ndim == 1:
        p = choice.answers(net, images, probabilities=True)
        shares = np.bincount(targets) / len(targets)
        chance = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
        of_label = p[np.arange(len(targets)), targets].astype(np.float64)
        loss = -float(np.log(np.maximum(of_label, 1e-30)).mean())
        answers = p.argmax(axis=1)
        accuracy = float((answers == targets).mean())
        present = np.flatnonzero(shares)
        recall = np.mean([(answers[targets == label] == label).mean() for label in present])
        no_better = loss > _NO_BETTER * chance and accuracy <= shares.max()
        if no_better and len(present) > 1 and recall <= _BY_CHANCE / len(present):
            return (
                f"{epochs} the network is right about {accuracy:.1%} of the training images, and "
                f"the commonest class alone is {shares.max():.1%} of them"
            )
        return None
    if net.loss.classifies:
        return None  # an image may be of several classes, or of none
    error = float(((choice.answers(net, images) - targets) ** 2).mean())
    variance = float(targets.var(axis=0).mean())
    if variance > 0 and error > _NO_BETTER * variance:
        return (
            f"{epochs} the network's squared error is {error:.3g}, and that of the targets' mean "
            f"alone is {variance:.3g}"
        )
    return None
