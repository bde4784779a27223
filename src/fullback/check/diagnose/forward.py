"""The forward pass of theirs, where they gave activations or probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.describe import describe
from fullback.check.diagnose.ensemble import Worlds, forward_noise
from fullback.check.diagnose.report import Evidence, Finding
from fullback.layers.base import Array
from fullback.passes import softmax


def check_forward(
    worlds: Worlds,
    names: Sequence[str],
    activations: Mapping[str, Array],
    probabilities: Array | None,
) -> tuple[list[Finding], list[str]]:
    """Return what is wrong in their forward pass, and the names of what is right.

    Each layer is judged by what it makes of the input that they gave, or, where they gave none, of
    what follows from the one above it.
    """
    findings, right = [], []
    for name in ("input", *names):
        if name not in activations:
            continue
        theirs = activations[name]
        if name == "input":
            continue
        scene = worlds.true.scenes[name]
        spread = [length(w.scenes[name].y - scene.y) for w in worlds.noisy]
        own = forward_noise(worlds.absolute.scenes[name], scene.y, worlds.eps)
        tolerance = 6 * (max(spread) + (0.0 if own is None else length(own)))
        tolerance += worlds.eps * length(scene.y)
        error = length(theirs - scene.y)
        if error <= tolerance:
            right.append(f"output of {name}")
        else:
            findings.append(_wrong(name, "output", theirs, scene.y))
    if probabilities is not None:
        logits = worlds.true.loss.logits
        wanted = softmax(logits)
        spread = [length(softmax(w.loss.logits) - wanted) for w in worlds.noisy]
        tolerance = 6 * max(spread) + 8 * worlds.eps * wanted.size**0.5
        if length(probabilities - wanted) <= tolerance:
            right.append("probabilities")
        else:
            findings.append(_wrong_probabilities(probabilities, wanted, logits))
    return findings, right


def _wrong(name: str, quantity: str, theirs: Array, wanted: Array) -> Finding:
    relative = length(theirs - wanted) / max(length(wanted), 1e-300)
    axes = "images channels rows columns" if theirs.ndim == 4 else "images features"
    said = "; ".join(describe(theirs, wanted, axes))
    return Finding(
        None,
        name,
        quantity,
        exact=False,
        evidence=Evidence(
            f"output of {name}", relative, None, f"{relative:.2g} off in relative terms: {said}"
        ),
        message=f"The forward pass is wrong at {name}: from the input that it had, another output "
        "follows. The backward pass below was judged with their output, as their program goes on.",
        expect="Mend this first: whatever lies behind it changes with it.",
    )


def _wrong_probabilities(theirs: Array, wanted: Array, logits: Array) -> Finding:
    relative = length(theirs - wanted) / length(wanted)
    columns = np.exp(logits - logits.max(axis=0))
    columns = columns / columns.sum(axis=0)
    exponentials = np.exp(logits)
    sigmoid = 1 / (1 + np.exp(-logits))
    said = "; ".join(describe(theirs, wanted, "images classes"))
    for other, what in (
        (columns, "the softmax was taken over the images, down the columns, not over the classes"),
        (exponentials, "the exponentials were not divided by their sum"),
        (np.log(wanted), "they are the logarithms of the right ones"),
        (logits, "they are the logits: no softmax was taken"),
        (sigmoid, "they are sigmoids, each class for itself, and do not sum to 1"),
        (softmax(wanted), "the softmax was taken twice"),
    ):
        if length(theirs - other) <= 1e-5 * length(other):
            said = what
    return Finding(
        None,
        "loss",
        "probabilities",
        exact=False,
        evidence=Evidence("probabilities", relative, None, said),
        message=f"The probabilities are not the softmax of the logits: {said}.",
        mend="p[n, k] = exp(x[n, k]) / sum over j of exp(x[n, j])",
        hint="e = np.exp(x - x.max(axis=1, keepdims=True))\np = e / e.sum(axis=1, keepdims=True)",
        expect="Everything below follows from them.",
    )
