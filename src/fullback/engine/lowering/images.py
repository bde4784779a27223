"""Lowering of what comes before the first layer: images, and their distortions in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fullback.augment import Augment
from fullback.engine.kernels import augment, images
from fullback.engine.lowering.plan import Plan
from fullback.engine.program import Map
from fullback.engine.simd import LANES


def input_map(plan: Plan) -> Map:
    """Write what reads a block's images; return the map that the first layer is given."""
    x = plan.map("input", plan.net.input_shape, plan.ring_before(0))
    chosen = plan.augment
    read = x
    if chosen is not None and chosen.moves:
        read = plan.map("image", plan.net.input_shape, ((1, 2), (1, 2)))
    says = "The image is read; bytes become numbers on the scale that the network takes."
    plan.emit(images.gather, says, y=read, shape=read.shape, room=plan.room)
    if chosen is not None and chosen.moves:
        _write_distortion(plan, chosen, read, x)
    if chosen is not None and chosen.erase:
        fill = plan.constant(chosen.fill)
        plan.emit(augment.erase, x=x, shape=x.shape, side=chosen.erase, fill=fill)
    if plan.mixes:
        plan.emit(augment.mix, x=x, shape=x.shape)
    return x


def _write_distortion(plan: Plan, chosen: Augment, x: Map, y: Map) -> None:
    _, height, width = x.shape
    down, across = chosen.knots(height), chosen.knots(width)
    elastic: dict[str, Any] = {
        "knots": (down, across),
        "field": plan.arena.take("field", 2 * down * across * LANES),
        "line": plan.arena.take("line", 2 * across * LANES),
        "row_table": plan.constant(*_table(chosen, height)) if down else None,
        "column_table": plan.constant(*_table(chosen, width)) if down else None,
    }
    amounts = plan.constant(*chosen.amounts())
    plan.emit(augment.distort, x=x, y=y, shape=x.shape, amounts=amounts, **elastic)


def _table(chosen: Augment, length: int) -> Sequence[float]:
    """Return the first knot and the four weights of every pixel along an axis."""
    first, weights = chosen.spline(length)
    table: Sequence[float] = np.column_stack([first, weights]).ravel().tolist()
    return table
