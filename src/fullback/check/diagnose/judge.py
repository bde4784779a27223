"""Which mistake a hand-written backward pass has: ``diagnose``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import ArrayLike

from fullback.check.diagnose.batch import images_of, labels_of, require_network
from fullback.check.diagnose.case import Case
from fullback.check.diagnose.containers import of_pytorch
from fullback.check.diagnose.forward import target_notes
from fullback.check.diagnose.reader import Given, Reduction
from fullback.check.diagnose.report import Diagnosis
from fullback.check.diagnose.submission import OPEN, receive, refuse_even
from fullback.errors import OptionError
from fullback.network import Network
from fullback.passes import Seed, Trace, trace_batch


def diagnose(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    gradients: Any = None,
    deltas: Mapping[str, Any] | None = None,
    activations: Mapping[str, Any] | None = None,
    probabilities: Any = None,
    *,
    weights: Any = None,
    after: Any = None,
    lr: float | None = None,
    reduction: Reduction | None = None,
    l2: float = 0.0,
    convolution: Literal["correlation", "true"] = "correlation",
    training: bool = True,
    seed: Seed = 0,
) -> Diagnosis:
    """Say which mistake, if any, a hand-written backward pass has, and where.

    Submit what your own program computed for the same weights, images and labels: any part of
    it. The more deltas there are, the more exactly each layer is judged alone.

    Parameters
    ----------
    net : the network, with the weights that the program had, unless ``weights`` are given
    x, y : images and labels, as for ``Network.trace``, or as the program has them: (N, H, W) or
        (H, W) for one channel, (N, H, W, C), flat; labels may be one-hot
    gradients : dL/dp by parameter: "conv1.weight", or what resembles it: "W1", "fc1.weight", "db2";
        a dict, of dicts too, a list, an object with attributes, or one vector of all
    deltas : dL/d output by layer, and dL/d images as "input", of shape (N, *output_shape)
    activations : outputs by layer
    probabilities : softmax of the logits, or their sigmoids, of shape (N, outputs)
    weights : the program's weights, in its own names and layout, as ``gradients``. The network is
        judged with them, and gradients must have their layout
    after : its weights after one step from these, in place of gradients, which are (weights -
        after) / lr
    lr : the learning rate of that step; None where it is not known
    reduction : whether the loss is the batch's "mean" or "sum"; None where either is right
    l2 : the coefficient a of a penalty a / 2 |w|^2 on the weights that their gradients hold
    convolution : "true" where the program turns its filters on the way forward
    training, seed : as for ``Network.trace``

    Arrays may be of NumPy, PyTorch or JAX, of any float type. Without ``weights``, gradients in
    other orders of axes that programs usually have are recognised.

    Returns
    -------
    a Diagnosis: ``.findings``, the most important first, ``.ok``, ``.right``, ``.not_judged``;
    ``print`` shows it

    Raises
    ------
    OptionError
        Nothing was submitted, a name is not known, or an option makes no sense. Or the shapes of
        ``weights`` leave open how they lie, and nothing that was submitted confirms one layout.
    ShapeError, InputError
        An array, or x or y, does not fit.
    """
    require_network("diagnose", net)
    given = Given(
        gradients, deltas, activations, probabilities, weights, after, lr, reduction, l2,
        convolution, training, seed, decays=of_pytorch(after),
    )  # fmt: skip
    if lr is not None and after is None:
        raise OptionError("lr is the learning rate of a step: give after, the weights behind it")
    return judged(net, x, y, given)


def judged(net: Network, x: Any, y: Any, given: Given) -> Diagnosis:
    """Return the diagnosis of what a user gave; raise as ``diagnose`` does."""
    case, form = case_of(net, x, y, given)
    submission = case.submission
    if given.after is not None:
        refuse_even(m.readings[0].values for m in submission.gradients.values())
    if form not in ("NCHW", "CHW") and len(net.input_shape) == 3:
        submission.notes.append(f"the images were read as ({', '.join(form)})")
    submission.notes += target_notes(net, y)
    found = case.diagnosis()
    assumed = [note for note in submission.notes if note.startswith(OPEN)]
    if assumed and any(finding.mistake is None for finding in found.findings):
        raise OptionError(
            f"{OPEN}, so that nothing can be said of what is wrong. Either all is wrong from the "
            "loss on, or the program has other images than x (one that scales them itself, as by "
            "1 / 255?), other layers or another loss than net. fb.diagnose takes its probabilities "
            "and activations too, which tell"
        )
    return found


def case_of(net: Network, x: Any, y: Any, given: Given) -> tuple[Case, str]:
    """Return what is to be judged of a batch and what a user gave, and the form of the images.

    Raises
    ------
    OptionError, ShapeError, InputError
        As for ``diagnose``.
    """
    images, form = images_of(net, x)
    targets = net.loss.targets(labels_of(net, y, len(images)), len(images), net.output_shape[0])
    given = replace(given, channels_last=form in ("NHWC", "HWC", "HWCN"))

    def traced(net: Network) -> Trace:
        return trace_batch(net, images, targets, None, training=given.training, seed=given.seed)

    net, trace, submission = receive(net.copy(dtype="float64"), len(images), given, traced)
    return Case(net, images, targets, trace, submission, given), form
