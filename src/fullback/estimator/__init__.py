"""Networks with scikit-learn's manners: ``CNNClassifier`` and ``CNNRegressor``.

They hold no mathematics: X is read as images, y is brought to what the loss takes, and ``fit``
trains a ``Network``, which is ``network_`` afterwards.
"""

from fullback.estimator.classifier import CNNClassifier
from fullback.estimator.files import load_estimator
from fullback.estimator.regressor import CNNRegressor

__all__ = ["CNNClassifier", "CNNRegressor", "load_estimator"]
