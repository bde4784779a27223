"""``CNNRegressor``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from fullback.errors import OptionError, ShapeError
from fullback.estimator.base import CNN
from fullback.estimator.moments import Moments
from fullback.estimator.reading import Array, checked_weights, checked_y
from fullback.layers import Dense, Layer, MeanSquaredError
from fullback.training.target_scale import TargetScale


@dataclass(eq=False, repr=False)
class CNNRegressor(RegressorMixin, CNN):
    """A convolutional network that answers in numbers.

    X and the parameters are as for ``CNNClassifier``, but for ``class_weight``; ``monitor`` is
    "loss". y may be of any scale: it is learned with mean 0 and deviation 1, and afterwards that
    scale is multiplied into the last Dense layer, so that ``network_`` answers in the units of y.

    Attributes
    ----------
    network_, image_shape_, n_features_in_, n_iter_ : as for ``CNNClassifier``
    loss_curve_ : list of float
        The training loss of every epoch: the mean squared error of y with deviation 1
    validation_scores_, best_validation_score_ : likewise, with ``early_stopping``; minus the error
    target_mean_, target_scale_ : ndarrays of shape (n_outputs,)
        Mean and deviation of y, weighted by ``sample_weight``; of a constant y the deviation is 0.
    """

    target_weight_: float = field(init=False)  # sum of the weights of all targets
    target_mean_: Array = field(init=False)
    target_scale_: Array = field(init=False)
    one_output_: bool = field(init=False)  # whether y had one axis

    def _targets(self, y: ArrayLike, images: Array, *, more: bool) -> Array:
        return checked_y(self, y, len(images), numbers=True)

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Train for one epoch on these images, at a constant rate, from where the network is.

        The scale of y is that of all calls so far.

        Returns
        -------
        self
        """
        self._check_options()
        first = not hasattr(self, "network_")
        images = self._images(X, reset=first)
        targets = self._targets(y, images, more=not first)
        self._learn(images, targets, sample_weight, more=not first, epochs=1)
        return self

    def _learn(
        self,
        images: Array,
        y: Array,
        sample_weight: ArrayLike | None,
        *,
        more: bool,
        epochs: int | None = None,
    ) -> None:
        columns = y.reshape(len(y), -1)
        if more and columns.shape[1] != len(self.target_mean_):
            raise ShapeError(
                f"y has {columns.shape[1]} outputs, the first call had {len(self.target_mean_)}"
            )
        weights = checked_weights(sample_weight, images)
        moments = Moments.of(columns, weights)
        if more and epochs is not None:
            before = Moments(self.target_mean_, self.target_scale_, self.target_weight_)
            moments = before + moments
        moments.check()
        if not more:
            self.one_output_ = y.ndim == 1
        self.target_mean_, self.target_scale_ = moments.mean, moments.deviation
        self.target_weight_ = moments.weight
        self._train(
            images,
            moments.standardised(columns).astype(np.float32),
            weights,
            outputs=columns.shape[1],
            why=f"y has {columns.shape[1]} output{'s' if columns.shape[1] > 1 else ''}",
            loss=MeanSquaredError(),
            more=more,
            epochs=epochs,
        )

    def _require_last(self, layer: Layer) -> None:
        if isinstance(layer, Dense) and not layer.bias:
            raise OptionError(
                f"the layers end with {layer}, but a regressor's last layer needs its bias, for "
                "the mean of y; leave out bias=False"
            )

    def _begin(self, *, more: bool) -> None:
        """Bring the network from the units of y to deviation 1."""
        if more:
            TargetScale(self.target_mean_, self.target_scale_).out_of(self.network_)

    def _end(self) -> None:
        """Bring the network to the units of y."""
        TargetScale(self.target_mean_, self.target_scale_).into(self.network_)

    def predict(self, X: ArrayLike) -> Array:
        """Return the answer to every image.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self, "network_")
        answers = self.network_.logits(self._images(X, reset=False)).astype(np.float64)
        y: Array = np.where(self.target_scale_ > 0, answers, self.target_mean_)
        return y[:, 0] if self.one_output_ else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
