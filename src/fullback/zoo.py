"""Named networks, a few lines each.

Every function takes the shape of an image, the number of classes, and Network's ``seed`` and
``dtype``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fullback.model import DType
from fullback.network import Network


def question(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """Two conv-ReLU-pool stages of one 3x3 filter each, then 49 units and the output."""
    text = f"conv1 relu pool conv1 relu pool flatten dense49 relu dense{classes}"
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


def small(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """Stack the same layers with 8 and 16 filters and 64 units."""
    text = f"conv8 relu pool conv16 relu pool flatten dense64 relu dense{classes}"
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


def wide(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """Stack the same layers with 32 and 64 filters and 128 units."""
    text = f"conv32 relu pool conv64 relu pool flatten dense128 relu dense{classes}"
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


def deep(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """Three stages of two 3x3 convolutions with batch normalisation, of 16, 32 and 64 filters."""
    stages = [" ".join([f"conv{k}(bias=false) batchnorm relu"] * 2) for k in (16, 32, 64)]
    text = f"{' pool '.join(stages)} flatten dropout0.4 dense{classes}"
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


def compact(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """Fit images of any size: convolutions with batch normalisation, then each map's average.

    The images are normalised; pools halve them until about 8 rows or columns are left, with a
    convolution before each and one behind them, of 16, 32 and then 64 filters. Batch normalisation
    keeps units alive from any seed, and the averages in place of dense layers keep few images from
    being learned by heart.
    """
    side = min(input_shape[-2:])
    pools = min(max(0, round(math.log2(side / 8))), 5) if side >= 8 else 0
    words = ["normalize"]
    for stage in range(max(pools, 2) + 1):
        filters = min(16 * 2**stage, 64)
        words.append(f"conv{filters}(bias=false) batchnorm relu" + " pool" * (stage < pools))
    text = f"{' '.join(words)} globalavgpool dense{classes}"
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


def lenet1(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """LeNet-1 of LeCun et al., Gradient-based learning applied to document recognition (1998).

    As there: 4 maps of 5x5 filters, averages, 12 maps of 5x5 filters, averages, output. Unlike
    there: every map of the second convolution sees all four maps below, the averages have no
    weights of their own, and the output is a softmax.
    """
    text = (
        "conv4(kernel_size=5, padding=valid) tanh avgpool "
        f"conv12(kernel_size=5, padding=valid) tanh avgpool flatten dense{classes}"
    )
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


def lenet5(
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    *,
    seed: int = 0,
    dtype: DType = "float32",
) -> Network:
    """LeNet-5 of LeCun et al., Gradient-based learning applied to document recognition (1998).

    As there: 28x28 images padded to 32x32, 6, 16 and 120 maps of 5x5 filters with averages
    between, 84 units, output. Unlike there: every map sees all maps below, the averages have no
    weights of their own, tanh is not scaled, and the output is a softmax in place of radial basis
    functions.
    """
    text = (
        "conv6(kernel_size=5, padding=2) tanh avgpool "
        "conv16(kernel_size=5, padding=valid) tanh avgpool "
        f"conv120(kernel_size=5, padding=valid) tanh flatten dense84 tanh dense{classes}"
    )
    return Network.parse(text, input_shape, seed=seed, dtype=dtype)


NETWORKS: dict[str, Callable[..., Network]] = {
    network.__name__: network for network in (question, lenet1, lenet5, small, wide, deep, compact)
}
"""Every network of the zoo by its name."""
