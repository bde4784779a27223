"""Small convolutional networks on a CPU, with a backward pass you can read, check and see.

All but the errors is imported when it is first used.
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
    OptionError,
    ShapeError,
)

if TYPE_CHECKING:
    from fullback import zoo
    from fullback.data import Dataset, load_data
    from fullback.export.safetensors import load, save
    from fullback.layers import (
        AvgPool2D,
        BatchNorm2D,
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
    from fullback.network import Network
    from fullback.passes import Trace
    from fullback.training import schedules
    from fullback.training.fit import fit
    from fullback.training.history import History
    from fullback.training.optimizers import SGD, Adam, AdamW
else:  # the same imports, each when its name is first used
    import importlib
    import sys

    _MODULES = {"schedules": "fullback.training.schedules", "zoo": "fullback.zoo"}
    _NAMES = {
        "fullback.data": "Dataset load_data",
        "fullback.export.safetensors": "load save",
        "fullback.layers": """
            AvgPool2D BatchNorm2D Conv2D Dense Dropout Flatten GlobalAvgPool2D LeakyReLU MaxPool2D
            MeanSquaredError Normalize ReLU Sigmoid SoftmaxCrossEntropy Tanh""",
        "fullback.network": "Network",
        "fullback.passes": "Trace",
        "fullback.training.fit": "fit",
        "fullback.training.history": "History",
        "fullback.training.optimizers": "SGD Adam AdamW",
    }
    _HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name):
        if name in _MODULES:
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

    def __dir__():
        return sorted(__all__)


__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2D",
    "BatchNorm2D",
    "Conv2D",
    "DataError",
    "Dataset",
    "DeadUnitWarning",
    "Dense",
    "DivergenceError",
    "DownloadError",
    "Dropout",
    "Flatten",
    "FullbackError",
    "FullbackWarning",
    "GlobalAvgPool2D",
    "History",
    "InputError",
    "LeakyReLU",
    "MaxPool2D",
    "MeanSquaredError",
    "ModelFileError",
    "Network",
    "Normalize",
    "OptionError",
    "ReLU",
    "ShapeError",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Tanh",
    "Trace",
    "fit",
    "load",
    "load_data",
    "save",
    "schedules",
    "zoo",
]
