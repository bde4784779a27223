"""``CNNClassifier``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted

from fullback.estimator.base import CNN
from fullback.estimator.reading import Array, check_class_weight, checked_weights, checked_y
from fullback.layers import SoftmaxCrossEntropy
from fullback.training.class_weights import ClassWeight


@dataclass(eq=False, repr=False)
class CNNClassifier(ClassifierMixin, CNN):
    """A convolutional network that distinguishes classes.

    X may be of shape (n_samples, n_features), (n_samples, rows, columns), (n_samples, channels,
    rows, columns) or (n_samples, rows, columns, channels). Which of the last two it is, is told by
    its shape, as in ``load_data``, with a warning where that is a guess; ``image_shape`` decides.
    Numbers may be uint8 (0 to 255) or of any other type and scale: the images are normalised by
    mean and deviation of those that were trained on.

    Parameters
    ----------
    layers : str, list of layers, or None
        The network in text form, like ``"conv8 relu pool conv16 relu pool dense64 relu"``, or as
        layers. A Normalize in front, a Flatten and the last Dense are added where they are missing.
        A Dense at the end is the last one, and must have an output for every class; one with an
        activation behind it is a hidden one. None is two stages of convolution, ReLU and pooling
        and 64 units, with pooling only along axes that are long enough.
    image_shape : (rows, columns) or (channels, rows, columns), or None
        What X is read as. Of X in rows of n_features, without it, a square number of features is a
        grey image, and any other a single row of pixels. Where X has four axes, channels are where
        its shape has them; ``predict`` takes either layout, and rows as those of ``fit``.
    pixel_range : (black, white) or None
        Which of X's numbers are black and white, so that uint8 images and image files are brought
        to that scale when the network is used. None is 0 to 255 for uint8, and for other numbers 0
        to 1, 0 to 255, 0 to 16 or -1 to 1 where they look like that; in any other case the network
        takes numbers alone. See ``Network.trained_on``.
    epochs : int or "auto"
        Passes over the images; "auto" is as many as show 60,000 images, from 5 to 200.
    batch_size : int
        Images a step; all where there are less.
    solver : "sgd", "adam" or "adamw"
    learning_rate_init : float or None
        None is 0.05 for "sgd" and 0.001 for the others.
    momentum : float
        Nesterov's, of "sgd".
    weight_decay : float
        Of weights, not of biases; see ``fullback.SGD``.
    clip_norm : float or None
        The largest length of a step's gradients, all together; longer ones are shortened to it.
        Without it a few large errors at the start can throw the network out of range.
    schedule : str or function
        How the learning rate changes: "warm_cosine", "cosine", "constant", "one_cycle", "steps",
        "plateau" or "warm_up", the last four with options as in ``"steps(factor=0.3, at=0.8)"``;
        or an object of ``fullback.schedules``, or any function of the share of the run that is
        done, from 0 to 1.
    augment : str, Augment or None
        How the views that are trained on differ from the images: ``"shift=2 rotate=10"``, see
        ``fullback.Augment``.
    early_stopping : bool
        Keep a part of the images for validation, end when it has not got better for
        ``n_iter_no_change`` epochs, and go back to the best epoch's weights. Epochs in which the
        learning rate still rises do not count.
    validation_fraction : float
        That part, in (0, 1).
    monitor : "loss", "accuracy", "balanced" or "f1"
        What tells the best epoch: the lowest validation loss, with the classes' weights, or the
        highest accuracy, balanced accuracy or macro F1.
    n_iter_no_change, tol : int, float
        An epoch is better where the loss has fallen by a share of ``tol``, or accuracy, balanced
        accuracy or F1 has risen by ``tol``.
    warm_start : bool
        Whether ``fit`` goes on with the network that is there. Other classes, layers or shapes of
        images than before are then an error.
    random_state : int, RandomState or None
        Fixes the first weights, the order of the images and dropout. The same number gives the
        same network, bit for bit, whatever the number of threads.
    verbose : bool
        Whether to show progress, on standard error.
    class_weight : dict, "balanced" or None
        Weights of the classes, by label; "balanced" gives all the same weight together.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    network_ : Network
        Its ``class_names`` are the labels' texts.
    image_shape_ : (channels, rows, columns)
    n_features_in_ : int
    n_iter_ : int
        Epochs of the last ``fit``.
    loss_curve_ : list of float
        The training loss of every epoch.
    validation_scores_, best_validation_score_ : list of float, float
        With ``early_stopping``: balanced accuracy or F1, where ``monitor`` says so, or else
        accuracy of every epoch, and of the one that was gone back to.
    """

    class_weight: dict[Any, float] | Literal["balanced"] | None = field(default=None, kw_only=True)

    classes_: Array = field(init=False)

    def _targets(self, y: ArrayLike, images: Array, *, more: bool) -> Array:
        labels = self._labels(y, images)
        classes = unique_labels(labels)
        if more and not np.array_equal(classes, self.classes_):
            raise ValueError(
                "warm_start can only be used where y has the same classes as in the previous call "
                f"to fit; that had {self.classes_.tolist()}, y has {classes.tolist()}: partial_fit "
                "takes images of some of the classes, and warm_start=False begins anew"
            )
        self.classes_ = classes
        return labels

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Any:
        """Train for one epoch on these images, at a constant rate, from where the network is.

        Parameters
        ----------
        X, y, sample_weight : as for ``fit``
        classes : all classes that there will be; the first call needs them, unless y has them all

        Returns
        -------
        self
        """
        self._check_options()
        first = not hasattr(self, "network_")
        images = self._images(X, reset=first)
        labels = self._labels(y, images)
        if first:
            self.classes_ = unique_labels(labels if classes is None else np.asarray(classes))
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(f"classes are {classes!r}, the first call had {self.classes_!r}")
        self._learn(images, labels, sample_weight, more=not first, epochs=1)
        return self

    def _labels(self, y: ArrayLike, images: Array) -> Array:
        labels = checked_y(self, y, len(images))
        check_classification_targets(labels)
        return labels

    def _learn(
        self,
        images: Array,
        y: Array,
        sample_weight: ArrayLike | None,
        *,
        more: bool,
        epochs: int | None = None,
    ) -> None:
        targets = np.searchsorted(self.classes_, y)
        known = self.classes_[np.minimum(targets, len(self.classes_) - 1)] == y
        if not np.all(known):
            unknown = y[~known][0]
            raise ValueError(f"y holds {unknown!r}, which is not among the classes")
        count = len(self.classes_)
        self._train(
            images,
            targets,
            checked_weights(sample_weight, images),
            outputs=max(count, 2),
            why=f"y has {count} class{'es' if count > 1 else ''}",
            loss=SoftmaxCrossEntropy(),
            more=more,
            epochs=epochs,
            class_weight=self._class_weight(y),
        )

    def _class_weight(self, labels: Array) -> ClassWeight | None:
        """Return the weights by the classes' places."""
        if self.class_weight is None or isinstance(self.class_weight, str):
            return self.class_weight
        of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=labels)
        return dict(enumerate(of_class.tolist()))

    def _begin(self, *, more: bool) -> None:
        if not more:
            names = tuple(map(str, self.classes_.tolist()))
            self.network_.class_names = names if len(names) > 1 else (*names, "(none)")

    def _check_options(self) -> None:
        super()._check_options()
        check_class_weight(self.class_weight)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the probability of every class.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self, "network_")
        p: Array = self.network_.predict_proba(self._images(X, reset=False)).astype(np.float64)
        p = p[:, : len(self.classes_)]
        p /= p.sum(axis=1, keepdims=True)
        return p

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Return the logarithm of the probability of every class."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> Array:
        """Return the most probable class of every image.

        Where ``network_.threshold`` is set, as ``fullback eval --store`` does, it decides.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self, "network_")
        if self.network_.threshold is None:
            best = self.predict_proba(X).argmax(axis=1)
        else:
            best = self.network_.predict(self._images(X, reset=False))
        return np.asarray(self.classes_[best])
