"""The user's forward pass, where activations or probabilities were submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.describe import describe
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.report import Evidence, Finding
from fullback.check.mistakes import rules_of
from fullback.layers.base import Array
from fullback.passes import softmax


def check_forward(
    ensemble: Ensemble,
    names: Sequence[str],
    activations: Mapping[str, Array],
    probabilities: Array | None,
) -> tuple[list[Finding], list[str]]:
    """Return what is wrong in the forward pass, and the names of what is right.

    Each layer is judged by what it computes from the input that was submitted, or, where none was,
    from what follows from the one above it.
    """
    findings, right = [], []
    for name in names:
        if name not in activations:
            continue
        submitted, p = activations[name], ensemble.exact.layers[name]
        spread = [length(noisy.layers[name].y - p.y) for noisy in ensemble.noisy]
        noise = rules_of(p.layer).noise(ensemble.absolute.layers[name], p.y, ensemble.eps)
        tolerance = 6 * (max(spread) + (0.0 if noise is None else length(noise)))
        tolerance += ensemble.eps * length(p.y)
        if length(submitted - p.y) <= tolerance:
            right.append(f"output of {name}")
        else:
            findings.append(_wrong(name, "output", submitted, p.y))
    if probabilities is not None:
        logits = ensemble.exact.loss.logits
        expected = softmax(logits)
        spread = [length(softmax(noisy.loss.logits) - expected) for noisy in ensemble.noisy]
        tolerance = 6 * max(spread) + 8 * ensemble.eps * expected.size**0.5
        if length(probabilities - expected) <= tolerance:
            right.append("probabilities")
        else:
            findings.append(_wrong_probabilities(probabilities, expected, logits))
    return findings, right


def _wrong(name: str, quantity: str, submitted: Array, expected: Array) -> Finding:
    relative = length(submitted - expected) / max(length(expected), 1e-300)
    axes = "images channels rows columns" if submitted.ndim == 4 else "images features"
    words = "; ".join(describe(submitted, expected, axes))
    return Finding(
        None,
        name,
        quantity,
        exact=False,
        evidence=Evidence(
            f"output of {name}", relative, None, f"{relative:.2g} off in relative terms: {words}"
        ),
        message=f"The forward pass is wrong at {name}: from the input that it had, another output "
        "follows. The backward pass below was judged with the "
        "submitted output, as the program goes on.",
        expect="Fix this first: whatever lies behind it changes with it.",
    )


def _wrong_probabilities(submitted: Array, expected: Array, logits: Array) -> Finding:
    relative = length(submitted - expected) / length(expected)
    columns = np.exp(logits - logits.max(axis=0))
    columns = columns / columns.sum(axis=0)
    exponentials = np.exp(logits)
    sigmoid = 1 / (1 + np.exp(-logits))
    words = "; ".join(describe(submitted, expected, "images classes"))
    for other, what in (
        (columns, "the softmax was taken over the images, down the columns, not over the classes"),
        (exponentials, "the exponentials were not divided by their sum"),
        (np.log(expected), "they are the logarithms of the right ones"),
        (logits, "they are the logits: no softmax was taken"),
        (sigmoid, "they are sigmoids, each class for itself, and do not sum to 1"),
        (softmax(expected), "the softmax was taken twice"),
    ):
        if length(submitted - other) <= 1e-5 * length(other):
            words = what
    return Finding(
        None,
        "loss",
        "probabilities",
        exact=False,
        evidence=Evidence("probabilities", relative, None, words),
        message=f"The probabilities are not the softmax of the logits: {words}.",
        mend="p[n, k] = exp(x[n, k]) / sum over j of exp(x[n, j])",
        hint="e = np.exp(x - x.max(axis=1, keepdims=True))\np = e / e.sum(axis=1, keepdims=True)",
        expect="Everything below follows from them.",
    )
