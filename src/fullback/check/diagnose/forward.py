"""The user's forward pass, where activations or probabilities were submitted.

Every array is held against what follows from the one that was submitted before it, so that a wrong
layer is wrong once, and those behind it are judged by what they were given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.describe import difference, off_by, share
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.layouts import SubmittedArray
from fullback.check.diagnose.report import Evidence, Finding
from fullback.check.mistakes import ForwardPass, LayerPass, rules_of
from fullback.check.mistakes.forward import forward_ways
from fullback.check.mistakes.forward_ways import Way
from fullback.layers import BatchNorm2D, Dropout, SoftmaxCrossEntropy
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Trace

_EXACTLY = 1e-5  # relative error up to which an array is what a mistake gives,
_NEARER = 1e-3  # and its share of the error without the mistake
_FIRST = "Fix this first: whatever lies behind it changes with it."
_JUDGED = "The backward pass was judged with what was submitted, where the program goes on with it."
_READS = 1e-2  # relative error from which on a layout does not explain an array


@dataclass(frozen=True)
class ForwardVerdict:
    """What was found in a forward pass.

    Attributes
    ----------
    findings : what is wrong
    right : names of the arrays that are right
    assumed : by the layer's name, outputs that were not submitted, as a named mistake gives them
    notes : by which forward pass the backward pass was judged, where not by what was submitted
    """

    findings: list[Finding] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    assumed: dict[str, Array] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@np.errstate(all="ignore")
def check_forward(
    ensemble: Ensemble,
    names: Sequence[str],
    activations: Mapping[str, Array],
    probabilities: Array | None,
    own: Callable[[], Ensemble],
) -> ForwardVerdict:
    """Judge the submitted forward pass.

    What does not follow from what was submitted before it, but is the network's own, is right: the
    program did not go on with the wrong one.

    Parameters
    ----------
    ensemble : whose passes go on with the submitted activations
    names : the layers, from the input to the output
    activations, probabilities : what was submitted, in the network's names and shapes
    own : the network's own passes, with nothing that was submitted
    """
    verdict, own = ForwardVerdict(), functools.cache(own)
    if "input" in activations:
        x = own().exact.activations["input"]
        spread = max(length(noisy.activations["input"] - x) for noisy in own().noisy)
        if length(activations["input"] - x) <= 6 * spread + ensemble.eps * length(x):
            verdict.right.append("output of input")
        else:
            verdict.findings.append(_other_images(activations["input"], x))
    stretch = _Stretch([], ensemble, verdict.assumed)
    for name in names:
        stretch.layers.append(name)
        if name not in activations:
            continue
        submitted = activations[name]
        if _is_output(submitted, name, ensemble) or _is_output(submitted, name, own()):
            verdict.right.append(f"output of {name}")
        else:
            verdict.findings.append(stretch.finding(name, submitted, ensemble.exact.layers[name].y))
        stretch = _Stretch([], ensemble, verdict.assumed)
    expected = _probabilities(ensemble.exact)
    if probabilities is not None and expected is not None:
        if _are_probabilities(probabilities, ensemble) or _are_probabilities(probabilities, own()):
            verdict.right.append("probabilities")
        else:
            verdict.findings.append(stretch.finding("loss", probabilities, expected))
    return verdict


def _is_output(submitted: Array, name: str, ensemble: Ensemble) -> bool:
    """Whether an array is the output of a layer, but for rounding."""
    p = ensemble.exact.layers[name]
    spread = max(length(noisy.layers[name].y - p.y) for noisy in ensemble.noisy)
    noise = rules_of(p.layer).noise(ensemble.absolute.layers[name], p.y, ensemble.eps)
    tolerance = 6 * (spread + (0.0 if noise is None else length(noise)))
    return length(submitted - p.y) <= tolerance + ensemble.eps * length(p.y)


def _are_probabilities(submitted: Array, ensemble: Ensemble) -> bool:
    """Whether an array is the probabilities, but for rounding."""
    expected = _probabilities(ensemble.exact)
    others = [_probabilities(noisy) for noisy in ensemble.noisy]
    tolerance = 6 * max(length(other - expected) for other in others)
    tolerance += 8 * ensemble.eps * float(expected.size) ** 0.5
    return bool(length(submitted - expected) <= tolerance)


def _probabilities(forward: ForwardPass) -> Any:
    """Return what the loss makes of the logits; None where there are no probabilities."""
    return forward.loss.loss.probabilities(forward.loss.logits)


def _other_images(submitted: Array, x: Array) -> Finding:
    """Say that the program had other images than x."""
    message = f"The input is not x: other images went into the program. {_JUDGED}"
    relative = share(length(submitted - x), length(x))
    evidence = Evidence("output of input", relative, None, difference(submitted, x, "off x"))
    return Finding(
        None, "input", "output", exact=False, evidence=evidence, message=message, expect=_FIRST
    )


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
    """The layers since the last submitted output, the passes, and outputs that are assumed."""

    layers: list[str]
    ensemble: Ensemble
    assumed: dict[str, Array]

    def finding(self, name: str, submitted: Array, expected: Array) -> Finding:
        """Say what is wrong with the output of a layer, or with the probabilities ("loss")."""
        error, size = length(submitted - expected), length(expected)
        quantity, array = "output", f"output of {name}"
        if name == "loss":
            quantity = array = "probabilities"
        relative = share(error, size)
        found = self._named(name, submitted, min(_NEARER * error, _EXACTLY * length(submitted)))
        if found is None:
            message = f"{self._where(name)} {_JUDGED}"
            evidence = Evidence(array, relative, None, difference(submitted, expected))
            return Finding(
                None, name, quantity, exact=False, evidence=evidence, message=message, expect=_FIRST
            )
        layer, way, output, after = found
        if layer != name:
            self.assumed[layer] = output
        proof = f"{array} is {off_by(error, size)}, and {after:.1g} off what this mistake gives"
        return Finding(
            way.mistake.id,
            layer,
            quantity if layer == name else "output",
            exact=True,
            evidence=Evidence(array, relative, after, proof),
            message=f"{way.mistake.sentence} The forward pass, {layer}: {way.description}.",
            mend=way.mistake.mend,
            hint=way.mistake.hint,
            expect=_FIRST,
        )

    def _named(
        self, name: str, submitted: Array, within: float
    ) -> tuple[str, Way, Array, float] | None:
        """Return which layer's output is which way's, what that is, and how far off it leaves it.

        Of those that give the same but for rounding it is the first on the way forward.
        """
        found: list[tuple[float, str, Way, Array]] = []
        if name == "loss":
            for way, wrong in forward_ways(self.ensemble.exact.loss):
                found.append((length(submitted - wrong), "loss", way, wrong))
        for place, layer in enumerate(self.layers):
            for way, wrong in forward_ways(self.ensemble.exact.layers[layer]):
                output = self._onwards(self.layers[place + 1 :], wrong, name)
                found.append((length(submitted - output), layer, way, wrong))
        least = min((one[0] for one in found), default=float("inf"))
        if not least <= within < float("inf"):
            return None
        alike = min(2 * least + 64 * self.ensemble.eps * length(submitted), within)
        error, layer, way, wrong = next(one for one in found if one[0] <= alike)
        return layer, way, wrong, error / max(length(submitted), 1e-300)

    def _onwards(self, layers: Sequence[str], output: Array, name: str) -> Array:
        """Return what the last layers of the stretch make of a wrong output."""
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


def _rerun(p: LayerPass, x: Array) -> Array:
    """Return the layer's output for another input, in the same mode and with the same mask."""
    if isinstance(p.layer, Dropout):
        return x if p.cache is None else x * p.cache
    active = isinstance(p.layer, BatchNorm2D) and p.cache[-1] is not None
    y: Array = p.layer.forward(x, p.parameters, training=active)[0]
    return y


# In which layout activations came -----------------------------------------------------------------


@np.errstate(all="ignore")
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
        m, own = activations[name], trace.activations[name]
        best = min(m.readings, key=lambda reading: _error(reading.values, x))
        if _error(best.values, x) > _READS:  # the program may not have gone on with a wrong one
            best = min(m.readings, key=lambda reading: _error(reading.values, own))
        near = min(_error(best.values, x), _error(best.values, own))
        if near > _READS and len(m.readings) > 1:
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
    error = length(array - expected) / max(length(expected), 1e-300)
    return error if np.isfinite(error) else float("inf")
