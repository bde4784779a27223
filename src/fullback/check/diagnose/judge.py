"""Which mistake a hand-written backward pass has: ``diagnose``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.diagnose.compare import length, precision
from fullback.check.diagnose.conditions import conditions, not_finite
from fullback.check.diagnose.ensemble import Worlds, build_worlds
from fullback.check.diagnose.findings import explain
from fullback.check.diagnose.forward import check_forward
from fullback.check.diagnose.layouts import Matched
from fullback.check.diagnose.report import Diagnosis, Finding
from fullback.check.diagnose.search import NARROW, UNEXPLAINED, WIDE, Hypothesis, Search
from fullback.check.diagnose.settings import other_setting
from fullback.check.diagnose.submission import Given, Taken, take
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Seed, Trace, trace_batch

_SINGLE = 2.0**-23
_BETWEEN = (1e-9, 1e-5)  # relative errors that double precision does not make, and single does
_NAMES = {2.0**-52: "float64", _SINGLE: "float32", 2.0**-10: "float16"}


def diagnose(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    gradients: Mapping[str, Any] | None = None,
    deltas: Mapping[str, Any] | None = None,
    activations: Mapping[str, Any] | None = None,
    probabilities: Any = None,
    *,
    training: bool = True,
    seed: Seed = 0,
) -> Diagnosis:
    """Say which mistake, if any, somebody's backward pass has, and where.

    Hand over what their own program computed for the same weights, images and labels: any part of
    it. The more deltas there are, the more exactly each layer is judged alone.

    Parameters
    ----------
    net : the network, with the weights that their program had
    x, y : images and labels, as for ``Network.trace``
    gradients : dL/dp by parameter: "conv1.weight", or what resembles it: "W1", "fc1.weight", "db2"
    deltas : dL/d output by layer, and dL/d images as "input", of shape (N, *output_shape)
    activations : outputs by layer
    probabilities : softmax of the logits, of shape (N, classes)
    training, seed : as for ``Network.trace``

    Arrays may be of NumPy, PyTorch or JAX, of any float type. Other orders of axes are recognised.

    Returns
    -------
    a Diagnosis: ``.findings``, the most important first, ``.ok``, ``.right``; ``print`` shows it

    Raises
    ------
    OptionError
        Nothing was given, or a name is not known.
    ShapeError, InputError
        An array, or x or y, does not fit.
    """
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    double = net.copy(dtype="float64")
    trace = trace_batch(double, images, targets, None, training=training, seed=seed)
    taken = take(double, trace, len(images), gradients, deltas, activations, probabilities)
    return _judge(double, images, targets, trace, taken, training=training, seed=seed)


def _judge(
    net: Network,
    images: Array,
    targets: Array,
    trace: Trace,
    taken: Taken,
    *,
    training: bool,
    seed: Seed,
) -> Diagnosis:
    findings: list[Finding] = []
    wrong: list[str] = []
    usable: dict[str, Matched] = {}
    for name, matched in taken.every():
        if np.isfinite(matched.readings[0].values).all():
            usable[name] = matched
        else:
            findings.append(not_finite(name, matched.readings[0].values))
            wrong.append(name)
    given = Given(
        {name: m.readings for name, m in taken.gradients.items() if name in usable},
        {name: m.readings for name, m in taken.deltas.items() if f"delta of {name}" in usable},
    )
    activations = {
        name: m.readings[0].values
        for name, m in taken.activations.items()
        if f"output of {name}" in usable
    }
    probabilities = (
        usable["probabilities"].readings[0].values if "probabilities" in usable else None
    )
    arrays = [m.readings[0].values.astype(m.dtype) for m in usable.values() if m.dtype.kind == "f"]

    def worlds_at(eps: float) -> Worlds:
        return build_worlds(
            net, images, targets, eps, activations, probabilities,
            training=training, seed=seed,
            deltas={name: readings[0].values for name, readings in given.deltas.items()},
        )  # fmt: skip

    eps = precision(arrays)
    if not (findings or activations or probabilities is not None):
        plain = Search(worlds_at(eps), net.names, given, 0).run()[0]
        setting = plain.open and other_setting(
            net, images, targets, given, eps, training=training, seed=seed
        )
        if setting:
            return Diagnosis(
                findings=[setting, *conditions(net, images, trace)],
                right=[seen.name for seen in plain.seen],
                wrong=list(plain.open),
                layers=[*reversed(net.names), "input"],
                notes=_layout_notes(taken, plain, usable),
                precision=_NAMES[eps],
            )
    best: tuple[float, Worlds, list[Hypothesis], Search] | None = None
    outcome: tuple[list[Finding], list[str]] = ([], [])
    for attempt in _precisions(eps, given, trace):
        worlds = worlds_at(attempt)
        forward, right = check_forward(worlds, net.names, activations, probabilities)
        search, found = _search(worlds, net.names, given)
        cost = found[0].cost + UNEXPLAINED * len(forward)
        if best is None or cost < best[0] - 0.5:
            best = (cost, worlds, found, search)
            outcome = forward, right
        if not forward and not found[0].open:
            break
    assert best is not None  # noqa: S101 -- the loop ran
    _, worlds, found, search = best
    forward, right = outcome
    told = explain(search, found, trace, given, more=bool(findings or forward))
    notes = _layout_notes(taken, found[0], usable)
    if worlds.eps > eps:
        notes.append(
            f"the arrays are {_NAMES[eps]}, but agree no better than {_NAMES[worlds.eps]} does: "
            "somewhere they were computed in it"
        )
    if search.pruned and found[0].open:
        notes.append(
            "there were too many possible pairs of mistakes to try them all; fewer images, or more "
            "deltas, make the search complete"
        )
    if worlds.kinks:
        where = ", ".join(f"{count} in {name}" for name, count in worlds.kinks.items())
        notes.append(
            f"rounding alone decides about some units ({where}): a ReLU's input that is next to 0, "
            "or a tie in a pooling window. There either answer was taken as right"
        )
    count = len(wrong) + len(told.wrong) + len(forward)
    zeros = all(not matched.readings[0].values.any() for matched in usable.values())
    if (
        not zeros
        and not any(finding.mistake for finding in told.findings)
        and (len(forward) > 1 or 2 * count >= max(len(usable), 3))
    ):
        notes.append(
            "so much is wrong by itself that the two may not have had the same layers, weights, "
            "images or labels: net.parameters must hold the weights that the program had"
        )
    findings += forward + told.findings
    wrong += [finding.evidence.array for finding in forward]
    findings += conditions(net, images, trace)
    return Diagnosis(
        findings=findings,
        right=right + told.right,
        inherited=told.inherited,
        wrong=wrong + told.wrong,
        layers=[*reversed(net.names), "input"],
        notes=notes + told.notes,
        precision=_NAMES[worlds.eps],
    )


def _precisions(eps: float, given: Given, trace: Trace) -> tuple[float, ...]:
    """Return the precisions to judge in, one after the other, until everything is explained.

    Doubles that are nearly right, but not as nearly as doubles are, come from single precision.
    """
    if eps >= _SINGLE:
        return (eps,)
    pairs = [(r.values, trace.gradients[k]) for k, rs in given.gradients.items() for r in rs]
    pairs += [(r.values, trace.deltas[k]) for k, rs in given.deltas.items() for r in rs]
    errors = [length(theirs - right) / (length(right) or 1.0) for theirs, right in pairs]
    low, high = _BETWEEN
    return (_SINGLE,) if any(low < error < high for error in errors) else (eps, _SINGLE)


def _search(
    worlds: Worlds, names: tuple[str, ...], given: Given
) -> tuple[Search, list[Hypothesis]]:
    """Search for a right backward pass, then with one new mistake a stretch, then with two."""
    best: tuple[Search, list[Hypothesis]] | None = None
    for depth, margin, enough in ((0, NARROW, 0.5), (1, NARROW, 1.7), (1, WIDE, 9.0), (2, WIDE, 0)):
        settled = best[1][0] if best is not None and margin == WIDE else None
        search = Search(worlds, names, given, depth, margin, settled)
        found = search.run()
        if best is None or found[0].cost < best[1][0].cost:
            best = search, found
        if not best[1][0].open and best[1][0].cost <= enough:
            break
    assert best is not None  # noqa: S101 -- the loop ran
    return best


def _layout_notes(taken: Taken, best: Hypothesis, usable: dict[str, Matched]) -> list[str]:
    """Say how names and shapes were read, where that is not plain."""
    chosen = dict(best.read)
    notes, turned = [], []
    for name, matched in usable.items():
        layout = chosen.get(name, matched.readings[0]).layout
        if layout == "transposed":
            turned.append(matched.theirs)
        elif layout:
            notes.append(f"{matched.theirs} was read as {name} {layout}")
    if turned:
        notes.append(
            f"{', '.join(turned)} came as (inputs, outputs) and was read transposed: a convention"
        )
    if taken.guessed:
        notes.append(f"matched by shape alone: {', '.join(taken.guessed)}")
    return notes
