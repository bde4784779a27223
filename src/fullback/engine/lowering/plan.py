"""The program of a network as it is written, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fullback.augment import Augment
from fullback.engine.kernels import images, loss, optimizer
from fullback.engine.loop import FOR_BLOCKS, FOR_WORKERS
from fullback.engine.lowering import trace
from fullback.engine.lowering.grouping import Step, steps
from fullback.engine.operands import DECLARATIONS
from fullback.engine.program import (
    NO_RING,
    Instruction,
    Map,
    Memory,
    Operand,
    Phase,
    Region,
    Ring,
    Share,
    row_of,
)
from fullback.engine.simd import LANES, Kernel
from fullback.errors import OptionError
from fullback.layers import (
    BinaryCrossEntropy,
    Conv2D,
    Dropout,
    Flatten,
    Layer,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)
from fullback.layers.window import pads
from fullback.model import Model

Purpose: TypeAlias = Literal["logits", "probabilities", "units", "gradients", "training"]

Sums: TypeAlias = Literal["end", "layer"]

Lowered: TypeAlias = tuple[Map, Callable[[], None]]
"""What lowering a step returns: the map of its output, and what writes its backward pass."""

LowerTable: TypeAlias = dict[type[Layer], "Callable[[Plan, int, Step, Map], Lowered]"]
"""What lowers a step, by the type of its first layer."""

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


@dataclass(frozen=True)
class Gradient:
    """Where a parameter's gradient lies in shared memory.

    Attributes
    ----------
    region : its place
    rows, columns : its size
    pitch : length of a row
    chunk_step : from one chunk's gradient to the next, or 0 where there is one for all
    whole : whether it is always the sum over all blocks of a batch, also of other ranks
    """

    region: Region
    rows: int
    columns: int
    pitch: int
    chunk_step: int = 0
    whole: bool = False

    @property
    def operands(self) -> dict[str, Any]:
        """What the optimizers' kernels take for it."""
        sizes: dict[str, Any] = {"rows": self.rows, "columns": self.columns, "pitch": self.pitch}
        return {"g": self.region, **sizes, "chunk_step": self.chunk_step}


class Plan:
    """Writes a network's program.

    ``sums`` says whether several ranks add up their gradients: not at all, in the "end" of the
    backward pass, or after each "layer" of it.

    After ``lower``: ``phases``, ``arena`` and ``shared``, the planned memory; ``constants``, what
    shared memory holds from the start; the places of ``parameters``, ``statistics``, ``memories``
    (of the optimizer) and, where they are asked for, ``gradients``.
    """

    images = LANES  # that an instruction computes together

    def __init__(
        self,
        net: Model,
        purpose: Purpose,
        *,
        blocks: int,
        training: bool = False,
        update: Update = GRADIENTS,
        augment: Augment | None = None,
        mixes: bool = False,
        sums: Sums | None = None,
        guard: int = 0,
    ) -> None:
        self.net, self.purpose, self.blocks = net, purpose, blocks
        self.augment, self.mixes, self.sums = augment, mixes, sums
        self.backwards = purpose in ("gradients", "training")
        self.training = training and self.backwards
        self.update = update
        self.arena, self.shared = Memory(guard), Memory(guard)
        self.phases: list[Phase] = []
        self.early: list[Instruction] = []
        self.late: list[Instruction] = []
        self.pieces: dict[str, Gradient] = {}
        self.shares: dict[Region, Share] = {}
        self.told: list[tuple[Phase, list[Gradient]]] = []
        self.constants: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.layers: tuple[str, ...] = ("input",)  # that are being lowered
        self.in_backward = False  # whether the backward pass is being written
        self.random = [
            name for name, layer in zip(net.names, net.layers, strict=True) if layer.random
        ]
        whole = steps(net, pools=purpose != "units")
        if purpose == "units":  # nothing after the last of them is asked for
            whole = whole[: 1 + max(n for n, step in enumerate(whole) if step.rectifies)]
        self.steps = [step for step in whole if not self._is_nothing(step)]
        self.deltas: dict[int, Map] = {}
        self.maps: dict[str, Map] = {}
        self.parameters = {
            name: self.shared.take(name, array.size) for name, array in net.parameters.items()
        }
        self.statistics = {
            name: self.shared.take(name, array.size) for name, array in net.statistics.items()
        }
        self.memories: dict[str, Region] = {}
        self.gradients: dict[str, Region] = {}
        count = sum(array.size for array in net.parameters.values())
        self.chunks = max(1, min(MOST_CHUNKS, blocks, _CHUNK_FLOATS // max(count, 1)))
        self.wanted = set(net.parameters) if purpose == "gradients" else set(net.trainable())
        self.lowest = self._lowest_trained()
        self.room = self.arena.take("room", LANES * LANES)

    # Writing --------------------------------------------------------------------------------------

    def emit(
        self,
        kernel: Kernel,
        sentence: str = "",
        *,
        layers: tuple[str, ...] | None = None,
        sources: tuple[str, ...] | None = None,
        early: bool = False,
        late: bool = False,
        **operands: Operand,
    ) -> None:
        """Add an instruction, to the phase that is being written where that is for the same.

        Parameters
        ----------
        kernel : what is called
        sentence : what it does, for people
        layers : whose composition it computes, or a part of it; those of the step, if not given
        sources : what it reads, as a trace has it, where that does not follow from the operands
        early, late : whether it is run before the blocks of a batch, or after all of them
        operands : what the kernel has declared, by name
        """
        layers = self.layers if layers is None else layers
        declared = DECLARATIONS[kernel]
        row = row_of(kernel, operands)
        named = {name: getattr(value, "name", "") for name, value in operands.items()}
        reads = [(name, named[name]) for name in declared.reads if named[name]]
        writes = [(name, named[name]) for name in declared.writes if named[name]]
        net, parameters, backward = self.net, self.parameters, self.in_backward
        instruction = Instruction(
            kernel,
            row,
            layers,
            tuple(name for _, name in reads),
            tuple(name for _, name in writes),
            backward,
            sentence,
            lambda: (
                trace.sources(
                    net, parameters, layers, operands, reads, backward=backward, early=early
                )
                if sources is None
                else sources
            ),
            lambda: trace.results(net, parameters, layers, writes, backward=backward, early=early),
        )
        if early or late:
            (self.early if early else self.late).append(instruction)
            return
        scope = FOR_WORKERS if declared.for_workers else FOR_BLOCKS
        if not self.phases or self.phases[-1].scope != scope:
            self.phases.append(Phase(scope, []))
        phase = self.phases[-1]
        phase.instructions.append(instruction)
        written = [operands[name] for name in declared.writes]
        regions = [region for region in written if isinstance(region, Region)]
        phase.shares.extend(self.shares[each] for each in regions if each in self.shares)

    def take_by_block(self, name: str, size: int, *, whole: bool = False) -> Region:
        """Plan a region of shared memory of which every block writes so many floats; see Share."""
        region = self.shared.take(name, self.blocks * size)
        self.shares[region] = Share(region, size, whole=whole)
        return region

    def constant(self, *values: float) -> Region:
        """Put numbers into shared memory and return where they are."""
        region = self.shared.take("constants", len(values))
        self.constants.append((region.place, np.array(values, np.float32)))
        return region

    def map(self, name: str, shape: tuple[int, ...], ring: Ring = NO_RING) -> Map:
        """Plan a map; a row of features is one row of cells."""
        channels, height, width = shape if len(shape) == 3 else (1, 1, shape[0])
        (above, below), (left, right) = ring
        pitch = (left + width + right) * LANES
        plane = (above + height + below) * pitch
        size = (
            -(-channels * plane // (LANES * LANES)) * LANES * LANES
        )  # whole squares, for ``rows``
        place = self.arena.take(name, size).place + above * pitch + left * LANES
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
                    layer.padding,
                    step.input_shape[1:],
                    layer.kernel_size,
                    layer.stride,
                    layer.dilation,
                )
            if not step.in_place:
                return NO_RING
        return NO_RING

    def output(self, n: int, step: Step, x: Map) -> Map:
        """Return the map of step n's output: its input's, where nothing reads that any more."""
        before = [own for own in self.steps[:n] if not isinstance(own.layer, Flatten)]
        if step.in_place and not (self.backwards and before and before[-1].keeps_output):
            return x
        return self.map(step.names[-1], step.output_shape, self.ring_before(n + 1))

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
                self.deltas[n] = self.map(f"d {step.names[-1]}", step.output_shape, ring)
        return self.deltas[n]

    # Gradients and parameters ---------------------------------------------------------------------

    def wants(self, name: str) -> bool:
        """Return whether the gradient of a parameter is to be computed."""
        return self.backwards and name in self.wanted

    def piece(
        self, name: str, rows: int, columns: int, *, chunked: bool = False, padded: bool = False
    ) -> Gradient:
        """Plan a gradient.

        ``chunked`` is a gradient that every chunk of blocks has its own of; ``padded`` one whose
        rows are filled up to whole vectors.
        """
        pitch = -(-columns // LANES) * LANES if padded else columns
        size = -(-rows * pitch // LANES) * LANES
        region = self.shared.take(f"d {name}", size * (self.chunks if chunked else 1))
        if chunked:
            self.shares[region] = Share(region, size, by_chunk=True)
        self.pieces[name] = Gradient(region, rows, columns, pitch, size if chunked else 0)
        return self.pieces[name]

    def tell_gradients(self) -> None:
        """Finish the gradients that are written so far; ranks add them up after the last phase."""
        told = [piece for _, pieces in self.told for piece in pieces]
        new = [each for each in self.pieces.values() if not (each.whole or each in told)]
        if new:
            self.phases.append(Phase(FOR_WORKERS, self.late))
            self.late = []
            self.told.append((self.phases[-1], new))

    def write_parameters(self) -> None:
        """Write what happens to the gradients."""
        factor = self._write_clipping() if self.purpose == "training" else None
        for name, piece in self.pieces.items():
            self.layers, p = (name.split(".")[0],), self.parameters[name]
            rows, columns = piece.rows, piece.columns
            if self.purpose == "gradients":
                self.gradients[name] = self.shared.take(f"dL/d {name}", rows * columns)
                self.emit(optimizer.total, p=self.gradients[name], **piece.operands)
                continue
            memories: dict[str, Any] = {
                f"memory{n}": self.shared.take(f"{memory}.{name}", rows * columns)
                for n, memory in enumerate(self.update.memories, 1)
            }
            self.memories |= {region.name: region for region in memories.values()}
            is_weight = self.net.parameters[name].ndim > 1
            settings = self.update.weights if is_weight else self.update.others
            says = (
                f"{name} moves a step against its gradient. (The picture shows it before the step.)"
            )
            numbers: dict[str, Any] = {
                **memories,
                "settings": self.constant(*settings),
                "factor": factor,
            }
            self.emit(self.update.kernel, says, p=p, **piece.operands, **numbers)
            if self.update.averages:
                average = self.shared.take(f"average.{name}", rows * columns)
                self.memories[average.name] = average
                self.emit(optimizer.average, p=p, e=average, rows=rows, columns=columns)

    def _write_clipping(self) -> Region:
        """Write what clips gradients, and return where the factor is."""
        factor = self.constant(1.0)
        if self.update.clip is None:
            return factor
        count = sum(piece.rows for piece in self.pieces.values())
        sums, done = self.shared.take("squares", count), 0
        for name, piece in self.pieces.items():
            self.layers = (name.split(".")[0],)
            self.emit(optimizer.squares, sums=sums.at(done), **piece.operands)
            done += piece.rows
        self.phases.append(Phase(FOR_WORKERS, []))  # every worker's sums are there
        self.layers, limit = ("loss",), self.constant(self.update.clip)
        self.emit(optimizer.clip, sums=sums, count=count, limit=limit, factor=factor)
        self.phases.append(Phase(FOR_WORKERS, []))  # and the factor
        return factor

    def write_loss(self, x: Map) -> None:
        """Write the loss and the first delta, or the answers.

        Raises
        ------
        OptionError
            There is no kernel for the loss.
        """
        self.layers = ("loss",)
        outputs = x.features
        if self.purpose == "probabilities":
            self.emit(loss.softmax, x=x, classes=outputs)
        if not self.backwards:
            self.emit(images.output, x=x, units=outputs)
            return
        dx = self.delta(len(self.steps) - 1) if self.steps else self.map("d input", x.shape[-1:])
        maps: dict[str, Any] = {"x": x, "dx": dx, "room": self.room, "mixes": self.mixes}
        if type(self.net.loss) is MeanSquaredError:
            says = (
                "The loss is the mean squared difference from the target. Here the backward pass "
                "begins: the first delta is twice the difference, divided by the outputs."
            )
            self.emit(loss.mean_squared_error, says, **maps, outputs=outputs)
        elif type(self.net.loss) is BinaryCrossEntropy:
            says = (
                "The sigmoid turns every logit into a probability p; the loss is -log p where the "
                "target is 1, and -log (1 - p) where it is 0. Here the backward pass begins: the "
                "first delta is p - y."
            )
            self.emit(loss.binary_cross_entropy, says, **maps, outputs=outputs)
        elif type(self.net.loss) is SoftmaxCrossEntropy:
            says = (
                "Softmax turns the logits into probabilities p; the loss is -log of the label's. "
                "Here the backward pass begins: the first delta is p - y, with y 1 for the label "
                "and 0 elsewhere."
            )
            smoothing = self.constant(self.net.loss.label_smoothing)
            self.emit(
                loss.softmax_cross_entropy, says, **maps, classes=outputs, smoothing=smoothing
            )
        else:
            raise OptionError(
                f"the lane engine has no kernel for {self.net.loss}; give engine='reference'"
            )
        self.in_backward = True
