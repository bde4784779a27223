"""The delta on its way down, as a program with certain mistakes computes it, in every world.

A chain is a linked list from the loss: each link carries the delta through one layer, rightly or
as some mutants do it. What it computes in the noisy worlds says how far off another program with
the same mistakes may be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fullback.check.diagnose.ensemble import Worlds, amplitude_of, count_terms
from fullback.check.mistakes import Mutant, gradient, next_delta
from fullback.check.mistakes.base import Target
from fullback.check.mistakes.layer_pass import Scene, World, hashed
from fullback.check.mistakes.loss import first_delta
from fullback.layers import (
    BatchNorm2D,
    Conv2D,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Sigmoid,
    Tanh,
)
from fullback.layers.base import Array


class Chain:
    """The delta of one layer's output, or of the input.

    Parameters
    ----------
    worlds : the forward passes
    parent : the delta that this one is computed from; None at the loss, and where it was given
    through : the layer that lies between; "loss" for the first delta
    mutants : the mistakes in this step
    given : the delta itself, where a user gave it
    before : the chain that this one goes on from with a given delta
    rate : learning rate of an early update in this step; None where it is not known yet
    """

    def __init__(
        self,
        worlds: Worlds,
        parent: Chain | None,
        through: str,
        mutants: tuple[Mutant, ...] = (),
        *,
        given: Array | None = None,
        rate: float | None = None,
        before: Chain | None = None,
    ) -> None:
        self.worlds = worlds
        self.parent = parent
        self.through = through
        self.mutants = mutants
        self.given = given
        self.rate = rate
        self.before = before
        self._at: dict[int, Array] = {}
        self._size: Array | None = None
        self.bases: dict[tuple[object, ...], Array] = {}

    @property
    def unresolved(self) -> bool:
        """Whether a learning rate on the way is not known yet."""
        own = self.rate is None and any(m.unknown == "rate" for m in self.mutants)
        return own or (self.parent is not None and self.parent.unresolved)

    def with_rate(self, rate: float) -> Chain:
        """Return the chain with that learning rate where it is not known."""
        if not self.unresolved:
            return self
        parent = self.parent.with_rate(rate) if self.parent is not None else None
        own = rate if self.rate is None else self.rate
        return Chain(self.worlds, parent, self.through, self.mutants, given=self.given, rate=own)

    def without_mistakes(self) -> Chain:
        """Return the chain from where it was last given, or from the loss, all of it right."""
        if self.given is not None:
            return self
        parent = self.parent.without_mistakes() if self.parent is not None else None
        conventions = tuple(m for m in self.mutants if m.mistake is None)
        return Chain(self.worlds, parent, self.through, conventions)

    def links(self) -> list[Chain]:
        """Return the chain's deltas from this one upwards."""
        above = self.parent or self.before
        return [self, *(above.links() if above is not None else [])]

    def at(self, index: int) -> Array:
        """Return the delta in the true world (0) or in a noisy one (1, 2, ...)."""
        if self.given is not None:
            return self.given
        if index not in self._at:
            world = self.worlds.noisy[index - 1] if index else self.worlds.true
            delta = self._step(world, index)
            if index:
                delta = delta + self._noise(delta, index)
            self._at[index] = delta
        return self._at[index]

    def _step(self, world: World, index: int) -> Array:
        if self.parent is None:
            return first_delta(world.loss, self.mutants)
        scene = world.scenes[self.through].with_rates(self.rate or 0.0, 0.0)
        return next_delta(scene, self.parent.at(index), self.mutants)

    def _noise(self, delta: Array, index: int) -> Array | float:
        eps = self.worlds.eps
        if self.parent is None:
            if self._size is None:
                loss = self.worlds.true.loss
                size = first_delta(replace(loss, t=-loss.t), self.mutants)
                self._size = 4 * eps * (abs(size) + abs(self.at(0)))
            return self._size * hashed(delta, index + 50)
        scene = self.worlds.true.scenes[self.through]
        if isinstance(scene.layer, ReLU | LeakyReLU | Flatten) or _picks(scene):
            return 0.0
        if self._size is None:
            size = size_of(self.worlds, self.through, "delta", self.parent.at(0), self.mutants)
            terms = count_terms(scene.layer, scene.x, scene.y)["delta"]
            self._size = amplitude_of(size, self.at(0), terms, eps)
        return self._size * hashed(delta, index + 50)


def _picks(scene: Scene) -> bool:
    """Whether a cell gets the delta of one window at most, so that nothing is added up."""
    apart = all(step >= n for step, n in zip(scene.stride, scene.window, strict=True))
    return isinstance(scene.layer, MaxPool2D) and apart


def size_of(
    worlds: Worlds, name: str, target: Target, dy: Array, mutants: tuple[Mutant, ...]
) -> Array:
    """Return the sums of absolute values behind one result of a layer."""
    scene, dy = worlds.absolute.scenes[name], abs(dy)
    if isinstance(scene.layer, BatchNorm2D):
        z, scale, batch = scene.kept
        if target == "delta":
            through = dy
            if batch is not None:
                over = (0, 2, 3)
                through = dy + dy.mean(axis=over, keepdims=True)
                through = through + 4 * z * (dy * z).mean(axis=over, keepdims=True)
            size: Array = 2 * (scene.parameters["weight"] * scale)[:, None, None] * through
        else:
            size = 4 * (dy * (z if target == "weight" else 1)).sum(axis=(0, 2, 3))
        return size
    if isinstance(scene.layer, Sigmoid | Tanh) and not mutants:  # 1 - y loses digits near y = 1
        slope: Array = (scene.y if isinstance(scene.layer, Sigmoid) else 1) * (1 + scene.y)
        return dy * slope
    if target == "delta":
        return abs(next_delta(scene, dy, mutants))
    return abs(gradient(scene, target, dy, mutants))


def gradient_in(
    chain: Chain, name: str, target: Target, mutants: tuple[Mutant, ...], share: float, decay: float
) -> Callable[[int], Array]:
    """Return what computes a layer's own gradient from the chain's delta, world by world."""
    worlds = chain.worlds
    noise: list[Array] = []

    def scene_in(world: World) -> Scene:
        return world.scenes[name].with_rates(0.0, decay)

    def in_the_true_world() -> Array:
        """Mistakes of the last stage work on what the stages before it made once."""
        scene = scene_in(worlds.true)
        before = tuple(m for m in mutants if m.stage != "out")
        if getattr(scene.layer, "groups", 1) > 1:
            return gradient(scene, target, chain.at(0) * share, mutants)
        key = (name, target, share, *map(id, before))
        dy = chain.at(0) * share
        if key not in chain.bases:
            chain.bases[key] = gradient(scene, target, dy, before)
        made = chain.bases[key]
        for mutant in mutants:
            if mutant.stage == "out":
                made = mutant.change(scene, made, dy)
        return made

    def compute(index: int) -> Array:
        world = worlds.noisy[index - 1] if index else worlds.true
        if not index:
            return in_the_true_world()
        made = gradient(scene_in(world), target, chain.at(index) * share, mutants)
        if index:
            if not noise:
                size = size_of(worlds, name, target, chain.at(0) * share, mutants)
                scene = worlds.true.scenes[name]
                terms = count_terms(scene.layer, scene.x, scene.y)["gradient"]
                noise.append(amplitude_of(size, compute(0), terms, worlds.eps))
            made = made + noise[0] * hashed(made, index + 80)
        return made

    return compute


def has_product(scene: Scene) -> bool:
    """Whether the layer adds up products, and not only chooses or scales."""
    return isinstance(scene.layer, Conv2D | Dense)


def norm(array: Array) -> float:
    """Return the root of the sum of squares."""
    return float(np.sqrt(np.square(array).sum()))
