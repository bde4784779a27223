"""``CNNRegressor``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from fullback.errors import ShapeError
from fullback.estimator.base import CNN
from fullback.estimator.reading import Array, checked_weights, checked_y
from fullback.layers import MeanSquaredError


class CNNRegressor(RegressorMixin, CNN):
    """A convolutional network that answers in numbers.

    X and the parameters are as for ``CNNClassifier``, but for ``class_weight``. y may be of any
    scale: the network learns it with mean 0 and deviation 1.

    Attributes
    ----------
    network_, image_shape_, n_features_in_, n_iter_, loss_curve_ : as for ``CNNClassifier``
    validation_scores_, best_validation_score_ : likewise; minus the mean squared error
    target_mean_, target_scale_ : ndarrays of shape (n_outputs,)
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train a network.

        Parameters
        ----------
        X : images, see the class
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,) or None

        Returns
        -------
        self
        """
        self._check_options()
        images = self._images(X, reset=True)
        targets = checked_y(self, y, len(images), numbers=True)
        more = self._goes_on(images, 1 if targets.ndim == 1 else targets.shape[1])
        self._learn(images, targets, sample_weight, more=more)
        return self

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Train for one epoch on these images, at a constant rate, from where the network is.

        The scale of y is that of the first call.

        Returns
        -------
        self
        """
        self._check_options()
        first = not hasattr(self, "network_")
        images = self._images(X, reset=first)
        targets = checked_y(self, y, len(images), numbers=True)
        self._learn(images, targets, sample_weight, more=not first, epochs=1)
        return self

    def _learn(
        self,
        images: Array,
        targets: Array,
        sample_weight: ArrayLike | None,
        *,
        more: bool,
        epochs: int | None = None,
    ) -> None:
        columns = targets.reshape(len(targets), -1)
        if not more:
            self.one_output_ = targets.ndim == 1
            self.target_mean_ = columns.mean(axis=0)
            scale = columns.std(axis=0)
            self.target_scale_ = np.where(scale > 0, scale, 1.0)
        elif columns.shape[1] != len(self.target_mean_):
            raise ShapeError(
                f"y has {columns.shape[1]} outputs, the first call had {len(self.target_mean_)}"
            )
        standard = (columns - self.target_mean_) / self.target_scale_
        self._train(
            images,
            standard.astype(np.float32),
            checked_weights(sample_weight, images),
            columns.shape[1],
            MeanSquaredError(),
            more=more,
            epochs=epochs,
        )

    def predict(self, X: ArrayLike) -> Array:
        """Return the answer to every image.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self, "network_")
        answers = self.network_.logits(self._images(X, reset=False)).astype(np.float64)
        y: Array = answers * self.target_scale_ + self.target_mean_
        return y[:, 0] if self.one_output_ else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
