"""The program for one image with its memory: what answers the few images of a prediction."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.engine import context
from fullback.engine.lowering.one import OnePlan, write_one
from fullback.engine.lowering.plan import Purpose
from fullback.engine.machine import Machine
from fullback.engine.simd import LANES
from fullback.layers.base import Array
from fullback.model import Model

_BYTES, _FLOATS = 0, 1  # what the context says of pixels


class OneMachine:
    """The program for one image with its memory, run by the calling thread.

    It reads images from memory of its own, and its weights stay packed while they are the same:
    nothing but the image and the answer crosses from and to NumPy.

    Parameters
    ----------
    net : the network
    purpose : "logits" or "probabilities"
    threads : how many may predict at the same time, each with such a machine
    plan : what ``write_one`` returned; None has it written here

    Attributes
    ----------
    most : for how many images it takes less time than a block of sixteen
    """

    def __init__(
        self, net: Model, purpose: Purpose, threads: int = 1, plan: OnePlan | None = None
    ) -> None:
        self.threads = threads
        plan = plan or write_one(OnePlan(net, purpose))
        self.most, size, outputs = plan.most, prod(net.input_shape), net.output_shape[0]
        self.machine = Machine(plan, 1)
        self._images: list[NDArray[Any]] = []
        for dtype in (np.uint8, np.float32):
            self._images.append(np.zeros(self.most * size + LANES, dtype))
        shape = (self.most, *net.input_shape)
        self._places = [each[: self.most * size].reshape(shape) for each in self._images]
        self._outputs = np.zeros((self.most, outputs), np.float32)
        self._figure = np.zeros(1)
        self._now = (0, _BYTES)  # how many images the context says there are, and of which kind
        phases = self.machine.phases
        self._bounds = [np.array([1, *phases[start:][:3]], np.int64) for start in (1, 4)]
        self._pack_all, self._run = (self._call(bounds) for bounds in self._bounds)
        self._set_context(size)

    def _call(self, bounds: NDArray[np.int64]) -> Any:
        """Return what runs a phase."""
        return partial(self.machine.library.run, *self.machine.arguments_for(bounds)[0], 0, 1)

    def _set_context(self, size: int) -> None:
        c = self.machine.contexts[0]
        for place in (
            context.BATCH,
            context.STEPS,
            context.TOTAL,
            context.MOST_BLOCKS,
            context.MOST_CHUNKS,
            context.CHUNK_STEP,
            context.BLOCK_STEP,
        ):
            c[place] = 1
        c[context.IMAGE_STEP] = size
        c[context.OUTPUT] = self._outputs.ctypes.data
        c[context.FIGURES] = self._figure.ctypes.data
        c[context.SYNC] = self.machine.sync.ctypes.data
        self._addresses = [each.ctypes.data for each in self._images]

    def pack(self) -> None:
        """Pack the weights."""
        self._pack_all()

    def answers(self, images: Array) -> tuple[NDArray[np.float32], bool]:
        """Return the answers to at most so many checked images, and whether all are finite."""
        count = len(images)
        if self.machine.copies.refresh():
            self.pack()
            self.machine.copies.settle()
        if images.dtype == np.uint8:
            kind = _BYTES
            self._places[_BYTES][:count] = images
        else:
            kind = _FLOATS
            if images.dtype == np.float32:
                self._places[_FLOATS][:count] = images
            else:
                with np.errstate(all="ignore"):  # what is too large becomes infinite
                    self._places[_FLOATS][:count] = images
        if self._now != (count, kind):
            c = self.machine.contexts[0]
            c[context.KIND], c[context.IMAGES] = kind, self._addresses[kind]
            c[context.TOTAL] = c[context.STEPS] = count
            self._now = count, kind
        self._run()
        return self._outputs[:count].copy(), self._figure[0] == 0
