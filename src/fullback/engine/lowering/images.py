"""Lowering of what comes before the first layer: images, and their distortions in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fullback.augment import Augment
from fullback.engine.kernels import augment, images
from fullback.engine.loop import FOR_BLOCKS
from fullback.engine.lowering.plan import Plan
from fullback.engine.program import Map
from fullback.engine.simd import LANES

_OWN = ("input",)


def input_map(plan: Plan) -> Map:
    """Write what reads a block's images; return the map that the first layer is given."""
    x = plan.map("input", plan.net.input_shape, plan.ring_before(0))
    chosen = plan.augment
    read = x
    if chosen is not None and chosen.moves:
        read = plan.map("image", plan.net.input_shape, ((1, 2), (1, 2)))
    operands = (*read.view, *read.shape, plan.room)
    plan.emit(FOR_BLOCKS, images.gather, operands, _OWN, (), (read.name,))
    if chosen is not None and chosen.moves:
        _write_distortion(plan, chosen, read, x)
    if chosen is not None and chosen.erase:
        fill = plan.constant(chosen.fill)
        square = (*x.view, *x.shape, chosen.erase, fill)
        plan.emit(FOR_BLOCKS, augment.erase, square, _OWN, _OWN, _OWN)
    if plan.mixes:
        plan.emit(FOR_BLOCKS, augment.mix, (*x.view, *x.shape), _OWN, _OWN, _OWN)
    return x


def _write_distortion(plan: Plan, chosen: Augment, x: Map, y: Map) -> None:
    _, height, width = x.shape
    down, across = chosen.knots(height), chosen.knots(width)
    field = plan.arena.take("field", 2 * down * across * LANES)
    line = plan.arena.take("line", 2 * across * LANES)
    tables = [plan.constant(*_table(chosen, length)) if down else 0 for length in (height, width)]
    given = plan.constant(*chosen.amounts())
    operands = (*x.view, *y.view, *x.shape, given, down, across, field, line, *tables)
    plan.emit(FOR_BLOCKS, augment.distort, operands, _OWN, (x.name,), (y.name,))


def _table(chosen: Augment, length: int) -> Sequence[float]:
    """Return the first knot and the four weights of every pixel along an axis."""
    first, weights = chosen.spline(length)
    table: Sequence[float] = np.column_stack([first, weights]).ravel().tolist()
    return table
