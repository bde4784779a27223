"""One layer of somebody's, examined input by input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.layer.any_kind import plain_mistake
from fullback.check.layer.matching import Seen, find_mistakes
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.probes import Probes
from fullback.check.layer.reference import Reference
from fullback.check.layer.report import LayerFinding, LayerRow
from fullback.check.layer.signatures import Given
from fullback.check.layer.slopes import Measured, Slopes
from fullback.check.mistakes import MISTAKES, Mutant
from fullback.layers.base import Array

_SAME = 1e-6  # of the largest entry: what is a rounding, whatever it comes from


@dataclass(frozen=True, eq=False)
class _Wrong:
    """A gradient that differs from finite differences, and where that was seen."""

    name: str
    gradient: Array
    given: Given
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
        given_shapes: bool,
    ) -> None:
        self.layer, self.reference = layer, Reference(probes)
        self.samples = samples
        self.given_shapes = given_shapes  # whether the parameters have the user's own shapes
        self.rng = np.random.default_rng(seed)
        self.findings: list[LayerFinding] = []
        self.rows: list[LayerRow] = []
        self.notes: list[str] = []
        self._seen: list[Seen] = []
        self._wrong: list[_Wrong] = []

    def probe(self, probe: str, given: Given) -> None:
        """Examine the layer on one input."""
        try:
            with np.errstate(all="ignore"):
                self._probe(probe, given)
        except Exception as error:  # noqa: BLE001 -- whatever their functions raise
            self._find(None, "backward", probe, 0.0, f"raises {type(error).__name__}: {error}")

    def _probe(self, probe: str, given: Given) -> None:
        y = self.layer.run(given.copy()).y
        if not np.isfinite(y).all():
            self._find(None, "y", probe, 0.0, "forward returns values that are not finite")
            return
        if not np.array_equal(y, self.layer.run(given.copy()).y):
            message = "forward gives something else for the same input; fix its random draws"
            self._find(None, "y", probe, 0.0, message)
            return
        differs = self.reference.forward_differs(given, y)
        if differs is not None:
            self._find(None, "y", probe, *differs)
        loss = given.labels is not None
        dy = np.ones_like(y) if loss else self.rng.normal(size=y.shape).astype(y.dtype)
        found = self._gradients(probe, given, dy)
        wanted = {"dx": given.x, **{f"d{name}": own for name, own in given.parameters.items()}}
        missing = [name for name in wanted if name not in found]
        if missing:
            self.notes.append(f"backward returns no {', '.join(missing)}")
        slopes = Slopes(self.layer, given, dy, y)
        seen = self.reference.seen(given, y, dy, found)
        if seen is not None:
            self._seen.append(seen)
        right = True
        for name in [name for name in wanted if name in found]:
            value = self._shaped(probe, name, found[name], wanted[name].shape)
            if value is None:
                continue
            found[name] = value
            measured = self._compare(probe, name, value, slopes)
            if measured is not None:
                right = False
                self._wrong.append(_Wrong(name, value, given, dy, slopes, measured))
        if right and not loss:
            self._linear(probe, given, dy, found)
        self._dtype(given, dy)

    # Calling ----------------------------------------------------------------------------------

    def _gradients(self, probe: str, given: Given, dy: Array) -> dict[str, Array]:
        """Run backward, and look at what it does to its surroundings."""
        own, own_dy = given.copy(), dy.copy()
        ran = self.layer.run(own)
        self._untouched(probe, "forward", given, own)
        y = ran.y.copy()
        own = given.copy() if not _same(given, own) else own
        first = _copied(self.layer.back(own, ran, own_dy))
        self._untouched(probe, "backward", given, own)
        if not np.array_equal(own_dy, dy):
            message = "backward writes to the dy that it is given"
            self._find("cache-overwritten", "dy", probe, 0.0, message)
        if not np.array_equal(ran.y, y):
            message = "backward writes to the y that forward returned"
            self._find("cache-overwritten", "y", probe, 0.0, message)
        second = _copied(self.layer.gradients(given.copy(), dy.copy()))
        third = _copied(self.layer.gradients(given.copy(), dy.copy()))
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
            self._interleaved(probe, given, dy, first)
        return first

    def _interleaved(
        self, probe: str, given: Given, dy: Array, expected: Mapping[str, Array]
    ) -> None:
        """See whether a cache survives another forward pass, and another backward pass."""
        ran = self.layer.run(own := given.copy())
        other = Given(1 - 2 * given.x, given.parameters, given.labels).copy()
        self.layer.run(other)
        for again in (False, True):
            try:
                found = _copied(self.layer.back(own, ran, dy.copy()))
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

    def _untouched(self, probe: str, what: str, given: Given, own: Given) -> None:
        pairs = [("x", given.x, own.x)]
        pairs += [(name, array, own.parameters[name]) for name, array in given.parameters.items()]
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
        if name == "dx" or (self.given_shapes and np.broadcast_shapes(value.shape, shape) != shape):
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
        largest = np.argsort(-np.abs(value.ravel()), kind="stable")[:share]
        chosen = list(dict.fromkeys(map(int, [*largest, *every])))[: self.samples]
        return [tuple(map(int, np.unravel_index(n, value.shape))) for n in chosen]

    def _linear(self, probe: str, given: Given, dy: Array, found: Mapping[str, Array]) -> None:
        """See whether backward is linear in dy, as every derivative is."""
        other = self.rng.normal(size=dy.shape)
        mixed = self.layer.fresh(given, 2 * dy - 3 * other)
        alone = self.layer.fresh(given, other)
        for name, value in found.items():
            expected = 2 * value - 3 * alone[name].reshape(value.shape)
            actual = mixed[name].reshape(value.shape)
            size = np.abs(value).max() + np.abs(alone[name]).max()
            if np.abs(actual - expected).max() > 1e-5 * size:
                off = float(np.abs(actual - expected).max() / size)
                self._find(None, name, probe, off, "backward is not linear in dy")

    def _dtype(self, given: Given, dy: Array) -> None:
        """See whether float32 stays float32."""
        single = Given(
            given.x.astype(np.float32),
            {name: own.astype(np.float32) for name, own in given.parameters.items()},
            given.labels,
        )
        try:
            ran = self.layer.run(single)
            found = self.layer.back(single, ran, dy.astype(np.float32))
        except Exception:  # noqa: BLE001 -- a layer may want float64
            self.notes.append("float32 inputs are not taken")
            return
        wide = [n for n, v in {"y": ran.y, **found}.items() if v.dtype == np.float64 and v.ndim]
        if wide:
            self.notes.append(f"float64 where the input is float32: {', '.join(wide)}")

    # Naming -----------------------------------------------------------------------------------

    def name_mistakes(self) -> None:
        """Name the mistake in every wrong gradient, where that can be done."""
        for quantity in dict.fromkeys(wrong.name for wrong in self._wrong):
            mutants = find_mistakes(self._seen, quantity)
            named: list[LayerFinding] = []
            for own in self.findings:
                if own.quantity != quantity or own.mistake is not None or not own.error:
                    named.append(own)
                elif mutants:
                    named += [_as_mutant(own, mutant) for mutant in mutants]
                else:
                    named.append(self._as_plain(own))
            self.findings = named

    def _as_plain(self, finding: LayerFinding) -> LayerFinding:
        """Name what can be told without knowing what the layer does."""
        for wrong in self._wrong:
            if wrong.name == finding.quantity:
                mistake = plain_mistake(
                    self.layer,
                    wrong.name,
                    wrong.gradient,
                    wrong.given,
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
        known = {(own.mistake, own.quantity, own.message) for own in self.findings}
        if (mistake, quantity, message) not in known:
            self.findings.append(LayerFinding(mistake, quantity, probe, error, message))


def _as_mutant(finding: LayerFinding, mutant: Mutant) -> LayerFinding:
    mistake = MISTAKES[mutant.mistake or ""]
    said = f"{mutant.said[0].upper()}{mutant.said[1:]}"
    return replace(
        finding,
        mistake=mistake.id,
        message=f"{said} ({finding.message})",
        mend=mistake.mend,
        hint=mistake.hint,
    )


def _copied(found: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value, np.float64) for name, value in found.items()}


def _same(one: Given, other: Given) -> bool:
    return np.array_equal(one.x, other.x) and all(
        np.array_equal(array, other.parameters[name]) for name, array in one.parameters.items()
    )


def _close(one: Array, other: Array, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    size = float(np.abs(other).max(initial=0.0))
    return bool(np.abs(one - other).max(initial=0.0) <= tolerance * size)


def _relative(difference: Array, of: Array) -> float:
    return float(np.abs(difference).max() / (np.abs(of).max() or 1.0))
