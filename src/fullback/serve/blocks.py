"""Images of many requests, computed together: the lane engine takes 16 at the price of one.

One thread has the networks. While it computes, requests queue up, and what has arrived when it is
done is its next block; an image that comes alone is not kept waiting for others.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.engine.machine import threads
from fullback.engine.simd import LANES
from fullback.errors import FullbackError
from fullback.layers.base import Array
from fullback.predicting import answers, looks_inverted
from fullback.serve.metrics import Metrics
from fullback.serve.models import Served

MOST_WAITING = 2048  # images
MOST_WAITING_BYTES = 256 * 2**20  # of images
WAIT_SECONDS = 20.0

_CLOSE_SECONDS = 20.0


class BusyError(Exception):
    """There is more to compute than is taken on; the message says it to the client."""


@dataclass(frozen=True, eq=False)
class Computed:
    """What was computed for N images.

    Attributes
    ----------
    predictions : what ``Served.predictions`` returns, one an image
    inverted : what ``predicting.looks_inverted`` returns, of shape (N,)
    """

    predictions: list[dict[str, Any]]
    inverted: NDArray[np.bool_]


@dataclass(eq=False)
class _Piece:
    """Up to 16 images of one request, and where their answer goes."""

    model: Served
    images: Array
    answer: asyncio.Future[Computed]
    since: float = field(default_factory=time.monotonic)


class Blocks:
    """The thread that computes, and the queue before it."""

    def __init__(self, metrics: Metrics) -> None:
        self.waiting = self.waiting_bytes = 0
        self._metrics = metrics
        self._most = LANES * threads()  # so many that every thread has a block
        self._queue: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fullback-predict", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread is there to compute."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin; called once."""
        self._thread.start()

    def close(self) -> None:
        """End when all that was asked for is computed."""
        self._queue.put(None)
        self._thread.join(_CLOSE_SECONDS)

    async def answer(self, model: Served, images: Array) -> Computed:
        """Return what a model answers to checked images of shape (N, ...).

        Raises
        ------
        BusyError
            Too many images are waiting, or these had to wait too long.
        InputError
            What the network computes is not finite.
        """
        count, size = len(images), images.nbytes
        if self.waiting + count > MOST_WAITING or self.waiting_bytes + size > MOST_WAITING_BYTES:
            raise BusyError("too many images are waiting to be predicted; try again in a moment")
        self.waiting += count
        self.waiting_bytes += size
        try:
            loop = asyncio.get_running_loop()
            if count <= LANES:
                piece = _Piece(model, images, loop.create_future())
                self._queue.put(piece)
                return await piece.answer
            pieces = [
                _Piece(model, images[start : start + LANES], loop.create_future())
                for start in range(0, count, LANES)
            ]
            for piece in pieces:
                self._queue.put(piece)
            parts = await asyncio.gather(*(piece.answer for piece in pieces))
        finally:
            self.waiting -= count
            self.waiting_bytes -= size
        return Computed(
            [prediction for part in parts for prediction in part.predictions],
            np.concatenate([part.inverted for part in parts]),
        )

    # In the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            pieces = [first]
            images, ends = len(first.images), False
            while images < self._most and not ends:
                try:
                    piece = self._queue.get_nowait()
                except queue.Empty:
                    break
                if piece is None:
                    ends = True
                else:
                    pieces.append(piece)
                    images += len(piece.images)
            self._answer_all(pieces)
            if ends:
                return

    def _answer_all(self, pieces: Sequence[_Piece]) -> None:
        """Compute and hand over; pieces of one model, with numbers of one type, are a block."""
        done: list[tuple[_Piece, Computed | Exception]] = []
        latest = time.monotonic() - WAIT_SECONDS
        for block in _blocks(pieces):
            wanted = [piece for piece in block if not piece.answer.cancelled()]
            late = [piece for piece in wanted if piece.since < latest]
            done += [(piece, BusyError("the images had to wait for too long")) for piece in late]
            wanted = [piece for piece in wanted if piece.since >= latest]
            if wanted:
                done += zip(wanted, self._compute(wanted), strict=True)
        if done:
            loop = done[0][0].answer.get_loop()
            loop.call_soon_threadsafe(_hand_over, done)

    def _compute(self, block: Sequence[_Piece]) -> list[Computed | Exception]:
        network = block[0].model.network
        sizes = [len(piece.images) for piece in block]
        images = np.concatenate([piece.images for piece in block]) if sizes[1:] else block[0].images
        self._metrics.block(len(images))
        try:
            found = block[0].model.predictions(answers(network, images))
            inverted = looks_inverted(network.trained_on, images)
        except FullbackError as error:
            if sizes[1:]:  # one request's numbers must not spoil the answers of others
                return [self._compute([piece])[0] for piece in block]
            return [error]
        except Exception as error:  # noqa: BLE001 -- whatever it is, the thread lives on, and tells
            return [error] * len(block)
        places = np.cumsum([0, *sizes]).tolist()
        return [Computed(found[start:end], inverted[start:end]) for start, end in pairwise(places)]


def _blocks(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    found: dict[tuple[Any, Any], list[_Piece]] = {}
    for piece in pieces:
        found.setdefault((piece.model, piece.images.dtype), []).append(piece)
    yield from found.values()


def _hand_over(done: Sequence[tuple[_Piece, Computed | Exception]]) -> None:
    """Give the waiting requests their answers; called in the loop's thread."""
    for piece, found in done:
        if piece.answer.done():  # the client has gone
            continue
        if isinstance(found, Exception):
            piece.answer.set_exception(found)
        else:
            piece.answer.set_result(found)
