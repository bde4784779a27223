"""The reference that a user's layer of a known kind is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fullback.check.layer.kinds import reference_output
from fullback.check.layer.matching import Observation
from fullback.check.layer.probes import Probes
from fullback.check.layer.signatures import CallInputs
from fullback.check.mistakes import LayerPass, LossPass, Target
from fullback.layers import Loss
from fullback.layers.base import Array

_SAME = 1e-6  # of the largest entry: what is a rounding, whatever it comes from


class Reference:
    """Computes what the user's forward function should, in its layouts; nothing of an unknown kind.

    Attributes
    ----------
    batch_axis : which axis of the user's arrays counts the images
    """

    def __init__(self, probes: Probes) -> None:
        self.layer, self.layout, self.loss = probes.reference, probes.layout, probes.loss
        images = self.layout.images if self.layout is not None else None
        self.batch_axis = 0 if images is None else images.index(0)

    def forward_differs(self, inputs: CallInputs, y: Array) -> tuple[float, str] | None:
        """Return by how much the output differs, and a sentence; None where it does not."""
        if self.loss is not None:
            return _loss_differs(self.loss, inputs, y)
        if self.layer is None or self.layout is None:
            return None
        expected = reference_output(self.layer, *self._arranged(inputs))
        submitted = self.layout.image_in(y)
        if expected is None:
            return None
        if submitted.shape != expected.shape:
            return (
                0.0,
                f"forward returns {submitted.shape}, where {self.layer} gives {expected.shape}",
            )
        off = float(np.abs(submitted - expected).max() / (np.abs(expected).max() or 1.0))
        if off <= _SAME:
            return None
        return off, f"forward differs from {self.layer}'s output by {off:.1e} of its largest"

    def observation(
        self, inputs: CallInputs, y: Array, dy: Array, found: Mapping[str, Array]
    ) -> Observation | None:
        """Return what was computed, in the reference's layouts; None where that is not known."""
        if self.loss is not None:
            loss_pass, mean = _loss_pass(self.loss, inputs)
            if abs(float(y.sum()) - mean) > _SAME * mean:  # the batch's sum
                loss_pass = replace(loss_pass, share=np.ones_like(loss_pass.share))
            gradients = {"dx": found["dx"]} if "dx" in found else {}
            return Observation(loss_pass, dy, gradients, {"dx": "delta"})
        if self.layer is None or self.layout is None:
            return None
        x, parameters = self._arranged(inputs)
        if reference_output(self.layer, x, parameters) is None:
            return None
        output, kept = self.layer.forward(x, parameters, training=True)
        outputs = {"input": x, "layer": output}
        layer = LayerPass("layer", self.layer, x, output, kept, parameters, outputs, "input")
        targets: dict[str, Target] = {"dx": "delta"}
        gradients = {"dx": self.layout.image_in(found["dx"])} if "dx" in found else {}
        shapes = self.layer.parameter_shapes(x.shape[1:])
        for (own, shape), name in zip(shapes.items(), inputs.parameters, strict=False):
            targets[f"d{name}"] = "weight" if own == "weight" else "bias"
            array = self.layout.parameter_in(found.get(f"d{name}", np.zeros(0)), shape)
            if array is not None:
                gradients[f"d{name}"] = array
        return Observation(layer, self.layout.image_in(dy), gradients, targets)

    def _arranged(self, inputs: CallInputs) -> tuple[Array, dict[str, Array]]:
        """Return an input and parameters in the reference's layout, by its names."""
        if self.layer is None or self.layout is None:
            return inputs.x, {}
        x = self.layout.image_in(inputs.x)
        shapes = self.layer.parameter_shapes(x.shape[1:])
        named = zip(shapes.items(), inputs.parameters.values(), strict=False)
        parameters = {}
        for (name, shape), array in named:
            arranged = self.layout.parameter_in(array, shape)
            if arranged is not None:
                parameters[name] = arranged
        for name, shape in shapes.items():
            parameters.setdefault(name, np.zeros(shape))
        return x, parameters


def _loss_pass(loss: Loss, inputs: CallInputs) -> tuple[LossPass, float]:
    """Return the reference's loss in its place, and its value: the batch's mean."""
    labels = np.asarray(inputs.labels)
    labels = labels.argmax(axis=1) if labels.ndim > 1 else labels
    mean, (p, t, share) = loss.forward(inputs.x, labels)
    return LossPass(loss, inputs.x, labels, p, t, share), mean


def _loss_differs(loss: Loss, inputs: CallInputs, y: Array) -> tuple[float, str] | None:
    """See whether a loss is the batch's mean or its sum."""
    mean, total = _loss_pass(loss, inputs)[1], float(y.sum())
    if any(abs(total - value) <= _SAME * abs(value) for value in (mean, mean * len(inputs.x))):
        return None
    return abs(total - mean) / mean, f"forward gives {total:.6g}, but {loss} is {mean:.6g} here"
