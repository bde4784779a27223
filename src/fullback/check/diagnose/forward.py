"""The user's forward pass, where activations or probabilities were submitted.

Every array is held against what follows from the one that was submitted before it, so that a wrong
layer is wrong once, and those behind it are judged by what they were given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.describe import describe
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.layouts import SubmittedArray
from fullback.check.diagnose.report import Evidence, Finding
from fullback.check.mistakes import LayerPass, rules_of
from fullback.check.mistakes.forward import forward_ways
from fullback.check.mistakes.forward_ways import Way
from fullback.layers import BatchNorm2D, Dropout, SoftmaxCrossEntropy
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Trace

_EXACTLY = 1e-5  # relative error up to which an array is what a mistake gives,
_NEARER = 1e-3  # and its share of the error without the mistake
_READS = 1e-2  # relative error from which on a layout does not explain an array


def check_forward(
    ensemble: Ensemble,
    names: Sequence[str],
    activations: Mapping[str, Array],
    probabilities: Array | None,
) -> tuple[list[Finding], list[str]]:
    """Return what is wrong in the forward pass, and the names of what is right.

    Parameters
    ----------
    ensemble : whose passes go on with the submitted activations
    names : the layers, from the input to the output
    activations, probabilities : what was submitted, in the network's names and shapes
    """
    findings, right, stretch = [], [], _Stretch([], ensemble)
    for name in names:
        stretch.layers.append(name)
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
            findings.append(stretch.finding(name, submitted, p.y))
        stretch = _Stretch([], ensemble)
    expected = ensemble.exact.loss.loss.probabilities(ensemble.exact.loss.logits)
    if probabilities is not None and expected is not None:
        others = [n.loss.loss.probabilities(n.loss.logits) for n in ensemble.noisy]
        spread = [length(other - expected) for other in others if other is not None]
        tolerance = 6 * max(spread) + 8 * ensemble.eps * expected.size**0.5
        if length(probabilities - expected) <= tolerance:
            right.append("probabilities")
        else:
            findings.append(stretch.finding("loss", probabilities, expected))
    return findings, right


def target_notes(net: Network, y: ArrayLike) -> list[str]:
    """Say how labels were taken by a loss that compares rows."""
    if isinstance(net.loss, SoftmaxCrossEntropy) or np.ndim(y) != 1 or net.output_shape[0] == 1:
        return []
    return [
        "the labels were taken as one-hot rows, 1 at the label and 0 elsewhere; rows of shape "
        "(N, outputs) can be given in place of them"
    ]


@dataclass(frozen=True)
class _Stretch:
    """The layers since the last submitted output, and the passes."""

    layers: list[str]
    ensemble: Ensemble

    def finding(self, name: str, submitted: Array, expected: Array) -> Finding:
        """Say what is wrong with the output of a layer, or with the probabilities ("loss")."""
        error, size = length(submitted - expected), length(expected)
        quantity, array = "output", f"output of {name}"
        if name == "loss":
            quantity = array = "probabilities"
        relative = error / max(size, 1e-300)
        found = self._named(name, submitted, min(_NEARER * error, _EXACTLY * length(submitted)))
        if found is None:
            words = "; ".join(describe(submitted, expected, _axes(submitted)))
            return Finding(
                None,
                name,
                quantity,
                exact=False,
                evidence=Evidence(
                    array, relative, None, f"{relative:.2g} off in relative terms: {words}"
                ),
                message=f"{self._where(name)} The backward pass below was judged with what was "
                "submitted, as the program goes on.",
                expect="Fix this first: whatever lies behind it changes with it.",
            )
        layer, way, after = found
        mistake = way.mistake
        return Finding(
            mistake.id,
            layer,
            quantity if layer == name else "output",
            exact=True,
            evidence=Evidence(
                array,
                relative,
                after,
                f"{array} is {relative:.2g} off in relative terms, and {after:.1g} off what this "
                "mistake gives",
            ),
            message=f"{mistake.sentence} The forward pass, {layer}: {way.description}.",
            mend=mistake.mend,
            hint=mistake.hint,
            expect="Fix this first: whatever lies behind it changes with it.",
        )

    def _named(self, name: str, submitted: Array, within: float) -> tuple[str, Way, float] | None:
        """Return the layer and the way in which a mistake of the stretch gives the array."""
        found: list[tuple[float, str, Way]] = []
        if name == "loss":
            for way, wrong in forward_ways(self.ensemble.exact.loss):
                found.append((length(submitted - wrong), "loss", way))
        for place, layer in enumerate(self.layers):
            for way, wrong in forward_ways(self.ensemble.exact.layers[layer]):
                output = self._onwards(self.layers[place + 1 :], wrong, name)
                found.append((length(submitted - output), layer, way))
        least = min((error for error, _, _ in found), default=float("inf"))
        if not least <= within:
            return None
        # of those that give the same but for rounding, the first, which is next to the array
        alike = 2 * least + 64 * self.ensemble.eps * length(submitted)
        error, layer, way = next(one for one in found if one[0] <= min(alike, within))
        return layer, way, error / max(length(submitted), 1e-300)

    def _onwards(self, layers: Sequence[str], output: Array, name: str) -> Array:
        """Return what the last layers of the stretch make of a wrong output."""
        with np.errstate(all="ignore"):
            for layer in layers:
                output = _rerun(self.ensemble.exact.layers[layer], output)
            if name != "loss":
                return output
            p = self.ensemble.exact.loss.loss.probabilities(output)
        assert p is not None  # noqa: S101 -- probabilities need a classifier
        return p

    def _where(self, name: str) -> str:
        """Say between which layers the mistake lies."""
        behind = [*self.layers, "the loss's probabilities"] if name == "loss" else self.layers
        if len(behind) == 1:
            return (
                f"The forward pass is wrong at {name}: from the input that it had, other values "
                "follow."
            )
        return (
            f"The forward pass is wrong at one of {', '.join(behind)}: from the values before "
            "them, other ones follow. Their outputs, one by one, would tell which."
        )


def _axes(array: Array) -> str:
    return "images channels rows columns" if array.ndim == 4 else "images features"


def _rerun(p: LayerPass, x: Array) -> Array:
    """Return the layer's output for another input, in the same mode and with the same mask."""
    if isinstance(p.layer, Dropout):
        return x if p.cache is None else x * p.cache
    active = isinstance(p.layer, BatchNorm2D) and p.cache[-1] is not None
    y: Array = p.layer.forward(x, p.parameters, training=active)[0]
    return y


# In which layout activations came -----------------------------------------------------------------


def read_activations(
    net: Network, trace: Trace, activations: Mapping[str, SubmittedArray]
) -> dict[str, SubmittedArray]:
    """Read every array in the layout in which it follows from the one before.

    Where it follows in none, its layer is wrong; then it is read as it leads to the next array, and
    in the layout of those before. The right values would not do: a wrong layer changes all that lie
    behind it.

    Parameters
    ----------
    net, trace : the network, and its right pass
    activations : the arrays by the network's names, each with all its readings
    """
    layers = {
        name: LayerPass(
            name, layer, trace.activations["input"], trace.activations[name], cache,
            net.arrays_of(name), {}, "",
        )
        for name, layer, cache in zip(net.names, net.layers, trace.kept, strict=True)
    }  # fmt: skip
    chosen: dict[str, SubmittedArray] = {}
    x = trace.activations["input"]
    for place, name in enumerate(("input", *net.names)):
        x = x if name == "input" else _rerun(layers[name], x)
        if name not in activations:
            continue
        m = activations[name]
        best = min(m.readings, key=lambda reading: _error(reading.values, x))
        if _error(best.values, x) > _READS and len(m.readings) > 1:
            behind = [layers[n] for n in net.names[place:]]
            usual = {c.readings[0].layout for c in chosen.values() if c.values.ndim == x.ndim}
            best = min(
                m.readings,
                key=lambda reading: (
                    _error_ahead(reading.values, behind, activations) > _READS,
                    reading.layout not in usual,
                ),
            )
        chosen[name] = replace(m, readings=(best,))
        x = best.values
    return chosen


def _error_ahead(
    x: Array, layers: Sequence[LayerPass], activations: Mapping[str, SubmittedArray]
) -> float:
    """Return how far the next submitted array is off what follows from an output, at best."""
    for p in layers:
        x = _rerun(p, x)
        if p.name in activations:
            return min(_error(reading.values, x) for reading in activations[p.name].readings)
    return float("inf")


def _error(array: Array, expected: Array) -> float:
    with np.errstate(all="ignore"):
        error = length(array - expected) / max(length(expected), 1e-300)
    return error if np.isfinite(error) else float("inf")
