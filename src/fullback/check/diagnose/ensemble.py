"""The forward passes that a diagnosis is made in: the exact one, noisy ones, an absolute one.

The exact one is float64. In the *noisy* ones every sum carries an error of the size that the
submitted arrays' precision gives it (``mistakes.rules`` says which), and what comes out of them
says how far another right program, in that precision, may be off; where rounding decides, at a
kink, they decide otherwise (``mistakes.kinks``). In the *absolute* one every factor is its
absolute value, so that a sum in it is the sum of absolute values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.mistakes import ForwardPass, LayerPass, LossPass, rules_of
from fullback.check.mistakes.kinks import hashed
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Seed, random_key, scaled

NOISY = 4
"""Noisy passes: enough that an error measured in them is right within a factor of two."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The exact forward pass, the noisy ones and the absolute one.

    Attributes
    ----------
    exact, absolute : a ForwardPass
    noisy : the passes with rounding errors of ``eps``
    eps : twice their unit roundoff
    kinks : how many units of each layer rounding decides about, by name, where there are any
    """

    exact: ForwardPass
    noisy: tuple[ForwardPass, ...]
    absolute: ForwardPass
    eps: float
    kinks: dict[str, int]

    def at(self, index: int) -> ForwardPass:
        """Return the exact pass (0) or a noisy one (1, 2, ...)."""
        return self.noisy[index - 1] if index else self.exact


def forward_pass(net: Network, images: Array, targets: Array) -> ForwardPass:
    """Run checked images forward through a float64 network, as a training step does."""
    return build_ensemble(
        net, images, targets, 2.0**-52, {}, None, training=True, seed=0, noisy=False
    ).exact


def build_ensemble(
    net: Network,
    x: Array,
    targets: Array,
    eps: float,
    activations: Mapping[str, Array],
    probabilities: Array | None,
    *,
    training: bool,
    seed: Seed,
    noisy: bool = True,
    deltas: Mapping[str, Array] | None = None,
) -> Ensemble:
    """Run checked images forward through a float64 network, in every pass of the ensemble.

    ``activations`` are submitted, of some layers: from there on the passes go on with them. So are
    ``deltas``: which of the cells that tie in a pooling window gets its delta is as in them.
    """
    run = _Run(net, eps, deltas or {}, noisy=noisy)
    images = scaled(x, np.dtype(np.float64))
    run.start(np.asarray(activations.get("input", images), np.float64))
    for index, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
        active = training and name not in net.frozen
        key = random_key(seed, index) if layer.random else 0
        run.layer(index, active, key, activations.get(name))
    losses = [_loss_pass(net, logits, targets, probabilities) for logits in run.xs]
    passes = [
        ForwardPass(layers, loss, outputs)
        for layers, loss, outputs in zip(run.layers, losses, run.outputs, strict=True)
    ]
    sizes = {name: abs(values) for name, values in run.outputs[0].items()}
    absolute = {name: replace(p, activations=sizes) for name, p in run.absolute.items()}
    return Ensemble(
        passes[0], tuple(passes[1:]), ForwardPass(absolute, losses[0], sizes), eps, run.kinks
    )


class _Run:
    """All passes of an ensemble at once, layer by layer: the exact one is the first.

    Attributes
    ----------
    xs : what the next layer is given, in each pass
    layers, outputs : as in ``ForwardPass``, in each pass
    absolute, kinks : as in ``Ensemble``
    """

    def __init__(
        self, net: Network, eps: float, deltas: Mapping[str, Array], *, noisy: bool
    ) -> None:
        self.net, self.eps, self.deltas, self.noisy = net, eps, deltas, noisy
        self.coarse = {key: _rough(value, eps) for key, value in net.parameters.items()}
        self.xs: list[Array] = []
        self.layers: list[dict[str, LayerPass]] = [{} for _ in range(1 + NOISY * noisy)]
        self.outputs: list[dict[str, Array]] = []
        self.absolute: dict[str, LayerPass] = {}
        self.kinks: dict[str, int] = {}
        self.before = "input"

    def start(self, images: Array) -> None:
        """Begin with the images."""
        amplitude = self.eps * abs(images) * _rough(images, self.eps)
        self.xs = [images, *(_noise(images, amplitude, r) for r in range(NOISY * self.noisy))]
        self.outputs = [{"input": values} for values in self.xs]

    def layer(self, index: int, active: bool, key: int, submitted: Array | None) -> None:
        """Run one layer; go on with the submitted output, where there is one."""
        name, layer = self.net.names[index], self.net.layers[index]
        rules = rules_of(layer)
        if rules.kinks and self.noisy:
            self.xs, undecided = rules.kinks.undecided(layer, self.xs)
            if undecided:
                self.kinks[name] = undecided
        delta = _delta_below(self.net, index, self.deltas) if rules.kinks else None
        ys = []
        for r, x in enumerate(self.xs):
            parameters = self._parameters(name, r)
            y, cache = layer.forward(x, parameters, training=active, rng_key=key)
            if rules.kinks:
                cache = rules.kinks.chosen(layer, self.xs, r, y, cache, delta)
            ys.append(y)
            self.layers[r][name] = LayerPass(
                name, layer, x, y, cache, parameters, self.outputs[r], self.before
            )
        self.absolute[name] = _absolute(self.layers[0][name])
        if submitted is not None:
            self.xs = [np.asarray(submitted, np.float64)] * len(ys)
        else:
            amplitude = rules.noise(self.absolute[name], ys[0], self.eps) if self.noisy else None
            self.xs = [
                _noise(y, amplitude, 7 * r + index - 7, ys[0]) if r and amplitude is not None else y
                for r, y in enumerate(ys)
            ]
        for outputs, y in zip(self.outputs, self.xs, strict=True):
            outputs[name] = y
        self.before = name

    def _parameters(self, name: str, r: int) -> dict[str, Array]:
        """Return a layer's parameters, in a noisy pass as another precision has them."""
        exact = self.net.arrays_of(name)
        if not r:
            return exact
        coarse = {short: self.coarse.get(f"{name}.{short}", 0.0) for short in exact}
        return {
            short: _noise(p, self.eps / 2 * abs(p) * coarse[short], r + 31)
            for short, p in exact.items()
        }


def _loss_pass(
    net: Network, logits: Array, targets: Array, probabilities: Array | None
) -> LossPass:
    """Return what is left of the loss; with submitted probabilities in place of its own."""
    _, cache = net.loss.forward(logits, targets)
    p = net.loss.probabilities(logits)
    if p is None:
        _, share = cache
        return LossPass(net.loss, logits, targets, logits, targets, share)
    _, t, share = cache
    p = p if probabilities is None else np.asarray(probabilities)
    return LossPass(net.loss, logits, targets, p, t, share)


def _rough(array: Array, eps: float) -> float:
    """Return 1.0 where the array's numbers are not numbers of that precision, else 0.0."""
    if eps < 1e-12:
        return 0.0
    narrow = np.float32 if eps < 1e-5 else np.float16
    with np.errstate(all="ignore"):
        return float((array.astype(narrow) != array).any())


def _noise(values: Array, amplitude: Array, seed: int, by: Array | None = None) -> Array:
    noisy: Array = values + amplitude * hashed(values if by is None else by, seed)
    return noisy


def _absolute(p: LayerPass) -> LayerPass:
    """Return the pass with absolute values; what only chooses keeps what it chooses by."""
    parameters = {name: abs(array) for name, array in p.parameters.items()}
    whole = replace(
        p, x=abs(p.x), y=abs(p.y), parameters=parameters, activations={}, computed={}
    )  # fmt: skip
    return replace(whole, **rules_of(p.layer).absolute(p))


def _delta_below(net: Network, index: int, deltas: Mapping[str, Array]) -> Array | None:
    """Return the submitted delta of a layer's input, or of what lies below but for activations."""
    for name, layer in zip(net.names[:index][::-1], net.layers[:index][::-1], strict=True):
        if name in deltas:
            return deltas[name]
        if layer.gain is None:  # no activation
            return None
    return deltas.get("input")
