"""A user's layer, examined input by input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.gradients.differences import largest_first
from fullback.check.layer.any_kind import plain_mistake
from fullback.check.layer.matching import Observation, find_mistakes
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.probes import Probes
from fullback.check.layer.reference import Reference
from fullback.check.layer.report import LayerFinding, LayerRow
from fullback.check.layer.signatures import CallInputs
from fullback.check.layer.slopes import Measured, Slopes
from fullback.check.mistakes import MISTAKES, Mutant
from fullback.layers.base import Array

_SAME = 1e-6  # of the largest entry: what is a rounding, whatever it comes from


@dataclass(frozen=True, eq=False)
class _Wrong:
    """A gradient that differs from finite differences, and where that was seen."""

    name: str
    gradient: Array
    inputs: CallInputs
    dy: Array
    slopes: Slopes
    measured: list[Measured]


class Examination:
    """Collects what is wrong with a layer.

    Attributes
    ----------
    findings, rows, notes : as in ``LayerCheck``
    """

    def __init__(
        self,
        layer: PlainLayer,
        probes: Probes,
        samples: int,
        seed: int,
        users_shapes: bool,
    ) -> None:
        self.layer, self.reference = layer, Reference(probes)
        self.samples = samples
        self.users_shapes = users_shapes  # whether the parameters have the user's shapes
        self.rng = np.random.default_rng(seed)
        self.findings: list[LayerFinding] = []
        self.rows: list[LayerRow] = []
        self.notes: list[str] = []
        self._observations: list[Observation] = []
        self._wrong: list[_Wrong] = []

    def probe(self, probe: str, inputs: CallInputs) -> None:
        """Examine the layer on one input."""
        try:
            with np.errstate(all="ignore"):
                self._probe(probe, inputs)
        except Exception as error:  # noqa: BLE001 -- whatever the user's functions raise
            self._find(None, "backward", probe, 0.0, f"raises {type(error).__name__}: {error}")

    def _probe(self, probe: str, inputs: CallInputs) -> None:
        y = self.layer.run(inputs.copy()).y
        if not np.isfinite(y).all():
            self._find(None, "y", probe, 0.0, "forward returns values that are not finite")
            return
        if not np.array_equal(y, self.layer.run(inputs.copy()).y):
            message = "forward gives something else for the same input; fix its random draws"
            self._find(None, "y", probe, 0.0, message)
            return
        differs = self.reference.forward_differs(inputs, y)
        if differs is not None:
            self._find(None, "y", probe, *differs)
        loss = inputs.labels is not None
        dy = np.ones_like(y) if loss else self.rng.normal(size=y.shape).astype(y.dtype)
        found = self._gradients(probe, inputs, dy)
        expected = {
            "dx": inputs.x,
            **{f"d{name}": array for name, array in inputs.parameters.items()},
        }
        missing = [name for name in expected if name not in found]
        if missing:
            self.notes.append(f"backward returns no {', '.join(missing)}")
        slopes = Slopes(self.layer, inputs, dy, y)
        observation = self.reference.observation(inputs, y, dy, found)
        if observation is not None:
            self._observations.append(observation)
        right = True
        for name in [name for name in expected if name in found]:
            value = self._shaped(probe, name, found[name], expected[name].shape)
            if value is None:
                continue
            found[name] = value
            measured = self._compare(probe, name, value, slopes)
            if measured is not None:
                right = False
                self._wrong.append(_Wrong(name, value, inputs, dy, slopes, measured))
        if right and not loss:
            self._linear(probe, inputs, dy, found)
        self._dtype(inputs, dy)

    # Calling ----------------------------------------------------------------------------------

    def _gradients(self, probe: str, inputs: CallInputs, dy: Array) -> dict[str, Array]:
        """Run backward, and look at what it does to its surroundings."""
        handed, handed_dy = inputs.copy(), dy.copy()
        ran = self.layer.run(handed)
        self._untouched(probe, "forward", inputs, handed)
        y = ran.y.copy()
        handed = inputs.copy() if not _same(inputs, handed) else handed
        first = _copied(self.layer.back(handed, ran, handed_dy))
        self._untouched(probe, "backward", inputs, handed)
        if not np.array_equal(handed_dy, dy):
            message = "backward writes to the dy that it is given"
            self._find("cache-overwritten", "dy", probe, 0.0, message)
        if not np.array_equal(ran.y, y):
            message = "backward writes to the y that forward returned"
            self._find("cache-overwritten", "y", probe, 0.0, message)
        second = _copied(self.layer.gradients(inputs.copy(), dy.copy()))
        third = _copied(self.layer.gradients(inputs.copy(), dy.copy()))
        for name in first:
            steps = second[name] - first[name], third[name] - second[name]
            if np.array_equal(first[name], second[name]):
                continue
            if _close(*steps, _SAME) and np.abs(steps[0]).max() > 0:
                message = (
                    "every call of backward adds to what the calls before left; set the gradient "
                    "to zero first"
                )
                self._find("gradients-not-cleared", name, probe, 0.0, message)
                first[name] = steps[0]
            else:
                message = "backward gives something else when forward and backward run again"
                self._find(None, name, probe, 0.0, message)
        if ran.has_cache and self.layer.takes_cache:
            self._interleaved(probe, inputs, dy, first)
        return first

    def _interleaved(
        self, probe: str, inputs: CallInputs, dy: Array, expected: Mapping[str, Array]
    ) -> None:
        """See whether a cache survives another forward pass, and another backward pass."""
        ran = self.layer.run(handed := inputs.copy())
        other = CallInputs(1 - 2 * inputs.x, inputs.parameters, inputs.labels).copy()
        self.layer.run(other)
        for again in (False, True):
            try:
                found = _copied(self.layer.back(handed, ran, dy.copy()))
            except Exception:  # noqa: BLE001 -- a cache may be used up
                return
            for name, value in found.items():
                doubled = _close(value, 2 * expected[name], _SAME)
                if _close(value, expected[name], _SAME) or doubled:
                    continue
                if again:
                    self.notes.append("backward writes to what forward kept: it is good for once")
                else:
                    message = (
                        "what forward kept is changed by the next forward pass; keep a copy of it"
                    )
                    self._find("cache-overwritten", name, probe, 0.0, message)
                return

    def _untouched(self, probe: str, what: str, inputs: CallInputs, handed: CallInputs) -> None:
        pairs = [("x", inputs.x, handed.x)]
        pairs += [
            (name, array, handed.parameters[name]) for name, array in inputs.parameters.items()
        ]
        for name, before, after in pairs:
            if not np.array_equal(before, after):
                message = f"{what} writes to the {name} that it is given; work on a copy"
                self._find("cache-overwritten", name, probe, 0.0, message)

    # Comparing --------------------------------------------------------------------------------

    def _shaped(self, probe: str, name: str, value: Array, shape: tuple[int, ...]) -> Array | None:
        """Return a gradient in the shape of what it is a gradient of."""
        if value.shape == shape:
            return value
        message = f"{name} has shape {value.shape}, where {shape} is expected"
        plain = [n for n in value.shape if n > 1] == [n for n in shape if n > 1]
        if not plain:
            message += "; it is transposed" * (value.shape == shape[::-1])
            self._find(None, name, probe, 0.0, message)
            return None
        if name == "dx" or (self.users_shapes and np.broadcast_shapes(value.shape, shape) != shape):
            self._find(None, name, probe, 0.0, message)
        else:
            self.notes.append(message)
        return value.reshape(shape)

    def _compare(
        self, probe: str, name: str, value: Array, slopes: Slopes
    ) -> list[Measured] | None:
        """Compare a gradient with finite differences; return these where it is wrong."""
        if not np.isfinite(value).all():
            self._find(None, name, probe, 0.0, f"{name} holds values that are not finite")
            return None
        measured = slopes.measure(name, self._sample(value), self.rng)
        verdict = slopes.verdict(value, measured)
        self.rows.append(
            LayerRow(name, probe, len(measured), verdict.kinks, verdict.error, verdict.precision)
        )
        if verdict.wrong is None:
            return None
        self._find(None, name, probe, verdict.error, verdict.wrong)
        return measured

    def _sample(self, value: Array) -> list[tuple[int, ...]]:
        every = self.rng.permutation(value.size)
        share = self.samples // 3
        largest = largest_first(value, share)
        chosen = list(dict.fromkeys(map(int, [*largest, *every])))[: self.samples]
        return [tuple(map(int, np.unravel_index(n, value.shape))) for n in chosen]

    def _linear(
        self, probe: str, inputs: CallInputs, dy: Array, found: Mapping[str, Array]
    ) -> None:
        """See whether backward is linear in dy, as every derivative is."""
        other = self.rng.normal(size=dy.shape)
        mixed = self.layer.fresh(inputs, 2 * dy - 3 * other)
        alone = self.layer.fresh(inputs, other)
        for name, value in found.items():
            expected = 2 * value - 3 * alone[name].reshape(value.shape)
            actual = mixed[name].reshape(value.shape)
            size = np.abs(value).max() + np.abs(alone[name]).max()
            if np.abs(actual - expected).max() > 1e-5 * size:
                off = float(np.abs(actual - expected).max() / size)
                self._find(None, name, probe, off, "backward is not linear in dy")

    def _dtype(self, inputs: CallInputs, dy: Array) -> None:
        """See whether float32 stays float32."""
        single = CallInputs(
            inputs.x.astype(np.float32),
            {name: array.astype(np.float32) for name, array in inputs.parameters.items()},
            inputs.labels,
        )
        try:
            ran = self.layer.run(single)
            found = self.layer.back(single, ran, dy.astype(np.float32))
        except Exception:  # noqa: BLE001 -- a layer may want float64
            self.notes.append("float32 inputs are not accepted")
            return
        wide = [n for n, v in {"y": ran.y, **found}.items() if v.dtype == np.float64 and v.ndim]
        if wide:
            self.notes.append(f"float64 where the input is float32: {', '.join(wide)}")

    # Naming -----------------------------------------------------------------------------------

    def name_mistakes(self) -> None:
        """Name the mistake in every wrong gradient, where that can be done."""
        for quantity in dict.fromkeys(wrong.name for wrong in self._wrong):
            mutants = find_mistakes(self._observations, quantity)
            named: list[LayerFinding] = []
            for finding in self.findings:
                if finding.quantity != quantity or finding.mistake is not None or not finding.error:
                    named.append(finding)
                elif mutants:
                    named += [_as_mutant(finding, mutant) for mutant in mutants]
                else:
                    named.append(self._as_plain(finding))
            self.findings = named

    def _as_plain(self, finding: LayerFinding) -> LayerFinding:
        """Name what is recognised without knowing what the layer does."""
        for wrong in self._wrong:
            if wrong.name == finding.quantity:
                mistake = plain_mistake(
                    self.layer,
                    wrong.name,
                    wrong.gradient,
                    wrong.inputs,
                    wrong.dy,
                    self.reference.batch_axis,
                    wrong.slopes,
                    wrong.measured,
                )
                if mistake is not None:
                    message = f"{mistake[1]} ({finding.message})"
                    return replace(finding, mistake=mistake[0], message=message)
        return finding

    def _find(
        self, mistake: str | None, quantity: str, probe: str, error: float, message: str
    ) -> None:
        known = {(finding.mistake, finding.quantity, finding.message) for finding in self.findings}
        if (mistake, quantity, message) not in known:
            self.findings.append(LayerFinding(mistake, quantity, probe, error, message))


def _as_mutant(finding: LayerFinding, mutant: Mutant) -> LayerFinding:
    mistake = MISTAKES[mutant.mistake or ""]
    words = f"{mutant.description[0].upper()}{mutant.description[1:]}"
    return replace(
        finding,
        mistake=mistake.id,
        message=f"{words} ({finding.message})",
        mend=mistake.mend,
        hint=mistake.hint,
    )


def _copied(found: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value, np.float64) for name, value in found.items()}


def _same(one: CallInputs, other: CallInputs) -> bool:
    return np.array_equal(one.x, other.x) and all(
        np.array_equal(array, other.parameters[name]) for name, array in one.parameters.items()
    )


def _close(one: Array, other: Array, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    size = float(np.abs(other).max(initial=0.0))
    return bool(np.abs(one - other).max(initial=0.0) <= tolerance * size)
