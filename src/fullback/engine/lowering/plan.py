"""The program of a network as it is written, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fullback.augment import Augment
from fullback.engine.kernels import images, loss, optimizer
from fullback.engine.loop import FOR_BLOCKS, FOR_WORKERS
from fullback.engine.lowering.steps import Step, steps
from fullback.engine.program import NO_RING, Instruction, Map, Memory, Phase, Ring
from fullback.engine.simd import LANES, Kernel
from fullback.errors import OptionError
from fullback.layers import Conv2D, Dropout, Flatten, MeanSquaredError, SoftmaxCrossEntropy
from fullback.layers.window import pads
from fullback.network import Network

Purpose: TypeAlias = Literal["logits", "probabilities", "gradients", "training"]

Lowered: TypeAlias = tuple[Map, Callable[[], None]]
"""What lowering a step gives: the map of its output, and what writes its backward pass."""

MOST_CHUNKS = 16
_CHUNK_FLOATS = 2**26  # gradients of all chunks together


@dataclass(frozen=True)
class Update:
    """What an optimizer does.

    Attributes
    ----------
    kernel : its kernel
    memories : names of what it remembers of every parameter, at most two
    weights : the kernel's numbers for weights
    others : its numbers for biases and the scales of a batch normalisation
    clip : the largest length of all gradients together, or None
    averages : whether there is a running average of every parameter
    """

    kernel: Kernel
    memories: tuple[str, ...]
    weights: tuple[float, ...]
    others: tuple[float, ...]
    clip: float | None = None
    averages: bool = False


GRADIENTS = Update(optimizer.total, (), (), ())
"""Nothing but adding up the gradients of the chunks."""


class Plan:
    """Writes a network's program.

    After ``lower``: ``phases``, ``arena`` and ``shared``, the planned memory; ``constants``, what
    shared memory holds from the start; the places of ``parameters``, ``statistics``, ``memories``
    (of the optimizer) and, where they are asked for, ``gradients``.
    """

    def __init__(
        self,
        net: Network,
        purpose: Purpose,
        *,
        blocks: int,
        training: bool = False,
        update: Update = GRADIENTS,
        augment: Augment | None = None,
        mixes: bool = False,
        guard: int = 0,
    ) -> None:
        self.net, self.purpose, self.blocks = net, purpose, blocks
        self.augment, self.mixes = augment, mixes
        self.backwards = purpose in ("gradients", "training")
        self.training = training and self.backwards
        self.update = update
        self.arena, self.shared = Memory(guard), Memory(guard)
        self.phases: list[Phase] = []
        self.early: list[Instruction] = []
        self.late: list[Instruction] = []
        self.pieces: dict[str, tuple[int, int, int, int, int]] = {}
        self.constants: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.random = [
            name for name, layer in zip(net.names, net.layers, strict=True) if layer.random
        ]
        self.steps = [step for step in steps(net) if not self._is_nothing(step)]
        self.deltas: dict[int, Map] = {}
        self.maps: dict[str, Map] = {}
        self.parameters = {
            name: self.shared.take(name, array.size) for name, array in net.parameters.items()
        }
        self.statistics = {
            name: self.shared.take(name, array.size) for name, array in net.statistics.items()
        }
        self.memories: dict[str, int] = {}
        self.gradients: dict[str, int] = {}
        count = sum(array.size for array in net.parameters.values())
        self.chunks = max(1, min(MOST_CHUNKS, blocks, _CHUNK_FLOATS // max(count, 1)))
        self.wanted = set(net.parameters) if purpose == "gradients" else set(net.trainable())
        self.lowest = self._lowest_trained()
        self.room = self.arena.take("room", LANES * LANES)

    # Writing --------------------------------------------------------------------------------------

    def emit(
        self,
        scope: int,
        kernel: Kernel,
        operands: Sequence[int],
        layers: Sequence[str],
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
        *,
        early: bool = False,
    ) -> None:
        """Add an instruction, to the phase that is being written where that is for the same.

        What is ``early`` goes to the front.
        """
        instruction = Instruction(
            kernel, tuple(operands), tuple(layers), tuple(reads), tuple(writes)
        )
        if early:
            self.early.append(instruction)
            return
        if not self.phases or self.phases[-1].scope != scope:
            self.phases.append(Phase(scope, []))
        self.phases[-1].instructions.append(instruction)

    def constant(self, *values: float) -> int:
        """Put numbers into shared memory and return their place."""
        place = self.shared.take("constants", len(values))
        self.constants.append((place, np.array(values, np.float32)))
        return place

    def map(self, name: str, shape: tuple[int, ...], ring: Ring = NO_RING) -> Map:
        """Plan a map; a row of features is one row of cells."""
        channels, height, width = shape if len(shape) == 3 else (1, 1, shape[0])
        (above, below), (left, right) = ring
        pitch = (left + width + right) * LANES
        plane = (above + height + below) * pitch
        size = (
            -(-channels * plane // (LANES * LANES)) * LANES * LANES
        )  # whole squares, for ``rows``
        place = self.arena.take(name, size) + above * pitch + left * LANES
        self.maps[name] = Map(name, place, (channels, height, width), plane, pitch)
        return self.maps[name]

    # Maps -----------------------------------------------------------------------------------------

    def needs_dx(self, n: int) -> bool:
        """Return whether anything before step n has a gradient to be computed."""
        return n > self.lowest

    def _is_nothing(self, step: Step) -> bool:
        """Return whether a step hands on what it is given: dropout that is not in force."""
        if not isinstance(step.layer, Dropout):
            return False
        in_force = self.training and step.name not in self.net.frozen
        return not in_force or step.layer.rate == 0

    def _lowest_trained(self) -> int:
        """Return the first step with parameters whose gradients are wanted."""
        for n, step in enumerate(self.steps):
            if any(name.split(".")[0] in step.names for name in self.wanted):
                return n
        return len(self.steps)

    def ring_before(self, n: int) -> Ring:
        """Return the padding that the reader of step n's input wants stored around it."""
        for step in self.steps[n:]:
            if isinstance(step.layer, Conv2D):
                layer = step.layer
                return pads(
                    layer.padding, step.given[1:], layer.kernel_size, layer.stride, layer.dilation
                )
            if not step.in_place:
                return NO_RING
        return NO_RING

    def output(self, n: int, step: Step, x: Map) -> Map:
        """Return the map of step n's output: its input's, where nothing reads that any more."""
        before = [own for own in self.steps[:n] if not isinstance(own.layer, Flatten)]
        if step.in_place and not (self.backwards and before and before[-1].keeps_output):
            return x
        return self.map(step.names[-1], step.made, self.ring_before(n + 1))

    def delta(self, n: int) -> Map:
        """Return the map of the delta of step n's output."""
        if n not in self.deltas:
            step = self.steps[n]
            if step.in_place and n > 0 and n > self.lowest:
                self.deltas[n] = self.delta(n - 1)
            elif isinstance(step.layer, Flatten) and n > self.lowest and self.delta(n - 1).dense:
                self.deltas[n] = self.delta(n - 1).flat(f"d {step.name}")
            else:
                ring = NO_RING
                if isinstance(step.layer, Conv2D) and not step.pooled and self.needs_dx(n):
                    ring = step.delta_ring
                self.deltas[n] = self.map(f"d {step.names[-1]}", step.made, ring)
        return self.deltas[n]

    # Gradients and parameters ---------------------------------------------------------------------

    def wants(self, name: str) -> bool:
        """Return whether the gradient of a parameter is to be computed."""
        return self.backwards and name in self.wanted

    def piece(
        self, name: str, rows: int, columns: int, *, chunked: bool = False, padded: bool = False
    ) -> tuple[int, int, int]:
        """Plan a gradient; return its place, its rows' length, and the step between chunks.

        ``chunked`` is a gradient that every chunk of blocks has its own of; ``padded`` one whose
        rows are filled up to whole vectors.
        """
        pitch = -(-columns // LANES) * LANES if padded else columns
        size = -(-rows * pitch // LANES) * LANES
        step = size if chunked else 0
        place = self.shared.take(f"d {name}", size * (self.chunks if chunked else 1))
        self.pieces[name] = (place, rows, columns, pitch, step)
        return place, pitch, step

    def write_parameters(self) -> None:
        """Write what happens to the gradients."""
        operands: tuple[int, ...]
        factor = self._write_clipping() if self.purpose == "training" else 0
        for name, (place, rows, columns, pitch, step) in self.pieces.items():
            layer = name.split(".")[0]
            if self.purpose == "gradients":
                to = self.gradients[name] = self.shared.take(f"dL/d {name}", rows * columns)
                operands = (to, rows, columns, place, pitch, step)
                self.emit(
                    FOR_WORKERS, optimizer.total, operands, (layer,), (f"d {name}",), (f"d {name}",)
                )
                continue
            places = []
            for memory in self.update.memories:
                places.append(self.shared.take(f"{memory}.{name}", rows * columns))
                self.memories[f"{memory}.{name}"] = places[-1]
            places += [0] * (2 - len(places))
            operands = (self.parameters[name], rows, columns, place, pitch, step, *places)
            is_weight = self.net.parameters[name].ndim > 1
            given = self.constant(*(self.update.weights if is_weight else self.update.others))
            self.emit(
                FOR_WORKERS,
                self.update.kernel,
                (*operands, given, factor),
                (layer,),
                (f"d {name}",),
                (name,),
            )
            if self.update.averages:
                kept = f"average.{name}"
                self.memories[kept] = self.shared.take(kept, rows * columns)
                operands = (self.parameters[name], rows, columns, self.memories[kept])
                self.emit(FOR_WORKERS, optimizer.average, operands, (layer,), (name,), (kept,))

    def _write_clipping(self) -> int:
        """Write what clips gradients, and return the place of the factor."""
        factor = self.constant(1.0)
        if self.update.clip is None:
            return factor
        count = sum(rows for _, rows, *_ in self.pieces.values())
        sums, done = self.shared.take("squares", count), 0
        for name, piece in self.pieces.items():
            layer = (name.split(".")[0],)
            place, rows, columns, pitch, step = piece
            operands = (sums + done, rows, columns, place, pitch, step)
            self.emit(FOR_WORKERS, optimizer.squares, operands, layer, (f"d {name}",), ("squares",))
            done += rows
        self.phases.append(Phase(FOR_WORKERS, []))  # every worker's sums are there
        limit = self.constant(self.update.clip)
        self.emit(
            FOR_WORKERS, optimizer.clip, (sums, count, limit, factor), ("loss",), ("squares",)
        )
        self.phases.append(Phase(FOR_WORKERS, []))  # and the factor
        return factor

    def write_loss(self, x: Map) -> None:
        """Write the loss and the first delta, or the answers.

        Raises
        ------
        OptionError
            There is no kernel for the loss.
        """
        outputs = x.features
        if self.purpose == "probabilities":
            self.emit(FOR_BLOCKS, loss.softmax, (x.place, outputs), ("loss",), (x.name,), (x.name,))
        if not self.backwards:
            self.emit(FOR_BLOCKS, images.output, (x.place, outputs), ("loss",), (x.name,))
            return
        dx = self.delta(len(self.steps) - 1) if self.steps else self.map("d input", x.shape[-1:])
        if type(self.net.loss) is MeanSquaredError:
            self.emit(
                FOR_BLOCKS,
                loss.mean_squared_error,
                (x.place, dx.place, outputs, self.room, self.mixes),
                ("loss",),
                (x.name,),
                (dx.name,),
            )
        elif type(self.net.loss) is SoftmaxCrossEntropy:
            smoothing = self.constant(self.net.loss.label_smoothing)
            self.emit(
                FOR_BLOCKS,
                loss.softmax_cross_entropy,
                (x.place, dx.place, outputs, self.room, smoothing, self.mixes),
                ("loss",),
                (x.name,),
                (dx.name,),
            )
        else:
            raise OptionError(
                f"the lane engine has no kernel for {self.net.loss}; give engine='reference'"
            )
