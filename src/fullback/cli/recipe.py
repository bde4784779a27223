"""What ``fullback train`` trains and how: its options, checked and put together."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.cli.inputs import build
from fullback.cli.start_from import has_head_for, started_from
from fullback.cli.train_options import MonitorName, OptimizerName
from fullback.errors import InputError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from fullback.data import Dataset
    from fullback.layers import Loss
    from fullback.network import Network
    from fullback.training.class_weights import ClassWeight
    from fullback.training.history import History
    from fullback.training.listeners import AnyCallback
    from fullback.training.optimizers import Optimizer
    from fullback.training.options import TrainingOptions
    from fullback.training.target_scale import TargetScale

IMAGES_TO_SEE = 60_000  # by default, epochs are as many as show this many images,
_FEWEST, _MOST = 5, 1000  # but so many at least and at most
_SAMPLE = 2000  # training images by which it is found out whether something was learned
_SIMPLE_DATA = ("digits", "mnist")  # on which the question's network is known to learn


@dataclass(frozen=True, eq=False)
class Recipe:
    """What is trained, on what and how.

    Attributes
    ----------
    dataset : the images and labels
    net : the network's name or text, or the file of ``start``
    start : the saved network that training starts with, or None
    training : the options of ``fit``
    label_smoothing : of the loss
    freeze : layers that are left untrained, by kind or name
    validation : share of the training images that is kept for validation, or 0; a data set may
        have images for validation of its own
    patience : epochs without improvement, after which training ends, or None
    monitor, min_improvement : the figure by which epochs are compared, and by how much it must be
        better to count
    data_options : how the images were read, where it was not by default; kept with the model
    """

    dataset: Dataset
    net: str
    start: Network | None
    training: TrainingOptions
    label_smoothing: float
    freeze: tuple[str, ...]
    validation: float
    patience: int | None
    monitor: MonitorName
    min_improvement: float
    data_options: Mapping[str, Any]

    @property
    def loss(self) -> Loss:
        """What training makes small."""
        from fullback.layers import MeanSquaredError, SoftmaxCrossEntropy

        if self.dataset.numbers:
            return MeanSquaredError()
        return SoftmaxCrossEntropy(self.label_smoothing)

    def network(self) -> Network:
        """Return the network before training."""
        dataset, seed = self.dataset, self.training.seed
        if self.start is not None:
            network = started_from(self.start, dataset, self.loss, seed)
        else:
            network = build(self.net, dataset.image_shape, dataset.outputs, seed)
            network.loss = self.loss
            network.class_names = dataset.class_names
            if not dataset.numbers and network.output_shape[0] < dataset.classes:
                raise OptionError(
                    f"the network has {network.output_shape[0]} outputs, but {dataset.name} has "
                    f"{dataset.classes} classes; end it with dense{dataset.classes}"
                )
        network.data_options = dict(self.data_options)
        network.freeze(*self.freeze)
        return network

    def check(self, network: Network) -> None:
        """Raise an error where ``fit`` could not train so."""
        self.training.for_run(network, len(self.dataset.x_train), validates=self.validates)
        _ = self.held_out
        if self.patience is not None and not self.validates:
            raise OptionError("--patience needs images for validation; give --validation 0.1")
        if self.dataset.numbers:
            from fullback.cli.numbers import check_regressor

            if self.monitor != "loss":
                raise OptionError(
                    f"--monitor {self.monitor} goes with classes; with --regression it is loss"
                )
            check_regressor(network, self.dataset.outputs)
            _ = self.target_scale

    def attempt(self, number: int) -> Recipe:
        """Return the recipe of an attempt: from the second, another seed and a third of the rate.

        The number is from 1.
        """
        if number == 1:
            return self
        training = self.training
        rate = float(f"{training.optimizer.learning_rate / 3 ** (number - 1):.2g}")
        training = dataclasses.replace(
            training,
            seed=training.seed + number - 1,
            optimizer=dataclasses.replace(training.optimizer, learning_rate=rate),
        )
        return dataclasses.replace(self, training=training)

    @property
    def validates(self) -> bool:
        """Whether there are images for validation."""
        return bool(self.validation) or self.dataset.x_val is not None

    @property
    def steps(self) -> int:
        """How many steps the whole run has."""
        return self.training.epochs * math.ceil(len(self.trained_on) / self.training.batch_size)

    @cached_property
    def trained_on(self) -> NDArray[np.int64]:
        """The places of the training images that are not kept for validation."""
        import numpy as np

        places = np.arange(len(self.dataset.y_train))
        return places if self.held_out is None else np.delete(places, self.held_out)

    def training_sample(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return images that are trained on, spread over the set, and their labels."""
        from fullback.mapped import gathered
        from fullback.pixels import sample_size

        most = sample_size(self.dataset.x_train, _SAMPLE)
        places = self.trained_on[:: -(-len(self.trained_on) // most)]
        return gathered(self.dataset.x_train, places), self.dataset.y_train[places]

    @cached_property
    def target_scale(self) -> TargetScale | None:
        """The scale of numbers to predict; None where there are classes."""
        if not self.dataset.numbers:
            return None
        from fullback.cli.numbers import scale_of_targets

        return scale_of_targets(self.dataset.y_train[self.trained_on], self.dataset.name)

    @cached_property
    def held_out(self) -> NDArray[np.int64] | None:
        """The places of the images that are kept for validation, of each class a share."""
        if not self.validation:
            return None
        import numpy as np
        from sklearn.model_selection import train_test_split

        dataset, seed = self.dataset, self.training.seed
        if dataset.x_val is not None:
            raise OptionError(
                f"{dataset.name} has {len(dataset.x_val)} images for validation of its own; leave "
                "--validation out"
            )
        places = np.arange(len(dataset.y_train))
        count = int(np.ceil(self.validation * len(places)))
        if dataset.numbers:
            if not 0 < count < len(places):
                raise InputError(
                    f"{dataset.name} has too few training images to keep {self.validation:g} of "
                    "them for validation; give another share, or none"
                )
            drawn = np.random.default_rng(seed).permutation(places)
            return np.sort(drawn[:count])
        classes = np.unique(dataset.y_train)
        fewest = np.bincount(dataset.y_train)[classes].min()
        if fewest < 2 or min(count, len(places) - count) < len(classes):
            raise InputError(
                f"{dataset.name} has too few training images of some class to keep "
                f"{self.validation:g} of each for validation; give a larger share, or none"
            )
        _, held = train_test_split(
            places,
            test_size=count,
            stratify=dataset.y_train,
            random_state=seed % 2**32,
        )
        return np.sort(held)

    def train(
        self,
        network: Network,
        *,
        callbacks: Sequence[AnyCallback] = (),
        checkpoint: Path | None = None,
        verbose: bool | Console = False,
        comm: Any = None,
    ) -> History:
        """Train a network, with the other ranks of a communicator where there is one.

        Images for validation get no weight among the others, and are read from the disk, where all
        are, when they are needed.
        """
        import numpy as np

        from fullback.mapped import mapped_file
        from fullback.training.fit import fit
        from fullback.training.training_data import Chosen

        dataset, scale, held = self.dataset, self.target_scale, self.held_out

        def targets(y: NDArray[Any]) -> NDArray[Any]:
            return y if scale is None else scale.standardised(y.reshape(len(y), -1))

        weights: NDArray[np.float64] | None = None
        validation: tuple[Any, NDArray[Any]] | None = None
        if held is not None:
            weights = np.ones(len(dataset.y_train))
            weights[held] = 0
            images = dataset.x_train
            chosen = Chosen(images, held) if mapped_file(images) is not None else images[held]
            validation = chosen, targets(dataset.y_train[held])
        elif dataset.x_val is not None and dataset.y_val is not None:
            validation = dataset.x_val, targets(dataset.y_val)
        keeps_head = self.start is not None and has_head_for(self.start, dataset, self.loss)
        if scale is not None and keeps_head:
            scale.out_of(network)
        try:
            return fit(
                network,
                dataset.x_train,
                targets(dataset.y_train),
                **vars(self.training),
                validation_data=validation,
                sample_weight=weights,
                callbacks=callbacks,
                checkpoint=checkpoint,
                verbose=verbose,
                comm=comm,
            )
        finally:
            if scale is not None:
                scale.into(network)


def chosen_optimizer(
    name: OptimizerName,
    lr: float | None,
    momentum: float | None,
    weight_decay: float | None,
    clip: float | None,
) -> Optimizer:
    """Return the optimizer that the options describe; gradients of any length are ``inf``."""
    from fullback.training.optimizers import CLIP_NORM, OPTIMIZERS, SGD

    if clip is None and name == "sgd":
        clip = CLIP_NORM
    elif clip == math.inf:
        clip = None
    if name == "sgd":
        momentum = 0.9 if momentum is None else momentum
        return SGD(
            0.05 if lr is None else lr,
            momentum=momentum,
            nesterov=momentum > 0,
            weight_decay=weight_decay or 0.0,
            clip_norm=clip,
        )
    if momentum is not None:
        raise OptionError(f"--momentum goes with sgd, not with {name}")
    more = {} if weight_decay is None else {"weight_decay": weight_decay}
    return OPTIMIZERS[name](0.001 if lr is None else lr, clip_norm=clip, **more)


def default_net(data: str) -> str:
    """Return the network that suits what ``--data`` names."""
    return "question" if data in _SIMPLE_DATA else "compact"


def why_net(data: str) -> str:
    """Say why ``default_net`` takes the network that it takes."""
    if data in _SIMPLE_DATA:
        return f"the default for {' and '.join(_SIMPLE_DATA)}; --net takes another"
    return (
        "the default for images of your own: batch normalisation and averaged maps learn on most; "
        "--net takes another"
    )


def default_epochs(images: int) -> int:
    """Return how many epochs a number of training images is trained by default."""
    return min(max(round(IMAGES_TO_SEE / images), _FEWEST), _MOST)


def chosen_monitor(monitor: MonitorName | None, *, weighted: bool) -> MonitorName:
    """Return the figure by which epochs are compared: where classes are weighted, a fair one."""
    if monitor is not None:
        return monitor
    return "balanced" if weighted else "loss"


def class_weights(text: str | None, balanced: bool, dataset: Dataset) -> ClassWeight | None:
    """Read ``--class-weight`` and ``--balanced``, for the classes of a data set.

    Raises
    ------
    OptionError
        There is no such class, a weight is not a number, both options are given, or there are no
        classes.
    """
    names = dataset.class_names
    if dataset.numbers and (balanced or text is not None):
        raise OptionError("--balanced and --class-weight go with classes, not with --regression")
    if text is None or text.strip() == "balanced":
        return "balanced" if balanced or text is not None else None
    if balanced:
        raise OptionError("--balanced and --class-weight both say the classes' weights; give one")
    weights: dict[int, float] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise OptionError(f"--class-weight {text!r}: {error}") from None
    for word in words:
        name, equals, number = word.rpartition("=")
        label = _label(name, names)
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not equals or not 0 <= weight < float("inf"):
            raise OptionError(
                f"--class-weight has {word!r}; expected a class and a weight of at least 0, as in "
                f'"{names[0]}=2"'
            )
        if label in weights:
            raise OptionError(f"--class-weight gives class {names[label]} two weights")
        weights[label] = weight
    if not weights:
        raise OptionError(f'--class-weight is empty; expected weights like "{names[0]}=2"')
    return weights


def _label(name: str, names: Sequence[str]) -> int:
    """Return the number of the class that is called so, or has this number."""
    from fullback.options import listed

    if name in names:
        return list(names).index(name)
    numbered = not any(known.isdecimal() for known in names)  # else a number is a name
    if numbered and name.isdecimal() and int(name) < len(names):
        return int(name)
    raise OptionError(f"--class-weight has the class {name!r}; the classes are {listed(names, 8)}")


def with_frozen_filters(network: Network, recipe: Recipe) -> Network:
    """Return the same network with all its filters frozen, for the comparison."""
    named = zip(network.names, network.layers, strict=True)
    filters = {name for name, layer in named if layer.kind == "conv"}
    if not filters - network.frozen:
        raise OptionError("--compare needs filters that are trained, and the network has none")
    twin = recipe.network()
    twin.freeze(*filters)
    if not twin.trainable():
        raise OptionError("--compare needs layers to train beside the filters, and there are none")
    return twin
