"""The layers: one page each, with its formula and its forward and backward pass in NumPy.

``base.py`` says what a layer is and has the notation; ``text.py`` reads and writes layers as words,
``window.py`` is what convolution and pooling share. Another layer is a class on a page, named in
``LAYERS``, with cases in the tests; the lane engine, the doctor's mistakes and the page's formulas
each take it up in a place of their own; ``CONTRIBUTING.md`` lists them. Begin with ``dense.py``,
then ``conv.py``.
"""

from fullback.layers.activation import LeakyReLU, ReLU, Sigmoid, Tanh
from fullback.layers.base import Layer
from fullback.layers.conv import Conv2D
from fullback.layers.dense import Dense, Flatten
from fullback.layers.dropout import Dropout
from fullback.layers.loss import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from fullback.layers.norm import BatchNorm2D, Normalize
from fullback.layers.pool import AvgPool2D, GlobalAvgPool2D, MaxPool2D

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
    loss.kind: loss for loss in (SoftmaxCrossEntropy, BinaryCrossEntropy, MeanSquaredError)
}
"""Every loss by its kind: the word that stands for it in files."""

__all__ = [
    "LAYERS",
    "LOSSES",
    "AvgPool2D",
    "BatchNorm2D",
    "BinaryCrossEntropy",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "Layer",
    "LeakyReLU",
    "Loss",
    "MaxPool2D",
    "MeanSquaredError",
    "Normalize",
    "ReLU",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Tanh",
]
