"""The loss of one batch as a function of a network's parameters and images, in float64.

A network with ReLU or max pooling is made of smooth pieces: one for every choice of the cells that
pass each ReLU and win each window. Its derivative at a point is that of the piece which the point
lies on, so finite differences are taken of that piece's formula, *continued* beyond its
border: the cells that pass, and those that win, stay what they are at the point. Steps may so be
as large as precision wants them.

What the true loss does right beside the point is looked at as well. Where it leaves the piece at
once, the point is at a kink, as it is where a bias is 0 on an empty background: the derivative is
then a matter of convention, and the slopes to both sides are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fullback.check.gradients.differences import EPS, Slope, central, measured_noise, usual_size
from fullback.check.mistakes import rules_of
from fullback.errors import InputError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Seed, Trace, first_not_finite, random_key, trace_batch

Line = Callable[[float], Mapping[str, Array]]
"""The arrays that are moved, by name, as functions of how far."""

_BESIDE = 2.0**-13  # of a step: how near a kink must be to be at the point


class BatchLoss:
    """A batch's loss, with some arrays moved.

    Parameters
    ----------
    net : a float64 network
    images, targets : the batch, checked
    training, seed : as for ``Network.trace``

    Attributes
    ----------
    trace : the pass forward and backward at the point itself
    noise : size of the rounding of the loss

    Raises
    ------
    InputError
        The loss is not finite.
    """

    def __init__(
        self, net: Network, images: Array, targets: Array, *, training: bool, seed: Seed
    ) -> None:
        self.net, self.targets, self.training, self.seed = net, targets, training, seed
        self.trace: Trace = trace_batch(net, images, targets, None, training=training, seed=seed)
        where = first_not_finite(self.trace.activations.items())
        if where or not np.isfinite(self.trace.loss):
            raise InputError(
                f"{where or 'the loss'} is the first that is not finite: the network's weights or "
                "the images are too large, or not finite"
            )
        self.arrays: dict[str, Array] = {
            "input": self.trace.activations["input"],
            **{name: net.parameters[name] for name in net.parameters},
        }
        self._places = {name: net.names.index(name.split(".")[0]) for name in net.parameters}
        self._places["input"] = 0
        self.noise = self._measured_noise()

    @property
    def gradients(self) -> dict[str, Array]:
        """The reference's gradient of every array, the input's included."""
        return {"input": self.trace.deltas["input"], **self.trace.gradients}

    def size(self, name: str) -> float:
        """Return the usual size of an array's numbers: their root mean square, or 1 for zeros."""
        return usual_size(self.arrays[name])

    def at(self, moved: Mapping[str, Array], *, continued: bool) -> tuple[float, bool]:
        """Return the loss with some arrays moved, and whether it is on the point's own piece.

        ``continued`` keeps to that piece, whatever the arrays are.
        """
        names = ("input", *self.net.names)
        start = min(self._places[name] for name in moved)
        x = moved.get("input", self.trace.activations[names[start]])
        inside = True
        with np.errstate(all="ignore"):
            for index in range(start, len(self.net.layers)):
                name, layer = self.net.names[index], self.net.layers[index]
                kinks, at_point = rules_of(layer).kinks, self.trace.kept[index]
                if continued and kinks:
                    x = kinks.continued(layer, x, at_point)
                    continue
                arrays = self.net.arrays_of(name)
                changed = {k: moved[f"{name}.{k}"] for k in arrays if f"{name}.{k}" in moved}
                x, cache = layer.forward(
                    x,
                    {**arrays, **changed} if changed else arrays,
                    training=self.training and name not in self.net.frozen,
                    rng_key=random_key(self.seed, index) if layer.random else 0,
                )
                inside = inside and (kinks is None or kinks.same(cache, at_point))
            loss, _ = self.net.loss.forward(x, self.targets)
        return loss, inside

    def slope(self, line: Line, step: float, *, scale: float = 0.0) -> Slope:
        """Return the derivative of the loss along a line, at its start.

        Parameters
        ----------
        line : the arrays that are moved
        step : the first and largest step
        scale : size of the numbers that are moved
        """

        def piece(t: float) -> float:
            return self.at(line(t), continued=True)[0]

        found = central(piece, step, self.noise, scale=scale)
        if all(self.at(line(t), continued=False)[1] for t in (step, -step)):
            return found
        beside = step * _BESIDE
        gaps = [self._gap(line(t)) for t in (-beside, beside)]
        if max(map(abs, gaps)) <= 16 * self.noise:
            return found
        nearer = [self._gap(line(t)) / abs(t) for t in (-beside / 4, beside / 4)]
        sides = [gap / beside for gap in gaps]
        off = max(abs(one - other) for one, other in zip(sides, nearer, strict=True))
        off += 16 * self.noise / beside
        left, right = found.value - nearer[0], found.value + nearer[1]
        return Slope(found.value, found.error, left, right, True, off)

    def _gap(self, moved: Mapping[str, Array]) -> float:
        """Return how far the true loss is from the piece's."""
        loss, inside = self.at(moved, continued=False)
        return 0.0 if inside else loss - self.at(moved, continued=True)[0]

    def _measured_noise(self) -> float:
        rng = np.random.default_rng(0)
        ways = {name: rng.choice([-1.0, 1.0], array.shape) for name, array in self.arrays.items()}
        sizes = {name: self.size(name) for name in self.arrays}

        def line(t: float) -> Mapping[str, Array]:
            return {
                name: array + t * sizes[name] * ways[name] for name, array in self.arrays.items()
            }

        return measured_noise(lambda t: self.at(line(t), continued=True)[0], 2.0**15 * EPS)
