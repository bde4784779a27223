"""What classifier and regressor share: everything but y."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fullback.augment import Augment
from fullback.errors import OptionError, ShapeError
from fullback.estimator.reading import (
    Array,
    ImageShape,
    explicit_shape,
    in_layout,
    layout_of,
    whole_network,
)
from fullback.estimator.scale import (
    as_numbers,
    bytes_are_pixels,
    check_pixel_range,
    range_of,
    warn_of_shares,
)
from fullback.layers import Layer, Loss
from fullback.network import Network
from fullback.options import require_flag, require_number, require_whole
from fullback.training.callbacks import EarlyStopping
from fullback.training.class_weights import ClassWeight
from fullback.training.fit import fit
from fullback.training.history import Epoch, History, Monitor, require_monitor
from fullback.training.optimizers import OPTIMIZERS, SGD, Optimizer
from fullback.training.options import TrainingOptions
from fullback.training.schedules import Schedule, constant, parse

_IMAGES_TO_SEE = 60_000  # by default, epochs are as many as show this many images,
_FEWEST, _MOST = 5, 200  # but so many at least and at most
_RATES = {"sgd": 0.05, "adam": 0.001, "adamw": 0.001}


@dataclass(eq=False, repr=False)
class CNN(BaseEstimator):
    """What classifier and regressor share: everything but y.

    The parameters are the fields that stand in ``__init__``, which only stores them, as
    scikit-learn wants it; those that end in ``_`` are there once there is a network.
    """

    layers: str | Sequence[Layer] | None = None
    _: KW_ONLY
    image_shape: Sequence[int] | None = None
    pixel_range: tuple[float, float] | None = None
    epochs: int | Literal["auto"] = "auto"
    batch_size: int = 64
    solver: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate_init: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = 2.0
    schedule: str | Schedule = "warm_cosine"
    augment: Augment | str | None = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    monitor: Monitor = "loss"
    n_iter_no_change: int = 10
    tol: float = 1e-4
    warm_start: bool = False
    random_state: int | np.random.RandomState | None = None
    verbose: bool = False

    network_: Network = field(init=False)
    image_shape_: ImageShape = field(init=False)
    channels_last_: bool = field(init=False)
    takes_bytes_: bool = field(init=False)
    loss_curve_: list[float] = field(init=False)
    validation_scores_: list[float] = field(init=False)
    t_: int = field(init=False)

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train a network.

        Parameters
        ----------
        X : images, see the class
        y : array-like of shape (n_samples,), labels of any kind; for a regressor numbers, of that
            shape or of (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,) or None

        Returns
        -------
        self
        """
        self._check_options()
        more = self._continues
        images = self._images(X, reset=not more)
        self._learn(images, self._targets(y, images, more=more), sample_weight, more=more)
        return self

    @abstractmethod
    def _targets(self, y: ArrayLike, images: Array, *, more: bool) -> Array:
        """Check the y of ``fit``, for a new network or for ``more`` training."""

    @abstractmethod
    def _learn(
        self,
        images: Array,
        y: Array,
        sample_weight: ArrayLike | None,
        *,
        more: bool,
        epochs: int | None = None,
    ) -> None:
        """Train on checked images and y."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, which ``load_estimator`` reads.

        ``fullback.load`` and the command line read the same file as a network. Parameters that are
        not plain data, like a schedule of one's own, are left out, with a warning.

        Raises
        ------
        NotFittedError
            There is no network yet.
        InputError
            The path cannot be written to, or the labels are of a type that the file cannot hold.

        Warns
        -----
        FullbackWarning
            A parameter is left out.
        """
        from fullback.estimator.files import save_estimator

        check_is_fitted(self, "network_")
        save_estimator(self, path)

    # Images ---------------------------------------------------------------------------------------

    def _images(self, X: ArrayLike, *, reset: bool) -> Array:
        """Return images (N, C, H, W), float32 or uint8, as the network takes them."""
        given = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        flat: Any = X
        if len(given) in (3, 4):
            if 0 in given:
                raise ShapeError(f"X has shape {tuple(given)}, which holds no images")
            flat = np.asarray(X)
            if not reset:
                flat = in_layout(flat, self.image_shape_, self.channels_last_)
            flat = flat.reshape(given[0], -1)
        flat = validate_data(self, flat, reset=reset)
        if reset:
            self.image_shape_, self.channels_last_ = layout_of(
                given, flat.shape[1], self.image_shape
            )
            self.takes_bytes_ = self.pixel_range is None and bytes_are_pixels(flat)
        values = self._values(flat, first=reset)
        channels, rows, columns = self.image_shape_
        if self.channels_last_:
            values = np.moveaxis(values.reshape(-1, rows, columns, channels), 3, 1)
        images: Array = np.ascontiguousarray(values.reshape(-1, channels, rows, columns))
        return images

    def _values(self, flat: Array, *, first: bool) -> Array:
        """Return X's numbers on the network's scale: uint8 where they are pixels, or float32."""
        if self.takes_bytes_:
            if flat.dtype == np.uint8:
                return flat
            if not first:
                warn_of_shares(flat, self.network_.trained_on)
            return as_numbers(flat) / np.float32(255)
        if not first and bytes_are_pixels(flat, self.network_.trained_on):
            return flat
        return as_numbers(flat)

    # Training -------------------------------------------------------------------------------------

    @property
    def _continues(self) -> bool:
        """Whether ``fit`` goes on with the network that is there."""
        return bool(self.warm_start) and hasattr(self, "network_")

    def _train(
        self,
        images: Array,
        targets: Array,
        weights: Array | None,
        *,
        outputs: int,
        why: str,
        loss: Loss,
        more: bool,
        epochs: int | None = None,
        class_weight: ClassWeight | None = None,
    ) -> None:
        """Build a network, or go on with the one that is there, and train it.

        ``why`` says why it needs so many outputs.
        """
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        layers = whole_network(self.layers, self.image_shape_, outputs, why)
        if more:
            self._require_same_network(layers)
        else:
            self._require_last(layers[-1])
            self.network_ = Network(layers, self.image_shape_, loss=loss, seed=seed)
            self.t_ = 0
            self.loss_curve_ = []
        self._begin(more=more)
        try:
            history = self._run(
                images, targets, weights, seed, more=more, epochs=epochs, class_weight=class_weight
            )
        finally:
            self._end()
        self.loss_curve_ += [float(epoch.loss) for epoch in history]
        self.t_ += len(history)
        self.n_iter_ = len(history)

    def _begin(self, *, more: bool) -> None:
        """Prepare the network for training; ``more`` tells whether it was trained before."""

    def _end(self) -> None:
        """Finish the network, whether training succeeded or not."""

    def _run(
        self,
        images: Array,
        targets: Array,
        weights: Array | None,
        seed: int,
        *,
        more: bool,
        epochs: int | None,
        class_weight: ClassWeight | None,
    ) -> History:
        """Train the network that is there."""
        watch = held_out = None
        if self.early_stopping and epochs is None:
            images, targets, weights, held_out = self._hold_out(images, targets, weights, seed)
            watch = EarlyStopping(
                self.network_, self.n_iter_no_change, self.tol, monitor=self.monitor
            )
        options = self._options(
            len(images),
            epochs,
            class_weight=class_weight,
            pixel_range=None if more else range_of(images, self.pixel_range),
            seed=seed + self.t_,
        )
        history = fit(
            self.network_,
            images,
            targets,
            **vars(options),
            validation_data=held_out,
            sample_weight=weights,
            callbacks=[] if watch is None else [watch],
            verbose=bool(self.verbose),
        )
        if watch is not None:
            self.validation_scores_ = list(map(self._score, history))
            self.best_validation_score_ = self.validation_scores_[watch.best - 1]
        return history

    def _score(self, epoch: Epoch) -> float:
        """Return an epoch's validation score: what is monitored, or accuracy for a classifier."""
        shares = self.network_.loss.classifies and self.monitor == "loss"
        return epoch.judged_by("accuracy" if shares else self.monitor)

    def _hold_out(
        self, images: Array, targets: Array, weights: Array | None, seed: int
    ) -> tuple[Array, Array, Array | None, tuple[Array, Array]]:
        """Keep a part of the images for validation; return the others, and that part."""
        classes = targets if self.network_.loss.classifies else None
        try:
            parts = train_test_split(
                images,
                targets,
                *([] if weights is None else [weights]),
                test_size=self.validation_fraction,
                stratify=classes,
                random_state=seed,
            )
        except ValueError as error:
            raise OptionError(
                f"early_stopping keeps {self.validation_fraction:g} of {len(images)} images for "
                f"validation, some of every class, which cannot be: {error}"
            ) from error
        return parts[0], parts[2], None if weights is None else parts[4], (parts[1], parts[3])

    def _require_same_network(self, layers: Sequence[Layer]) -> None:
        """Raise OptionError where parameters ask for another network than the one that is there."""
        shape = None if self.image_shape is None else explicit_shape(self.image_shape)
        if shape not in (None, self.image_shape_):
            raise OptionError(
                f"image_shape is {shape}, but the network that training would go on with takes "
                f"images of {self.image_shape_}; train a clone, or with warm_start=False"
            )
        if tuple(layers) != self.network_.layers:
            raise OptionError(
                f"layers are {list(layers)}, but the network that training would go on with has "
                f"{list(self.network_.layers)}; train a clone, or with warm_start=False"
            )

    def _require_last(self, layer: Layer) -> None:
        """Raise where the network cannot end with this layer."""

    def _options(self, images: int, epochs: int | None = None, **more: Any) -> TrainingOptions:
        """Return how so many images are trained on; with ``epochs`` so long, at a constant rate."""
        schedule = self._schedule() if epochs is None else constant
        if epochs is None:
            auto = min(max(round(_IMAGES_TO_SEE / images), _FEWEST), _MOST)
            epochs = auto if self.epochs == "auto" else self.epochs
        return TrainingOptions(
            epochs=epochs,
            batch_size=self.batch_size,
            optimizer=self._optimizer(),
            schedule=schedule,
            augment=self._augment(),
            **more,
        )

    def _optimizer(self) -> Optimizer:
        rate = self.learning_rate_init
        rate = _RATES[self.solver] if rate is None else rate
        options: dict[str, Any] = {"weight_decay": self.weight_decay, "clip_norm": self.clip_norm}
        if self.solver == "sgd":
            return SGD(rate, self.momentum, nesterov=self.momentum > 0, **options)
        return OPTIMIZERS[self.solver](rate, **options)

    def _schedule(self) -> Schedule:
        schedule = parse(self.schedule) if isinstance(self.schedule, str) else self.schedule
        if not callable(schedule):
            raise OptionError(
                "schedule must be text like 'cosine' or a function like schedules.cosine, got "
                f"{schedule!r}"
            )
        return schedule

    def _augment(self) -> Augment | None:
        return Augment.parse(self.augment) if isinstance(self.augment, str) else self.augment

    def _check_options(self) -> None:
        require_whole("n_iter_no_change", self.n_iter_no_change, 1)
        require_number("validation_fraction", self.validation_fraction, "(0, 1)")
        require_number("tol", self.tol, "[0, inf)")
        require_monitor("monitor", self.monitor)
        require_number("momentum", self.momentum, "[0, 1)")
        for flag in ("early_stopping", "warm_start"):
            require_flag(flag, getattr(self, flag))
        if self.solver not in OPTIMIZERS:
            raise OptionError(f"solver must be one of {', '.join(OPTIMIZERS)}, got {self.solver!r}")
        if self.pixel_range is not None:
            check_pixel_range(self.pixel_range)
        self._options(images=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
