"""Gradients against finite differences of the loss: right or wrong, and how surely.

Every parameter's gradient, and the input's, is compared in three ways: entry by entry (a sample,
where there are many), along a random direction in which all entries of an array move at once, so
that none is left out, and along directions in which all parameters move.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.arrays import numbers
from fullback.check.gradients.batch_loss import BatchLoss, Line
from fullback.check.gradients.differences import (
    CERTAIN,
    STEP,
    Slope,
    largest_first,
    power_of_two,
    random_direction,
)
from fullback.check.gradients.report import DirectionRow, GradientCheck, GradientRow
from fullback.errors import InputError, OptionError, ShapeError
from fullback.layers.base import Array
from fullback.model import Engine
from fullback.network import Network
from fullback.options import require_flag, require_whole
from fullback.passes import trace_batch

_REFERENCE, _FOREIGN = 1e-8, 1e-6  # of the largest entry: what is a rounding, in any case
_DRAWS = 6  # float32 passes whose rounding is looked at
_SHAKE = 8  # roundings by which their numbers are moved
_EPS = float(np.finfo(np.float32).eps)
_MANY = 8.0  # usual float32 errors by which a float32 gradient may be off


def check_gradients(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    gradients: Mapping[str, ArrayLike] | None = None,
    parameters: Sequence[str] | str | None = None,
    samples: int = 50,
    directions: int = 3,
    training: bool = True,
    seed: int = 0,
    engine: Engine = "reference",
) -> GradientCheck:
    """Compare gradients of the loss with finite differences of the loss.

    The differences are taken in float64, whatever the network's dtype. Steps are chosen for every
    entry on its own. Entries at a kink, where the loss has a slope to the left and another to the
    right (a ReLU at exactly 0, a tie in a pooling window), are set apart: they are wrong only where
    their value does not even lie between what the usual rules for such a point give.

    Parameters
    ----------
    net : the network; it is not changed
    x : images, as for ``Network.trace``; a few are enough
    y : labels, or targets
    gradients : gradients to check in place of the network's own: arrays by the names of
        ``net.parameters``, and "input" for dL/dx (of the images as the network sees them: uint8
        divided by 255). Any subset will do. float32 arrays are allowed float32's rounding
    parameters : names of what to check ("conv1.weight", "conv1", "input"); None for everything
    samples : entries to check in each array; the largest gradients are among them, some that are 0,
        and those that differ most from what the reference engine computes
    directions : random directions in which all parameters are moved at once
    training : whether dropout and batch statistics are in force, as in a training step
    seed : fixes the sample, the directions, and what dropout leaves out
    engine : whose gradients are checked: "reference", or "lanes", which has none for the input

    Raises
    ------
    OptionError
        An option is out of range, or there is no parameter of that name.
    ShapeError, InputError
        Shapes that do not fit, labels out of range, values that are not finite, no images.
    """
    require_whole("samples", samples, 1)
    require_whole("directions", directions, 0)
    require_flag("training", training)
    require_whole("seed", seed, 0)
    if gradients is not None and engine != "reference":
        raise OptionError("give gradients or engine='lanes', not both: one of them is checked")
    if net.choose_engine(engine) == "lanes":
        _, checked = net.loss_and_gradients(x, y, training=training, seed=seed, engine="lanes")
        precise = dict.fromkeys(checked, False)
    elif gradients is not None:
        checked, precise = _submitted(net, gradients, np.shape(net.check_images(x)))
    double = net.copy(dtype="float64")
    images = double.check_images(x)
    targets = double.loss.targets(y, len(images), double.output_shape[0])
    loss = BatchLoss(double, images, targets, training=training, seed=seed)
    if gradients is None and engine == "reference":
        checked, precise = loss.gradients, dict.fromkeys(loss.gradients, True)
    names = _chosen(net, parameters, checked)
    floor = _REFERENCE if gradients is None else _FOREIGN
    checker = _Checker(loss, {name: checked[name] for name in names}, precise, floor, samples, seed)
    rows = [checker.row(name) for name in names]
    moved = [name for name in names if name != "input"]
    every = [checker.direction(moved) for _ in range(directions)] if moved else []
    return GradientCheck(
        rows=tuple(rows),
        directional=tuple(every),
        loss=loss.trace.loss,
        images=len(images),
        training=training,
        checked="given" if gradients is not None else engine,
    )


class _Checker:
    """Compares gradients of a batch with differences of its loss."""

    def __init__(
        self,
        loss: BatchLoss,
        checked: Mapping[str, Array],
        precise: Mapping[str, bool],
        floor: float,
        samples: int,
        seed: int,
    ) -> None:
        self.loss, self.checked, self.floor, self.samples = loss, checked, floor, samples
        self.rng = np.random.default_rng(seed)
        self.exact = loss.gradients
        rounded = [name for name in checked if not precise[name]]
        self.roundings = _roundings(loss, rounded, self.rng) if rounded else {}
        largest = {name: float(np.abs(self.exact[name]).max()) for name in checked}
        # Where a gradient is 0 but for rounding, its own largest entry is no measure.
        least = 1e-6 * max(largest.values()) or 1.0
        self.largest = {name: max(size, least) for name, size in largest.items()}

    def row(self, name: str) -> GradientRow:
        """Check one array."""
        checked, unit = self.checked[name], self.largest[name]
        step = power_of_two(STEP * self.loss.size(name))
        places = self._sample(name)
        error = precision = 0.0
        kinks = unclear = wrong = 0
        worst: tuple[float, tuple[int, ...], float, float] | None = None
        for place in places:
            entry = float(checked[place])
            slope = self.loss.slope(self._entry(name, place), step, scale=self.loss.size(name))
            precision = max(precision, slope.error)
            off = abs(entry - slope.value)
            tolerance = self._tolerance(slope, name, place)
            if not off <= tolerance:  # NaN is wrong
                if slope.kink and slope.allows(entry, tolerance):
                    unclear += not slope.follows(entry, tolerance)
                else:
                    wrong += 1
                    if worst is None or not off / tolerance <= worst[0]:
                        worst = off / tolerance, place, entry, slope.value
            kinks += slope.kink
            if not slope.kink:
                error = _larger(error, off)
        whole = self.direction([name])
        return GradientRow(
            name=name,
            shape=checked.shape,
            size=checked.size,
            checked=len(places),
            kinks=kinks,
            unclear=unclear,
            wrong=wrong,
            error=error,
            relative=error / unit,
            precision=precision / unit,
            direction=whole,
            worst=worst[1] if worst else None,
            given=worst[2] if worst else None,
            expected=worst[3] if worst else None,
            ok=wrong == 0 and whole.ok,
        )

    def direction(self, names: Sequence[str]) -> DirectionRow:
        """Check along a random direction in which every entry of the arrays moves."""
        directions = {name: random_direction(self.rng, self.checked[name].shape) for name in names}
        length = _length(directions.values())
        directions = {name: direction / length for name, direction in directions.items()}
        size = _length(self.loss.arrays[name] for name in names) or 1.0
        step = power_of_two(STEP * size)

        def line(t: float) -> Mapping[str, Array]:
            return {
                name: self.loss.arrays[name] + t * direction
                for name, direction in directions.items()
            }

        slope = self.loss.slope(line, step, scale=size)
        value = float(
            sum((self.checked[name] * direction).sum() for name, direction in directions.items())
        )
        steepest = _length(self.exact[name] * directions[name] for name in names)
        steepest = max(steepest, 1e-6 * max(self.largest.values()) / length)
        if slope.kink:
            steepest = max(steepest, *map(abs, slope.rules))
        tolerance = CERTAIN * slope.error + self.floor * steepest
        rounded = [name for name in names if name in self.roundings]
        if rounded:
            # Errors of other roundings need not be as alike, or cancel, as those of the draws.
            parts = [(self.roundings[n] * directions[n]).reshape(_DRAWS, -1) for n in rounded]
            together = sum((part.sum(axis=1) for part in parts), np.zeros(_DRAWS))
            apart = sum((part**2).mean(axis=0).sum() for part in parts)
            usual = float(np.sqrt(max((together**2).mean(), apart)))
            tolerance += _MANY * max(usual, _EPS * steepest)
        off = abs(value - slope.value)
        ok = off <= tolerance or (slope.kink and slope.allows(value, tolerance))
        return DirectionRow(
            given=value,
            expected=slope.value,
            error=off,
            relative=off / steepest,
            precision=slope.error / steepest,
            kink=slope.kink,
            ok=bool(ok),
        )

    def _tolerance(self, slope: Slope, name: str, place: tuple[int, ...]) -> float:
        unit = self.largest[name]
        if slope.kink:
            unit = max(unit, *map(abs, slope.rules))
        tolerance = CERTAIN * slope.error + self.floor * unit
        if name in self.roundings:
            errors: Any = self.roundings[name]
            usual = float(np.sqrt((errors**2).mean()))
            double = float(np.abs(errors[(slice(None), *place)]).max())
            tolerance += _MANY * max(usual, double, _EPS * unit)
        return tolerance

    def _entry(self, name: str, place: tuple[int, ...]) -> Line:
        """Return the line along which one entry moves."""
        array = self.loss.arrays[name]

        def line(t: float) -> Mapping[str, Array]:
            moved = array.copy()
            moved[place] += t
            return {name: moved}

        return line

    def _sample(self, name: str) -> list[tuple[int, ...]]:
        """Choose entries: where mistakes would be large, where gradients are 0, and others."""
        checked, exact = self.checked[name].ravel(), self.exact[name].ravel()
        every = self.rng.permutation(checked.size)
        chosen: Iterable[Any] = every
        if checked.size > self.samples:
            share = -(-self.samples // 4)
            with np.errstate(all="ignore"):
                off = np.nan_to_num(np.abs(checked - exact), nan=np.inf)
            doubtful = [n for n in np.argsort(-off, kind="stable")[:share] if off[n] > 0]
            largest = largest_first(exact, share)
            zeros = every[exact[every] == 0][:share]
            parts = [*doubtful, *largest, *zeros, *every]
            chosen = list(dict.fromkeys(map(int, parts)))[: self.samples]
        shape = self.checked[name].shape
        return [tuple(map(int, np.unravel_index(n, shape))) for n in sorted(map(int, chosen))]


def _roundings(loss: BatchLoss, names: Sequence[str], rng: np.random.Generator) -> dict[str, Array]:
    """Return how far the float32 gradients of a few passes are from exact, (draws, *shape) each.

    Every pass has all its numbers moved by a few roundings, so that the errors also show how they
    are magnified on the way, and what happens to a cell that is nearly at a kink.
    """
    single = loss.net.copy(dtype="float32")
    errors: dict[str, list[Array]] = {name: [] for name in names}
    eps = _SHAKE * _EPS
    for _ in range(_DRAWS):
        moved = {
            name: array * (1 + eps * rng.uniform(-1, 1, array.shape))
            for name, array in loss.arrays.items()
        }
        for name in single.parameters:
            single.parameters[name] = moved[name]
        images = moved["input"].astype(np.float32)
        trace = trace_batch(
            single, images, loss.targets, None, training=loss.training, seed=loss.seed
        )
        found = {"input": trace.deltas["input"], **trace.gradients}
        for name in names:
            errors[name].append(found[name] - loss.gradients[name])
    return {name: np.stack(double) for name, double in errors.items()}


def _submitted(
    net: Network, gradients: Mapping[str, ArrayLike], images: tuple[int, ...]
) -> tuple[dict[str, Array], dict[str, bool]]:
    """Return a user's arrays by name, in float64, and whether they were computed in it."""
    shapes = {**{name: array.shape for name, array in net.parameters.items()}, "input": images}
    if not gradients:
        raise InputError(f"gradients holds no arrays; there are {', '.join(shapes)}")
    checked, precise = {}, {}
    for name in sorted(gradients, key=lambda name: [*shapes, name].index(name)):
        if name not in shapes:
            raise OptionError(f"gradients: {_unknown(name, shapes)}")
        array = numbers(f"gradients: {name}", gradients[name])
        if array.shape != shapes[name]:
            raise ShapeError(
                f"gradients: {name} must have shape {shapes[name]}, got {array.shape}; "
                "fullback.diagnose finds out how another layout is meant"
            )
        checked[name] = array.astype(np.float64)
        with np.errstate(all="ignore"):
            precise[name] = not np.array_equal(
                checked[name].astype(np.float32), checked[name], equal_nan=True
            )
    return checked, precise


def _chosen(
    net: Network, parameters: Sequence[str] | str | None, checked: Mapping[str, Array]
) -> list[str]:
    """Return the names of what is checked, in the network's order, the input first."""
    order = [name for name in ("input", *net.parameters) if name in checked]
    if parameters is None:
        return order
    wanted = [parameters] if isinstance(parameters, str) else list(parameters)
    chosen = set()
    for word in wanted:
        matching = {name for name in order if word in (name, name.split(".")[0])}
        if not matching:
            layers = dict.fromkeys(name.split(".")[0] for name in order)
            raise OptionError(f"parameters: {_unknown(word, [*order, *layers])}")
        chosen |= matching
    if not chosen:
        raise OptionError(f"parameters names nothing to check; there are {', '.join(order)}")
    return [name for name in order if name in chosen]


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"no array is called {name!r}; {hint}"


def _length(arrays: Iterable[Array]) -> float:
    """Return the root of the sum of squares of several arrays."""
    return float(np.sqrt(sum((array**2).sum() for array in arrays)))


def _larger(one: float, other: float) -> float:
    """Return the larger of two numbers, NaN where one is."""
    return float(np.maximum(one, other))
