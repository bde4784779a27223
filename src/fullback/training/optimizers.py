"""Optimizers: what a training step does with a gradient g of a parameter p.

========================  ======================================================================
SGD                       p -= rate * g
with momentum m           v = m v + g,  p -= rate * v
and Nesterov's            v = m v + g,  p -= rate * (g + m v)
Adam, AdamW               a = b1 a + (1 - b1) g,  s = b2 s + (1 - b2) g^2,
                          p -= rate * a / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + epsilon)
========================  ======================================================================

Weight decay d is for weights alone: filters and dense weights, not biases, and not the scales of
a batch normalisation. It adds ``d p`` to g (an L2 term of d / 2 p^2 in the loss), except in AdamW,
where it takes ``rate * d * p`` off p directly.

With ``clip_norm`` c, gradients whose length, all parameters' together, is more than c are first
brought to that length: g *= c / length (Pascanu et al. 2013, algorithm 1).

Sources: Sutskever et al. (2013) for momentum, in the form that frameworks use; Kingma and Ba,
Adam (2015), algorithm 1; Loshchilov and Hutter, Decoupled weight decay (2019), algorithm 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np

from fullback.errors import OptionError
from fullback.layers.base import Array
from fullback.options import require_flag, require_numbers, shown, take_plain

State: TypeAlias = dict[str, Array]
"""What an optimizer remembers: "step", and arrays like "velocity.conv1.weight"."""


@dataclass(frozen=True, repr=False)
class Optimizer(ABC):
    """An optimizer, described by a frozen dataclass; what it remembers is a dict of arrays."""

    memories: ClassVar[tuple[str, ...]]

    learning_rate: float
    clip_norm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        take_plain(self)
        require_numbers(self, learning_rate="(0, inf)")
        if self.clip_norm is not None:
            require_numbers(self, clip_norm="(0, inf)")

    def initial_state(self, parameters: Mapping[str, Array], names: Iterable[str]) -> State:
        """Return the state before the first step, for the parameters of these names."""
        state: State = {"step": np.zeros((), np.int64)}
        for name in names:
            for memory in self.memories:
                state[f"{memory}.{name}"] = np.zeros_like(parameters[name])
        return state

    def step(
        self,
        parameters: MutableMapping[str, Array],
        gradients: Mapping[str, Array],
        state: State,
        names: Iterable[str],
        *,
        factor: float = 1.0,
    ) -> None:
        """Update the parameters of these names, and the state, in place.

        The learning rate is multiplied by ``factor``.
        """
        state["step"] += 1
        rate, names = self.learning_rate * factor, list(names)
        with np.errstate(all="ignore"):  # fit looks for what is not finite, and names it
            share = self._clipped(gradients, names)
            for name in names:
                memories = [state[f"{memory}.{name}"] for memory in self.memories]
                g = gradients[name] if share == 1 else share * gradients[name]
                self.update(parameters[name], g, rate, int(state["step"]), *memories)

    def _clipped(self, gradients: Mapping[str, Array], names: Iterable[str]) -> float:
        """Return what the gradients are multiplied by."""
        if self.clip_norm is None:
            return 1.0
        squares = sum(float(np.square(gradients[name], dtype=np.float64).sum()) for name in names)
        length = float(np.sqrt(squares))
        return self.clip_norm / length if length > self.clip_norm else 1.0

    @abstractmethod
    def update(self, p: Array, g: Array, rate: float, step: int, *memories: Array) -> None:
        """Update one parameter and its memories in place, given its gradient."""

    def __repr__(self) -> str:
        return shown(self)


@dataclass(frozen=True, repr=False)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    learning_rate : positive
    momentum : share of the last step that goes on, in [0, 1)
    nesterov : whether the gradient is taken as if after that share
    weight_decay : d, not negative
    clip_norm : the largest length of all gradients together, or None

    Raises
    ------
    OptionError
        An option is out of range.
    """

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    memories: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, momentum="[0, 1)", weight_decay="[0, inf)")
        require_flag("SGD: nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise OptionError("SGD: nesterov=True needs a momentum, like momentum=0.9")

    def update(self, p: Array, g: Array, rate: float, step: int, *memories: Array) -> None:
        (velocity,) = memories
        g = _with_decay(self.weight_decay, p, g)
        velocity *= self.momentum
        velocity += g
        p -= rate * (g + self.momentum * velocity if self.nesterov else velocity)


@dataclass(frozen=True, repr=False)
class Adam(Optimizer):
    """Adam: every weight's step is scaled by the running size of its gradient.

    Parameters
    ----------
    learning_rate : positive
    beta1, beta2 : shares of the old running mean and mean square, in [0, 1)
    epsilon : number added to the root of the mean square, positive
    weight_decay : d, not negative
    clip_norm : the largest length of all gradients together, or None

    Raises
    ------
    OptionError
        An option is out of range.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    memories: ClassVar[tuple[str, ...]] = ("mean", "square")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(
            self, beta1="[0, 1)", beta2="[0, 1)", epsilon="(0, inf)", weight_decay="[0, inf)"
        )

    def update(self, p: Array, g: Array, rate: float, step: int, *memories: Array) -> None:
        self._move(p, _with_decay(self.weight_decay, p, g), rate, step, *memories)

    def _move(self, p: Array, g: Array, rate: float, step: int, mean: Array, square: Array) -> None:
        mean *= self.beta1
        mean += (1 - self.beta1) * g
        square *= self.beta2
        square += (1 - self.beta2) * g * g
        scale = np.sqrt(square / (1 - self.beta2**step)) + self.epsilon
        p -= rate / (1 - self.beta1**step) * mean / scale


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with weight decay that is taken off the weights, not added to the gradient.

    Parameters are Adam's.
    """

    weight_decay: float = 0.01

    def update(self, p: Array, g: Array, rate: float, step: int, *memories: Array) -> None:
        if p.ndim > 1:
            p *= 1 - rate * self.weight_decay
        self._move(p, g, rate, step, *memories)


CLIP_NORM = 2.0
"""The clip_norm of ``fit``'s own optimizer, of the command's and of the estimators' SGD.

In the first epochs of a run the gradients of a healthy network have lengths around 1, and now and
then a single step has one of 10 or more: at the full learning rate that step throws filters so far
that their ReLUs never answer again, or makes a squared error diverge. Whether such a step comes
depends on the seed and on the number of epochs; with it brought to this length no run was lost.
"""

DEFAULT = SGD(0.05, momentum=0.9, nesterov=True, clip_norm=CLIP_NORM)
"""The optimizer that ``fit`` takes where none is given."""

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
"""Every optimizer by its name on the command line."""


def _with_decay(decay: float, p: Array, g: Array) -> Array:
    return g + decay * p if decay and p.ndim > 1 else g
