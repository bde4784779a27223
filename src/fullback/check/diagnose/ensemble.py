"""The forward passes that a diagnosis is made in: the exact one, noisy ones, an absolute one.

The exact one is float64. In the *noisy* ones every sum carries an error of the size that the
submitted arrays' precision gives it (``mistakes.rules`` says which), and what comes out of them
says how far another right program, in that precision, may be off. In the *absolute* one every
factor is its absolute value, so that a sum in it is the sum of absolute values.

About some units rounding, or an exact tie, decides (``mistakes.kinks``). All passes make the same
choices there. ``tied`` makes them exact ties, so that one rule decides all of them; in the *other*
passes one group of them, which a program computes alike, is decided otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fullback.check.mistakes import ForwardPass, LayerPass, LossPass, rules_of
from fullback.check.mistakes.kinks import Kinks, hashed
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Seed, random_key, scaled

NOISY = 4
"""Noisy passes: enough that an error measured in them is right within a factor of two."""

_GROUPS = 16  # groups of undecided units, at most, that are decided one by one


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The exact forward pass, the noisy ones and the absolute one.

    Attributes
    ----------
    exact, absolute : a ForwardPass
    noisy : the passes with rounding errors of ``eps``
    eps : twice their unit roundoff
    undecided : by the layer's name, which of its units, or of its windows' cells, may be decided
        either way, where there are any
    others : the passes with one group of those decided otherwise; none where there are many groups
    ruled_out : what searches have found no gradient to follow from, so that the next one need not
    """

    exact: ForwardPass
    noisy: tuple[ForwardPass, ...]
    absolute: ForwardPass
    eps: float
    undecided: Mapping[str, Array] = field(default_factory=dict)
    others: tuple[ForwardPass, ...] = ()
    ruled_out: set[tuple[Any, ...]] = field(default_factory=set, init=False)

    def at(self, index: int) -> ForwardPass:
        """Return the exact pass (0), a noisy one (1, 2, ...), or one of the others after those."""
        if not index:
            return self.exact
        return self.noisy[index - 1] if index <= NOISY else self.others[index - 1 - NOISY]

    def tied(self) -> Ensemble:
        """Return the ensemble in which the undecided units are exact ties."""

        def changed(forward: ForwardPass) -> ForwardPass:
            layers = dict(forward.layers)
            for name, units in self.undecided.items():
                p = layers[name]
                cache, computed = _kinks(p).tied(p.layer, p.cache, units)
                layers[name] = replace(p, cache=cache, computed=computed)
            return replace(forward, layers=layers)

        exact, absolute, *noisy = map(changed, (self.exact, self.absolute, *self.noisy))
        return replace(self, exact=exact, absolute=absolute, noisy=tuple(noisy), others=())


def _kinks(p: LayerPass) -> Kinks:
    kinks = rules_of(p.layer).kinks
    assert kinks is not None  # noqa: S101 -- the layer has undecided units
    return kinks


def _others(exact: ForwardPass, undecided: Mapping[str, Array]) -> tuple[ForwardPass, ...]:
    """Return the passes in which one group of undecided units is decided otherwise."""
    found: list[ForwardPass] = []
    for name, units in undecided.items():
        p = exact.layers[name]
        below, closed = exact.layers.get(p.before), None
        if below and below.layer.kind == "relu":
            closed = (below.x <= 0) & ~undecided.get(p.before, np.False_)
        for cache in _kinks(p).choices(p.layer, p.x, p.cache, units, closed):
            if len(found) == _GROUPS:
                return ()
            other = replace(p, cache=cache, computed={})
            found.append(replace(exact, layers={**exact.layers, name: other}))
    return tuple(found)


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
) -> Ensemble:
    """Run checked images forward through a float64 network, in every pass of the ensemble.

    ``activations`` are submitted, of some layers: from there on the passes go on with them.
    """
    run = _Run(net, eps, noisy=noisy)
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
        passes[0],
        tuple(passes[1:]),
        ForwardPass(absolute, losses[0], sizes),
        eps,
        run.undecided,
        _others(passes[0], run.undecided),
    )


class _Run:
    """All passes of an ensemble at once, layer by layer: the exact one is the first.

    Attributes
    ----------
    xs : what the next layer is given, in each pass
    layers, outputs : as in ``ForwardPass``, in each pass
    absolute, undecided : as in ``Ensemble``
    """

    def __init__(self, net: Network, eps: float, *, noisy: bool) -> None:
        self.net, self.eps, self.noisy = net, eps, noisy
        self.coarse = {key: _rough(value, eps) for key, value in net.parameters.items()}
        self.xs: list[Array] = []
        self.layers: list[dict[str, LayerPass]] = [{} for _ in range(1 + NOISY * noisy)]
        self.outputs: list[dict[str, Array]] = []
        self.absolute: dict[str, LayerPass] = {}
        self.undecided: dict[str, Array] = {}
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
        passes: list[LayerPass] = []
        for r, x in enumerate(self.xs):
            parameters = self._parameters(name, r)
            y, cache = layer.forward(x, parameters, training=active, rng_key=key)
            computed: dict[str, Array] = {}
            if r and rules.kinks:  # the same choices in every pass
                cache, computed = passes[0].cache, passes[0].computed
            passes.append(
                LayerPass(
                    name, layer, x, y, cache, parameters, self.outputs[r], self.before,
                    computed=computed,
                )
            )  # fmt: skip
            self.layers[r][name] = passes[r]
        ys = [p.y for p in passes]
        if rules.kinks and self.noisy:
            units = rules.kinks.undecided(layer, self.xs, passes[0].cache)
            if units.any():
                self.undecided[name] = units
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
