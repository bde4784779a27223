"""Files of images, as bytes that tests write."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    """The array as an IDX file."""
    array = np.asarray(array)
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


REAL = Path(os.environ.get("FULLBACK_DATA") or Path(__file__).parents[3] / "shared/data/mnist")


def png(*chunks):
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        parts.append(struct.pack(">I", len(content)) + kind + content + checksum)
    return b"".join(parts)


def header(columns, rows):
    return b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)


def as_png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
