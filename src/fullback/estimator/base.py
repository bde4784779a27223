"""What classifier and regressor share: everything but y."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from fullback.augment import Augment
from fullback.errors import FullbackWarning, OptionError, ShapeError
from fullback.estimator.reading import Array, shape_of, whole_network
from fullback.layers import Layer, Loss
from fullback.network import Network
from fullback.options import require_number, require_whole
from fullback.training.callbacks import EarlyStopping
from fullback.training.fit import fit
from fullback.training.optimizers import OPTIMIZERS, SGD, Optimizer
from fullback.training.schedules import constant, parse

_IMAGES_TO_SEE = 60_000  # by default, epochs are as many as show this many images,
_FEWEST, _MOST = 5, 200  # but so many at least and at most
_RATES = {"sgd": 0.05, "adam": 0.001, "adamw": 0.001}


class CNN(BaseEstimator):
    """What classifier and regressor share: everything but y."""

    def __init__(
        self,
        layers: str | Sequence[Layer] | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        epochs: int | Literal["auto"] = "auto",
        batch_size: int = 64,
        solver: Literal["sgd", "adam", "adamw"] = "sgd",
        learning_rate_init: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: str = "warm_cosine",
        augment: Augment | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.layers = layers
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # Images ---------------------------------------------------------------------------------------

    def _images(self, X: ArrayLike, *, reset: bool) -> Array:
        """Return images (N, C, H, W), float32 or, where the first ones were, uint8."""
        given = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        flat: Any = X
        if len(given) in (3, 4) and 0 not in given:
            flat = np.asarray(X).reshape(given[0], -1)
        flat = validate_data(self, flat, reset=reset)
        if reset:
            self.image_shape_ = shape_of(given, flat.shape[1], self.image_shape)
            self.takes_bytes_ = flat.dtype == np.uint8
        elif len(given) > 2 and (1,) * (4 - len(given)) + tuple(given[1:]) != self.image_shape_:
            raise ShapeError(f"X holds images of shape {given[1:]}, fit had {self.image_shape_}")
        if flat.dtype != np.uint8:
            flat = flat.astype(np.float32) / np.float32(255 if self.takes_bytes_ else 1)
        elif not self.takes_bytes_:
            flat = flat.astype(np.float32)
        images: Array = np.ascontiguousarray(flat).reshape(len(flat), *self.image_shape_)
        return images

    # Training -------------------------------------------------------------------------------------

    def _train(
        self,
        images: Array,
        targets: Array,
        weights: Array | None,
        outputs: int,
        loss: Loss,
        *,
        more: bool,
        epochs: int | None = None,
    ) -> None:
        """Build a network, or go on with the one that is there, and train it."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if not more:
            layers = whole_network(self.layers, self.image_shape_, outputs)
            self.network_ = Network(layers, self.image_shape_, loss=loss, seed=seed)
            self.t_ = 0
            self.loss_curve_: list[float] = []
        watch = held_out = None
        if self.early_stopping and epochs is None:
            images, targets, weights, held_out = self._hold_out(images, targets, weights, seed)
            watch = EarlyStopping(self.network_, self.n_iter_no_change, self.tol)
        with warnings.catch_warnings():
            # of floats that look like bytes: an estimator takes either, whatever it was trained on
            warnings.filterwarnings("ignore", "the images are floats up to", FullbackWarning)
            history = fit(
                self.network_,
                images,
                targets,
                epochs=epochs or self._count(len(images)),
                batch_size=min(self.batch_size, len(images)),
                optimizer=self._optimizer(),
                schedule=constant if epochs else parse(self.schedule),
                validation_data=held_out,
                augment=self._augment(),
                sample_weight=weights,
                callbacks=[] if watch is None else [watch],
                seed=seed + self.t_,
                verbose=bool(self.verbose),
            )
        self.loss_curve_ += [float(epoch.loss) for epoch in history]
        self.t_ += len(history)
        self.n_iter_ = len(history)
        if watch is not None:
            self.validation_scores_ = [epoch.figure for epoch in history]
            self.best_validation_score_ = max(self.validation_scores_)

    def _hold_out(
        self, images: Array, targets: Array, weights: Array | None, seed: int
    ) -> tuple[Array, Array, Array | None, tuple[Array, Array]]:
        """Keep a part of the images for validation; return the others, and that part."""
        classes = targets if self.network_.loss.classifies else None
        parts = train_test_split(
            images,
            targets,
            *([] if weights is None else [weights]),
            test_size=self.validation_fraction,
            stratify=classes,
            random_state=seed,
        )
        return parts[0], parts[2], None if weights is None else parts[4], (parts[1], parts[3])

    def _count(self, images: int) -> int:
        if self.epochs == "auto":
            return min(max(round(_IMAGES_TO_SEE / images), _FEWEST), _MOST)
        return self.epochs

    def _optimizer(self) -> Optimizer:
        rate = self.learning_rate_init
        rate = _RATES[self.solver] if rate is None else rate
        if self.solver == "sgd":
            nesterov = self.momentum > 0
            return SGD(rate, self.momentum, nesterov, self.weight_decay)
        return OPTIMIZERS[self.solver](rate, weight_decay=self.weight_decay)  # type: ignore[call-arg]

    def _augment(self) -> Augment | None:
        return Augment.parse(self.augment) if isinstance(self.augment, str) else self.augment

    def _check_options(self) -> None:
        if self.epochs != "auto":
            require_whole("epochs", self.epochs, 1)
        require_whole("batch_size", self.batch_size, 1)
        require_whole("n_iter_no_change", self.n_iter_no_change, 1)
        require_number("validation_fraction", self.validation_fraction, "(0, 1)")
        require_number("tol", self.tol, "[0, inf)")
        if self.solver not in OPTIMIZERS:
            raise OptionError(f"solver must be one of {', '.join(OPTIMIZERS)}, got {self.solver!r}")
        if not isinstance(self.schedule, str):
            raise OptionError(f"schedule must be text like 'cosine', got {self.schedule!r}")
        parse(self.schedule)

    def _goes_on(self, images: Array, outputs: int) -> bool:
        """Whether ``warm_start`` has a network to go on with."""
        network = getattr(self, "network_", None)
        return (
            self.warm_start
            and network is not None
            and network.input_shape == images.shape[1:]
            and network.output_shape == (outputs,)
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
