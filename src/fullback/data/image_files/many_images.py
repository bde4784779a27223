"""Many images, decoded by several threads; they come out in the order in which they went in."""

from __future__ import annotations

import io
import itertools
import math
import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from fullback.data.image_files.image_file import ImageFile, Resize, read_image
from fullback.data.image_files.image_formats import quiet
from fullback.errors import DataError

Item: TypeAlias = tuple[Path | io.BytesIO, str, int]
"""An image file or its content, what errors call it, and its label."""

Read: TypeAlias = tuple[ImageFile | DataError, str, int]
"""An image, or why it cannot be read, what errors call it, and its label."""

_MOST = 8  # threads: Pillow decodes without Python's lock, and everything else takes it
_SMALL = 2**16  # bytes of pixels that a thread decodes at a time, or one image
_WAITING = 2**26  # bytes of pixels that wait for their turn


def images_of(
    items: Iterable[Item], shape: tuple[int, int, int], resize: Resize
) -> Generator[Read, None, None]:
    """Read images as ``read_image`` does; memory is taken for few of them at a time.

    Parameters
    ----------
    items : the images, which are gone through once, in this thread
    shape : (C, H, W) that they are brought to
    resize : how
    """

    def read(some: list[Item]) -> list[Read]:
        return [(_read(file, name, shape, resize), name, label) for file, name, label in some]

    size = math.prod(shape)
    together = max(1, _SMALL // size)
    workers = min(_cores(), _MOST)
    most = max(1, min(3 * workers, _WAITING // (together * size)))
    waiting: deque[Future[list[Read]]] = deque()
    rest = iter(items)
    with quiet(), ThreadPoolExecutor(workers, "decode") as pool:
        try:
            while some := list(itertools.islice(rest, together)):
                waiting.append(pool.submit(read, some))
                if len(waiting) >= most:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(
    file: Path | io.BytesIO, name: str, shape: tuple[int, int, int], resize: Resize
) -> ImageFile | DataError:
    try:
        return read_image(file, name, shape, resize=resize, silenced=True)
    except DataError as error:
        return error


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
