"""One layer of somebody's, examined input by input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fullback.check.calling import PlainLayer
from fullback.check.layer_calls import Given
from fullback.check.layer_kinds import reference_output
from fullback.check.layer_names import plain_mistake
from fullback.check.layer_probes import Probes
from fullback.check.layer_report import LayerFinding, LayerRow
from fullback.check.layer_slopes import Measured, Slopes
from fullback.layers.base import Array

if TYPE_CHECKING:
    from fullback.check.layer import NameLayerMistake

_SAME = 1e-6  # of the largest entry: what is a rounding, whatever it comes from


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
        name_mistake: NameLayerMistake | None,
        given_shapes: bool,
    ) -> None:
        self.layer, self.reference, self.layout = layer, probes.reference, probes.layout
        self.samples, self.name_mistake = samples, name_mistake
        self.given_shapes = given_shapes  # whether the parameters have the user's own shapes
        self.rng = np.random.default_rng(seed)
        self.findings: list[LayerFinding] = []
        self.rows: list[LayerRow] = []
        self.notes: list[str] = []
        self._named: set[str] = set()  # quantities whose mistake has a name

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
        self._compare_forward(probe, given, y)
        loss = given.labels is not None
        dy = np.ones_like(y) if loss else self.rng.normal(size=y.shape).astype(y.dtype)
        found = self._gradients(probe, given, dy)
        wanted = {"dx": given.x, **{f"d{name}": own for name, own in given.parameters.items()}}
        missing = [name for name in wanted if name not in found]
        if missing:
            self.notes.append(f"backward returns no {', '.join(missing)}")
        slopes = Slopes(self.layer, given, dy, y)
        wrong = {}
        for name in [name for name in wanted if name in found]:
            value = self._shaped(probe, name, found[name], wanted[name].shape)
            if value is None:
                continue
            found[name] = value
            measured = self._compare(probe, name, value, slopes)
            if measured is not None:
                wrong[name] = measured
        for name, measured in wrong.items():
            if name not in self._named:
                mistake = plain_mistake(
                    self.layer, name, found[name], given, dy, self._batch_axis(), slopes, measured
                ) or self._handed_on(found, given, dy)
                self._name(probe, name, mistake)
        if not wrong and not loss:
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

    def _compare_forward(self, probe: str, given: Given, y: Array) -> None:
        if self.reference is None or self.layout is None:
            return
        x, parameters = self._ours(given)
        wanted = reference_output(self.reference, x, parameters)
        theirs = self.layout.image_in(y)
        if wanted is None:
            return
        if theirs.shape != wanted.shape:
            message = f"forward returns {theirs.shape}, where {self.reference} gives {wanted.shape}"
            self._find(None, "y", probe, 0.0, message)
        elif not _close(theirs, wanted, _SAME):
            off = _relative(theirs - wanted, wanted)
            message = f"forward differs from {self.reference}'s output by {off:.1e} of its largest"
            self._find(None, "y", probe, off, message)

    def _ours(self, given: Given) -> tuple[Array, dict[str, Array]]:
        """Return an input and parameters in the reference's layout, by its names."""
        if self.reference is None or self.layout is None:
            return given.x, {}
        x = self.layout.image_in(given.x)
        shapes = self.reference.parameter_shapes(x.shape[1:])
        named = zip(shapes.items(), given.parameters.values(), strict=False)
        parameters = {}
        for (name, shape), array in named:
            own = self.layout.parameter_in(array, shape)
            if own is not None:
                parameters[name] = own
        for name, shape in shapes.items():
            parameters.setdefault(name, np.zeros(shape))
        return x, parameters

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

    def _name(self, probe: str, name: str, mistake: tuple[str, str] | None) -> None:
        """Give the finding about a wrong gradient its name."""
        if mistake is None:
            return
        self._named.add(name)
        for n, own in enumerate(self.findings):
            if (own.quantity, own.probe, own.mistake) == (name, probe, None) and own.error:
                message = f"{mistake[1]} ({own.message})"
                self.findings[n] = replace(own, mistake=mistake[0], message=message)

    def _handed_on(
        self, found: Mapping[str, Array], given: Given, dy: Array
    ) -> tuple[str, str] | None:
        """Ask for the mistake of a layer of a known kind, in the reference's layouts."""
        if self.reference is None or self.layout is None or self.name_mistake is None:
            return None
        x, parameters = self._ours(given)
        theirs = {}
        shapes = self.reference.parameter_shapes(x.shape[1:])
        if "dx" in found:
            theirs["dx"] = self.layout.image_in(found["dx"])
        for (own, shape), name in zip(shapes.items(), given.parameters, strict=False):
            array = found.get(f"d{name}")
            array = None if array is None else self.layout.parameter_in(array, shape)
            if array is not None:
                theirs[own] = array
        return self.name_mistake(self.reference, x, parameters, self.layout.image_in(dy), theirs)

    def _batch_axis(self) -> int:
        images = self.layout.images if self.layout is not None else None
        return 0 if images is None else images.index(0)

    def _find(
        self, mistake: str | None, quantity: str, probe: str, error: float, message: str
    ) -> None:
        known = {(own.mistake, own.quantity, own.message) for own in self.findings}
        if (mistake, quantity, message) not in known:
            self.findings.append(LayerFinding(mistake, quantity, probe, error, message))


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
