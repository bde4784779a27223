"""Settings in which a user's program may differ from the network: its backward pass is then right.

Another one is a ``Setting`` that ``_settings`` yields.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.diagnose.report import Evidence, Finding
from fullback.check.diagnose.submission import Submitted
from fullback.check.diagnose.weights import turn_filters
from fullback.check.mistakes import MISTAKES, rules_of
from fullback.layers import Conv2D, Dense, Flatten
from fullback.layers.base import Array
from fullback.network import Network


@dataclass(frozen=True, eq=False)
class Setting:
    """A network that a program may have computed, with what was submitted brought to it.

    ``finding`` says what is wrong then; None for another right way, which ``note`` tells.
    """

    net: Network
    training: bool
    submitted: Submitted
    finding: Finding | None
    note: str = ""


def other_settings(net: Network, submitted: Submitted, *, training: bool) -> Iterator[Setting]:
    """Yield the settings in which what was submitted may be right."""
    layers = list(zip(net.names, net.layers, strict=True))
    modal = [name for name, one in layers if rules_of(one).modal and name not in net.frozen]
    if modal:
        yield Setting(net, not training, submitted, _other_mode(modal, training=training))
    filters = [f"{name}.weight" for name, one in layers if isinstance(one, Conv2D)]
    if any(max(net.parameters[key].shape[2:]) > 1 for key in filters):
        yield _true_convolution(net, submitted, filters, training)
    for index, (name, layer) in enumerate(layers):
        shape = (net.input_shape, *net.shapes)[index]
        if isinstance(layer, Flatten) and len(shape) == 3 and shape[0] > 1 < max(shape[1:]):
            behind = next((n for n, one in layers[index:] if isinstance(one, Dense)), None)
            if behind is not None:
                yield _channels_last(net, submitted, name, behind, shape, training)


def _other_mode(modal: list[str], *, training: bool) -> Finding:
    judged, computed = ("training", "prediction") if training else ("prediction", "training")
    flag = f"training={not training}"
    return Finding(
        None,
        modal[-1],
        "mode",
        exact=True,
        evidence=Evidence("", float("nan"), None, f"with {flag} every submitted array is right"),
        message=f"The arrays were computed in {computed}, and judged in {judged}: "
        f"{', '.join(modal)} computes otherwise in each, with batch statistics or running "
        "ones, with dropout or without.",
        mend=f"diagnose(net, x, y, ..., {flag}), if that is what was meant",
        expect=f"In the mode of {computed} everything is right.",
    )


def _changed(
    submitted: Submitted, names: Collection[str], change: Callable[[Array], Array]
) -> Submitted:
    """Return what was submitted with the arrays of these names changed."""
    return {
        name: tuple(replace(r, values=change(r.values)) for r in readings)
        if name in names
        else readings
        for name, readings in submitted.items()
    }


def _true_convolution(
    net: Network, submitted: Submitted, filters: list[str], training: bool
) -> Setting:
    """Return the network whose forward pass turns the filters, as one with turned weights."""
    turned = _changed(submitted, filters, lambda w: w[:, :, ::-1, ::-1])
    note = (
        "the forward pass turns the filters by 180 degrees here (a true convolution), and not in "
        "fullback (a correlation): both are right, and so judged"
    )
    return Setting(turn_filters(net), training, turned, None, note)


def _channels_last(
    net: Network,
    submitted: Submitted,
    flatten: str,
    dense: str,
    shape: tuple[int, ...],
    training: bool,
) -> Setting:
    """Return the network whose Flatten puts channels last, as one with other weights."""
    channels, rows, columns = shape
    # where each feature of the network is among the program's
    features = np.arange(channels * rows * columns).reshape(rows, columns, channels)
    order = features.transpose(2, 0, 1).ravel()
    other, weight = net.copy(dtype="float64"), f"{dense}.weight"
    other.parameters[weight] = net.parameters[weight][:, order]
    ordered = _changed(submitted, (weight, f"delta of {flatten}"), lambda a: a[:, order])
    mistake = MISTAKES["flatten-order"]
    finding = Finding(
        mistake.id,
        flatten,
        "output",
        exact=True,
        evidence=Evidence("", float("nan"), None, "so read, every submitted array is right"),
        message="Forwards and backwards, the maps were flattened in the order row, column, "
        f"channel, but the columns of {weight} are in the order channel, row, column: each feature "
        "met another feature's weight.",
        mend=mistake.mend,
        hint=f"w = w.reshape(-1, {channels}, {rows}, {columns})  # units, channels, rows, columns\n"
        "w = w.transpose(0, 2, 3, 1).reshape(len(w), -1)  # channels last\n"
        "# or flatten channels first: x.transpose(0, 3, 1, 2).reshape(N, -1)",
        expect="Everything is right.",
    )
    return Setting(other, training, ordered, finding)
