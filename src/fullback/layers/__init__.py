"""The layers: one page each, with its formula and its forward and backward pass in NumPy."""

from fullback.layers.activation import LeakyReLU as LeakyReLU
from fullback.layers.activation import ReLU as ReLU
from fullback.layers.activation import Sigmoid as Sigmoid
from fullback.layers.activation import Tanh as Tanh
from fullback.layers.base import Layer as Layer
from fullback.layers.conv import Conv2D as Conv2D
from fullback.layers.dense import Dense as Dense
from fullback.layers.dense import Flatten as Flatten
from fullback.layers.dropout import Dropout as Dropout
from fullback.layers.loss import Loss as Loss
from fullback.layers.loss import MeanSquaredError as MeanSquaredError
from fullback.layers.loss import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from fullback.layers.norm import BatchNorm2D as BatchNorm2D
from fullback.layers.norm import Normalize as Normalize
from fullback.layers.pool import AvgPool2D as AvgPool2D
from fullback.layers.pool import GlobalAvgPool2D as GlobalAvgPool2D
from fullback.layers.pool import MaxPool2D as MaxPool2D

LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        Conv2D,
        MaxPool2D,
        AvgPool2D,
        GlobalAvgPool2D,
        Flatten,
        Dense,
        ReLU,
        LeakyReLU,
        Sigmoid,
        Tanh,
        Dropout,
        BatchNorm2D,
        Normalize,
    )
}
"""Every layer by its kind: the word that stands for it in names, in the text form and in files."""

LOSSES: dict[str, type[Loss]] = {
    loss.kind: loss for loss in (SoftmaxCrossEntropy, MeanSquaredError)
}
"""Every loss by its kind: the word that stands for it in files."""
