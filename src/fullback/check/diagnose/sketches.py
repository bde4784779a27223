"""Whether a delta could lead to a submitted gradient, without computing that gradient.

A gradient is linear in the delta: dw = G(dy), and so is the output in the parameter: y = F(w). The
one is the other's transpose, <r, G(dy)> = <F(r), dy> for any r. So F(r) is computed once for a few
random r, and each delta costs an inner product in place of a correlation.
"""

from __future__ import annotations

import numpy as np

from fullback.check.diagnose.chain import Chain, gradient_in, size_of
from fullback.check.diagnose.compare import hopeless, length
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.layouts import Reading
from fullback.check.mistakes import Target, rules_of
from fullback.layers.base import Array

_PROBES = 6
_SOME_NOISY = 1, 2  # passes by which the error of a gradient is estimated
_DEVIATIONS = 5.0  # of an inner product with a normal r, whose deviation is the error's length
_CANCELS = 1e5  # units of rounding, in a sum whose terms are larger by that much


class Sketches:
    """The random outputs F(r) of an ensemble's layers, made where they are asked for."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self._outputs: dict[tuple[str, Target], Array] = {}
        self._sizes: dict[tuple[str, Target], float] = {}
        self._noises: dict[tuple[str, Target], float] = {}
        self._arrays: dict[int, tuple[Reading, Array]] = {}

    def rule_out(
        self, chain: Chain, name: str, target: Target, share: float, reading: Reading
    ) -> bool:
        """Whether the gradient of a delta is certainly another one than the submitted array.

        No undecided unit is decided otherwise for it.
        """
        p = self.ensemble.exact.layers[name]
        if not rules_of(p.layer).weighs or reading.blur:
            return False
        if self.cancels(chain, name, target, reading):
            return False
        if self.uncertain(chain, name, target, share, reading):
            return False
        outputs = self._outputs_of(name, target)
        of_array = self._of_array(reading)
        with np.errstate(all="ignore"):
            of_delta = outputs @ chain.at(0).ravel() * share
        if not np.isfinite(of_delta).all():
            return True
        allowed = _DEVIATIONS * hopeless(self.ensemble.eps)
        size = max(length(reading.values), length(of_delta) / _PROBES**0.5)
        return bool((abs(of_array - of_delta) > allowed * size).any())

    def cancels(self, chain: Chain, name: str, target: Target, reading: Reading) -> bool:
        """Whether an array is so small that it may be what rounding leaves of a sum that is 0."""
        key = name, target
        if key not in self._sizes:
            self._sizes[key] = length(size_of(self.ensemble, name, target, chain.at(0), ()))
        return length(reading.values) <= _CANCELS * self.ensemble.eps * self._sizes[key]

    def uncertain(
        self, chain: Chain, name: str, target: Target, share: float, reading: Reading
    ) -> bool:
        """Whether rounding alone may put an array far off: its factors are what rounding left."""
        key = name, target
        if key not in self._noises:
            computed = gradient_in(chain, name, target, (), share, 0.0)
            self._noises[key] = max(length(computed(r) - computed(0)) for r in _SOME_NOISY)
        return 10 * self._noises[key] > hopeless(self.ensemble.eps) * length(reading.values)

    def _outputs_of(self, name: str, target: Target) -> Array:
        key = name, target
        if key not in self._outputs:
            p = self.ensemble.exact.layers[name]
            zeros = {short: np.zeros_like(array) for short, array in p.parameters.items()}
            shape = p.parameters[target].shape
            probes = self._probes(int(np.prod(shape)))
            self._outputs[key] = np.stack(
                [
                    p.layer.forward(p.x, {**zeros, target: r.reshape(shape)})[0].ravel()
                    for r in probes
                ]
            )
        return self._outputs[key]

    def _of_array(self, reading: Reading) -> Array:
        if id(reading) not in self._arrays:
            flat = reading.values.ravel()
            self._arrays[id(reading)] = reading, self._probes(flat.size) @ flat
        return self._arrays[id(reading)][1]

    @staticmethod
    def _probes(size: int) -> Array:
        return np.random.default_rng(size).normal(size=(_PROBES, size))
