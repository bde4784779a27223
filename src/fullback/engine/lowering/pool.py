"""Lowering of pooling."""

from __future__ import annotations

from typing import Any

from fullback.engine.kernels import pool
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.plan import Lowered, LowerTable, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.program import Map
from fullback.engine.simd import LANES
from fullback.layers import AvgPool2D, GlobalAvgPool2D, MaxPool2D
from fullback.layers.base import Shape
from fullback.layers.window import pads, pair


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a pooling; GlobalAvgPool2D is one whose window is the map."""
    layer, name = step.layer, step.name
    counts: Shape
    y = plan.output(n, step, x)
    if isinstance(layer, GlobalAvgPool2D):
        size, stride, padding, counts = x.shape[1:], (1, 1), (0, 0), (1, 1)
    else:
        (above, _), (left, _) = pads(layer.padding, step.input_shape[1:], layer.size, layer.step)
        size, stride, padding = pair(layer.size), layer.step, (above, left)
        counts = step.output_shape[1:]
    windows: dict[str, Any] = {"shape": x.shape, "counts": counts, "size": size, "stride": stride}
    windows["before"] = padding
    largest = isinstance(layer, MaxPool2D)
    if largest:
        room = y.features * LANES
        windows["winners"] = plan.arena.take(f"{name} winners", room) if plan.backwards else None

    def on_map(output: Map) -> Map:
        """Return an output map as the kernels see it: of rows and columns."""
        is_global = isinstance(layer, GlobalAvgPool2D)
        return output.reshaped(output.features, 1, 1) if is_global else output

    kernel, says = pool.avgpool, f"{name} takes the mean of every window."
    if largest:
        kernel = pool.maxpool
        says = f"{name} keeps the largest cell of every window and remembers which one it was."
    plan.emit(kernel, says, x=x, y=on_map(y), **windows)

    def back() -> None:
        if not plan.needs_dx(n):
            return
        maps: dict[str, Any] = {"dy": on_map(plan.delta(n)), "dx": plan.delta(n - 1)}
        if largest:
            says = f"{name} hands each delta to the cell that won its window; the others get 0."
            sources = (f"d:{name}", f"a:{before(plan.net, name)}")  # whose largest cells won
            plan.emit(pool.maxpool_dx, says, sources=sources, **maps, **windows)
        else:
            says = f"{name} shares each delta out evenly over its window."
            plan.emit(pool.avgpool_dx, says, **maps, **windows)

    return y, back


class UnitMeans:
    """Writes the means of the units of ReLU layers: of every channel of an image, or feature."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.done = plan, 0
        shapes = [step.output_shape for step in plan.steps if step.rectifies]
        self.all = plan.map("means", (sum(shape[0] for shape in shapes),))

    def write(self, step: Step, x: Map) -> None:
        """Write the means of the next ReLU layer, whose output is given."""
        units = step.output_shape[0]
        x = x if len(step.output_shape) == 3 else x.reshaped(units, 1, 1)
        means = self.all.moved(0, self.done).reshaped(units, 1, 1)
        windows: dict[str, Any] = {
            "counts": (1, 1),
            "size": x.shape[1:],
            "stride": (1, 1),
            "before": (0, 0),
        }
        self.plan.emit(pool.avgpool, x=x, y=means, shape=x.shape, **windows)
        self.done += units


LOWER: LowerTable = dict.fromkeys((MaxPool2D, AvgPool2D, GlobalAvgPool2D), lower)
