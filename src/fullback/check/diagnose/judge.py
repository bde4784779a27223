"""Which mistake a hand-written backward pass has: ``diagnose``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from fullback.check.diagnose.case import Case
from fullback.check.diagnose.conventions import Reduction
from fullback.check.diagnose.report import Diagnosis
from fullback.check.diagnose.submission import receive
from fullback.errors import OptionError
from fullback.network import Network
from fullback.options import shown
from fullback.passes import Seed, trace_batch


def diagnose(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    gradients: Mapping[str, Any] | None = None,
    deltas: Mapping[str, Any] | None = None,
    activations: Mapping[str, Any] | None = None,
    probabilities: Any = None,
    *,
    reduction: Reduction | None = None,
    training: bool = True,
    seed: Seed = 0,
) -> Diagnosis:
    """Say which mistake, if any, a hand-written backward pass has, and where.

    Submit what your own program computed for the same weights, images and labels: any part of
    it. The more deltas there are, the more exactly each layer is judged alone.

    Parameters
    ----------
    net : the network, with the weights that the program had
    x, y : images and labels, as for ``Network.trace``
    gradients : dL/dp by parameter: "conv1.weight", or what resembles it: "W1", "fc1.weight", "db2"
    deltas : dL/d output by layer, and dL/d images as "input", of shape (N, *output_shape)
    activations : outputs by layer
    probabilities : softmax of the logits, of shape (N, classes)
    reduction : what the program minimises: the batch's "mean" or its "sum"; None where either is
        right
    training, seed : as for ``Network.trace``

    Arrays may be of NumPy, PyTorch or JAX, of any float type. Other orders of axes are recognised.

    Returns
    -------
    a Diagnosis: ``.findings``, the most important first, ``.ok``, ``.right``, ``.not_judged``;
    ``print`` shows it

    Raises
    ------
    OptionError
        Nothing was submitted, or a name is not known.
    ShapeError, InputError
        An array, or x or y, does not fit.
    """
    if reduction not in (None, "mean", "sum"):
        raise OptionError(f"reduction must be 'mean', 'sum' or None, got {shown(reduction)}")
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    double = net.copy(dtype="float64")
    trace = trace_batch(double, images, targets, None, training=training, seed=seed)
    submission = receive(double, trace, len(images), gradients, deltas, activations, probabilities)
    case = Case(double, images, targets, trace, submission, reduction, training, seed)
    return case.diagnosis()
