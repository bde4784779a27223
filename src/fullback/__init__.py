"""Small convolutional networks on a CPU, with a backward pass you can read, check and see."""

from fullback import zoo as zoo
from fullback.layers import AvgPool2D as AvgPool2D
from fullback.layers import BatchNorm2D as BatchNorm2D
from fullback.layers import Conv2D as Conv2D
from fullback.layers import Dense as Dense
from fullback.layers import Dropout as Dropout
from fullback.layers import Flatten as Flatten
from fullback.layers import GlobalAvgPool2D as GlobalAvgPool2D
from fullback.layers import LeakyReLU as LeakyReLU
from fullback.layers import MaxPool2D as MaxPool2D
from fullback.layers import MeanSquaredError as MeanSquaredError
from fullback.layers import Normalize as Normalize
from fullback.layers import ReLU as ReLU
from fullback.layers import Sigmoid as Sigmoid
from fullback.layers import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from fullback.layers import Tanh as Tanh
from fullback.network import Network as Network
from fullback.training.fit import fit as fit
from fullback.training.history import History as History
from fullback.training.optimizers import SGD as SGD
from fullback.training.optimizers import Adam as Adam
from fullback.training.optimizers import AdamW as AdamW
