"""What is wrong before any backward pass: dead units, equal filters, raw pixels, NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fullback.check.diagnose.report import Condition, Evidence, Finding, place_of
from fullback.check.mistakes import rules_of
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import listed
from fullback.passes import Trace

_RAW = 30.0  # pixels beyond this are not scaled


def not_finite(arrays: Mapping[str, Array], layers: Sequence[str]) -> list[Finding]:
    """Return the finding of submitted arrays that hold NaN or infinity, if there are any.

    ``layers`` are the network's, in order: the array next to the loss is named first.
    """
    if not arrays:
        return []

    order = ["loss", *reversed(layers), "input"]
    first, *others = sorted(arrays, key=lambda name: order.index(place_of(name)[0]))
    array = arrays[first]
    bad = int((~np.isfinite(array)).sum())
    kind = "NaN" if np.isnan(array).any() else "infinity"
    also = f", as do {listed(others)}" if others else ""
    return [
        Finding(
            None,
            place_of(first)[0],
            first,
            exact=True,
            evidence=Evidence(first, float("inf"), None, f"{bad} of {array.size} cells are {kind}"),
            message=f"{first} holds {kind}{also}, so that it cannot be judged. Exponentials "
            "overflow where softmax does not take its row's maximum off first, and logarithms of "
            "0, divisions by 0 and a learning rate that is too large end like this too.",
            mend="p[n, k] = exp(x[n, k] - max x[n]) / sum over j of exp(x[n, j] - max x[n])",
            hint="e = np.exp(x - x.max(axis=1, keepdims=True))\n"
            "p = e / e.sum(axis=1, keepdims=True)",
        )
    ]


def conditions(net: Network, x: Array, trace: Trace) -> list[Condition]:
    """Return what keeps the network itself from learning, whoever computes the gradients."""
    found: list[Condition] = []
    largest = float(abs(x).max())
    if x.dtype != np.uint8 and largest > _RAW:
        found.append(Condition(
            "input", "images",
            f"The images are not scaled, the largest pixel is {largest:.4g}: with pixels of 0 to "
            "255 the first steps are too large by orders of magnitude, and softmax saturates.",
            "x / 255", "x = x.astype(np.float32) / 255",
        ))  # fmt: skip
    for name, layer in zip(net.names, net.layers, strict=True):
        if rules_of(layer).weighs:
            w = net.parameters[f"{name}.weight"]
            if len(w) > 1 and (w == w[0]).all() and not _last(net, name):
                what = "zero" if not w.any() else "equal"
                found.append(Condition(
                    name, "initial weights",
                    f"{name} starts with weights that are all {what}, in all {len(w)} rows: each "
                    "of its units gets the same gradient as the others, and they remain equal.",
                    "w ~ normal(0, sqrt(2 / fan-in))",
                    "w = rng.normal(0, np.sqrt(2 / w[0].size), w.shape)",
                ))  # fmt: skip
        y = trace.activations[name]
        if layer.rectifies and not (y > 0).any():
            found.append(Condition(
                name, "output",
                f"{name} is dead on this batch: not one of {y[0].size} units is positive in "
                f"{len(y)} images, so nothing below it gets a gradient, in a right backward pass "
                "too.",
                "a smaller learning rate, weights of variance 2 / fan-in, biases of 0",
                "w = rng.normal(0, np.sqrt(2 / w[0].size), w.shape)\nb[:] = 0",
            ))  # fmt: skip
            break  # those behind it follow
    return found


def _last(net: Network, name: str) -> bool:
    owners = [n for n in net.names if f"{n}.weight" in net.parameters]
    return name == owners[-1] and not np.any(net.parameters[f"{name}.weight"])
