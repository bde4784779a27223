"""Reading files that are not trusted: open them, and never believe a size that they state."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from fullback.errors import DataError

MAX_BYTES = 4 * 2**30  # a file that unpacks to more is refused: 90 times MNIST


def open_data(path: Path, kind: str) -> BinaryIO:
    """Open a file for reading; a DataError says in one line why it cannot be."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 -- opening it would wait
            raise DataError(f"{path}: is a pipe; expected {kind}: write it to a file first")
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected {kind}: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        # Not IsADirectoryError: Windows raises PermissionError. Not Path.is_dir: it can raise too.
        if os.path.isdir(path):  # noqa: PTH112
            raise DataError(f"{path}: is a folder; expected {kind}: give a file in it") from None
        if isinstance(error, PermissionError):
            raise DataError(
                f"{path}: no permission to read it; expected {kind}: change its permissions, or "
                "copy it to a place of your own"
            ) from None
        raise DataError(f"{path}: cannot be opened ({error}); expected {kind}") from error


def read_bounded(read: Callable[[int], bytes], size: int, start: bytes = b"") -> bytearray:
    """Go on from `start` to `size` bytes and one more, to see whether there is one more.

    The pieces are small, so that memory follows what is there, not what a header claims; and the
    byte beyond makes gzip and zip readers reach the end, where they verify their checksum.
    """
    data = bytearray(start)
    while len(data) <= size and (piece := read(min(2**20, size + 1 - len(data)))):
        data += piece
    return data
