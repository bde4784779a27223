"""Small convolutional networks on a CPU, with a backward pass you can read, check and see."""

from fullback import zoo
from fullback.data import Dataset, load_data
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
