"""Small convolutional networks on a CPU, with a backward pass you can read, check and see.

All but the errors is imported when it is first used. The rooms, each of which imports only from
itself and those above it:

====================================  ==========================================================
errors, options, atomic, memory,      exceptions, checks of options, whole files, free memory,
mapped, pixels, threshold             arrays on a disk, what images are like, when one is answered
layers, architecture, arrays          one page a layer; what follows from a list of layers
model                                 what a network is; every room takes a ``Model``
show, passes                          its table; its loops forward and backward, and the trace
data, augment                         every way in for images; images changed at random
engine                                the fast kernels, and the programs that call them
export                                files in and out
training                              ``fit``, optimizers, schedules, callbacks, checkpoints
metrics, plots                        what predictions are worth, and pictures of it
network, zoo                          what users call; named networks
check                                 gradients checked, mistakes named, a layer examined
estimator                             scikit-learn's interface
report, explorer                      the backward pass as a file, and as a page with a server
bench, cli                            timings; the command line
====================================  ==========================================================

Begin with ``layers/dense.py``, ``passes.py`` and ``network.py``.
"""

from typing import TYPE_CHECKING

from fullback.errors import (
    DataError,
    DeadUnitWarning,
    DivergenceError,
    DownloadError,
    FullbackError,
    FullbackWarning,
    InputError,
    ModelFileError,
    NotEnoughMemoryError,
    OptionError,
    RankError,
    ShapeError,
)

if TYPE_CHECKING:
    __version__: str
    from fullback import zoo
    from fullback.augment import Augment
    from fullback.check.diagnose import Diagnosis, Finding, diagnose, diagnose_program, probe
    from fullback.check.gradients import GradientCheck, check_gradients
    from fullback.check.layer import LayerCheck, check_layer
    from fullback.data import Dataset, load_data, unpack_data
    from fullback.estimator import CNNClassifier, CNNRegressor, load_estimator
    from fullback.export.safetensors import save
    from fullback.layers import (
        AvgPool2D,
        BatchNorm2D,
        BinaryCrossEntropy,
        Conv2D,
        Dense,
        Dropout,
        Flatten,
        GlobalAvgPool2D,
        LeakyReLU,
        MaxPool2D,
        MeanSquaredError,
        Normalize,
        ReLU,
        Sigmoid,
        SoftmaxCrossEntropy,
        Tanh,
    )
    from fullback.network import Network, load
    from fullback.passes import Trace
    from fullback.report.page import explain
    from fullback.threshold import Threshold
    from fullback.training import schedules
    from fullback.training.callbacks import Callback, EarlyStopping
    from fullback.training.fit import fit
    from fullback.training.history import Epoch, History
    from fullback.training.optimizers import SGD, Adam, AdamW
    from fullback.training.rate_finder import find_rate
else:  # the same imports, each when its name is first used
    import importlib
    import sys

    _MODULES = {
        "schedules": "fullback.training.schedules",
        "zoo": "fullback.zoo",
    }
    _NAMES = {
        "fullback.augment": "Augment",
        "fullback.check.diagnose": "Diagnosis Finding diagnose diagnose_program probe",
        "fullback.check.gradients": "GradientCheck check_gradients",
        "fullback.check.layer": "LayerCheck check_layer",
        "fullback.data": "Dataset load_data unpack_data",
        "fullback.estimator": "CNNClassifier CNNRegressor load_estimator",
        "fullback.export.safetensors": "save",
        "fullback.layers": """
            AvgPool2D BatchNorm2D BinaryCrossEntropy Conv2D Dense Dropout Flatten GlobalAvgPool2D
            LeakyReLU MaxPool2D MeanSquaredError Normalize ReLU Sigmoid SoftmaxCrossEntropy Tanh""",
        "fullback.network": "Network load",
        "fullback.report.page": "explain",
        "fullback.passes": "Trace",
        "fullback.threshold": "Threshold",
        "fullback.training.callbacks": "Callback EarlyStopping",
        "fullback.training.fit": "fit",
        "fullback.training.history": "Epoch History",
        "fullback.training.optimizers": "SGD Adam AdamW",
        "fullback.training.rate_finder": "find_rate",
    }
    _HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name):
        if name == "__version__":
            value = _version()
        elif name in _MODULES:
            value = importlib.import_module(_MODULES[name])
        elif name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        else:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}",
                name=name,
                obj=sys.modules[__name__],
            )
        globals()[name] = value
        return value

    def _version():
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("fullback")
        except PackageNotFoundError:  # the sources alone, that were not installed
            return "0+unknown"

    def __dir__():
        return sorted(__all__)


__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Augment",
    "AvgPool2D",
    "BatchNorm2D",
    "BinaryCrossEntropy",
    "CNNClassifier",
    "CNNRegressor",
    "Callback",
    "Conv2D",
    "DataError",
    "Dataset",
    "DeadUnitWarning",
    "Dense",
    "Diagnosis",
    "DivergenceError",
    "DownloadError",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "Finding",
    "Flatten",
    "FullbackError",
    "FullbackWarning",
    "GlobalAvgPool2D",
    "GradientCheck",
    "History",
    "InputError",
    "LayerCheck",
    "LeakyReLU",
    "MaxPool2D",
    "MeanSquaredError",
    "ModelFileError",
    "Network",
    "Normalize",
    "NotEnoughMemoryError",
    "OptionError",
    "RankError",
    "ReLU",
    "ShapeError",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Tanh",
    "Threshold",
    "Trace",
    "check_gradients",
    "check_layer",
    "diagnose",
    "diagnose_program",
    "explain",
    "find_rate",
    "fit",
    "load",
    "load_data",
    "load_estimator",
    "probe",
    "save",
    "schedules",
    "unpack_data",
    "zoo",
]
