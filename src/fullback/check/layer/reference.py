"""The reference that somebody's layer of a known kind is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fullback.check.layer.kinds import reference_output
from fullback.check.layer.matching import Seen
from fullback.check.layer.probes import Probes
from fullback.check.layer.signatures import Given
from fullback.check.mistakes.base import Target
from fullback.check.mistakes.layer_pass import LossScene, Scene
from fullback.layers import Loss
from fullback.layers.base import Array

_SAME = 1e-6  # of the largest entry: what is a rounding, whatever it comes from


class Reference:
    """Computes what their forward function should, in their layouts; of an unknown kind, nothing.

    Attributes
    ----------
    batch_axis : which axis of their arrays counts the images
    """

    def __init__(self, probes: Probes) -> None:
        self.layer, self.layout, self.loss = probes.reference, probes.layout, probes.loss
        images = self.layout.images if self.layout is not None else None
        self.batch_axis = 0 if images is None else images.index(0)

    def forward_differs(self, given: Given, y: Array) -> tuple[float, str] | None:
        """Return by how much their output differs, and a sentence; None where it does not."""
        if self.loss is not None:
            return _loss_differs(self.loss, given, y)
        if self.layer is None or self.layout is None:
            return None
        wanted = reference_output(self.layer, *self._ours(given))
        theirs = self.layout.image_in(y)
        if wanted is None:
            return None
        if theirs.shape != wanted.shape:
            return 0.0, f"forward returns {theirs.shape}, where {self.layer} gives {wanted.shape}"
        off = float(np.abs(theirs - wanted).max() / (np.abs(wanted).max() or 1.0))
        if off <= _SAME:
            return None
        return off, f"forward differs from {self.layer}'s output by {off:.1e} of its largest"

    def seen(self, given: Given, y: Array, dy: Array, found: Mapping[str, Array]) -> Seen | None:
        """Return what they computed, in the reference's layouts; None where that is not known."""
        if self.loss is not None:
            scene, mean = _loss_scene(self.loss, given)
            if abs(float(y.sum()) - mean) > _SAME * mean:  # the batch's sum
                scene = replace(scene, share=np.ones_like(scene.share))
            theirs = {"dx": found["dx"]} if "dx" in found else {}
            return Seen(scene, dy, theirs, {"dx": "delta"})
        if self.layer is None or self.layout is None:
            return None
        x, parameters = self._ours(given)
        if reference_output(self.layer, x, parameters) is None:
            return None
        output, kept = self.layer.forward(x, parameters, training=True)
        outputs = {"input": x, "layer": output}
        layer = Scene("layer", self.layer, x, output, kept, parameters, outputs, "input")
        targets: dict[str, Target] = {"dx": "delta"}
        theirs = {"dx": self.layout.image_in(found["dx"])} if "dx" in found else {}
        shapes = self.layer.parameter_shapes(x.shape[1:])
        for (own, shape), name in zip(shapes.items(), given.parameters, strict=False):
            targets[f"d{name}"] = "weight" if own == "weight" else "bias"
            array = self.layout.parameter_in(found.get(f"d{name}", np.zeros(0)), shape)
            if array is not None:
                theirs[f"d{name}"] = array
        return Seen(layer, self.layout.image_in(dy), theirs, targets)

    def _ours(self, given: Given) -> tuple[Array, dict[str, Array]]:
        """Return an input and parameters in the reference's layout, by its names."""
        if self.layer is None or self.layout is None:
            return given.x, {}
        x = self.layout.image_in(given.x)
        shapes = self.layer.parameter_shapes(x.shape[1:])
        named = zip(shapes.items(), given.parameters.values(), strict=False)
        parameters = {}
        for (name, shape), array in named:
            own = self.layout.parameter_in(array, shape)
            if own is not None:
                parameters[name] = own
        for name, shape in shapes.items():
            parameters.setdefault(name, np.zeros(shape))
        return x, parameters


def _loss_scene(loss: Loss, given: Given) -> tuple[LossScene, float]:
    """Return the reference's loss in its place, and its value: the batch's mean."""
    labels = np.asarray(given.labels)
    labels = labels.argmax(axis=1) if labels.ndim > 1 else labels
    mean, (p, t, share) = loss.forward(given.x, labels)
    return LossScene(loss, given.x, labels, p, t, share), mean


def _loss_differs(loss: Loss, given: Given, y: Array) -> tuple[float, str] | None:
    """See whether a loss is the batch's mean or its sum."""
    mean, total = _loss_scene(loss, given)[1], float(y.sum())
    if any(abs(total - own) <= _SAME * abs(own) for own in (mean, mean * len(given.x))):
        return None
    return abs(total - mean) / mean, f"forward gives {total:.6g}, but {loss} is {mean:.6g} here"
