"""Networks with scikit-learn's manners: ``CNNClassifier`` and ``CNNRegressor``.

They hold no mathematics: X is read as images (``reading.py``, ``scale.py``), y is brought to what
the loss takes, and ``fit`` trains a ``Network``, which is ``network_`` afterwards. Begin with
``base.py``, which has all but y. A new parameter is a field there, or of one estimator, handed to
`TrainingOptions`; ``parameters.py`` says how it stands in a model file (``files.py``).
"""

from fullback.estimator.classifier import CNNClassifier
from fullback.estimator.files import load_estimator
from fullback.estimator.regressor import CNNRegressor

__all__ = ["CNNClassifier", "CNNRegressor", "load_estimator"]
