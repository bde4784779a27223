"""Files that are either written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from fullback.errors import InputError


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return where ``write_atomically`` would write, or raise where it clearly could not.

    Raises
    ------
    InputError
        The path is a folder or a device, or its folder does not exist or cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is not a file that can be replaced; give another path")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; make it or give another path")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(
            f"the folder {target.parent} cannot be written to ({error.strerror}); give another path"
        ) from None
    return target


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file: to a temporary one beside it, which then takes its place.

    A reader, a full disk or a killed process never leaves half of it. A link is followed.

    Raises
    ------
    InputError
        What ``check_writable`` raises.
    OSError
        Writing failed; what was there before still is.
    """
    target = check_writable(path)
    temporary = temporary_beside(target)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = os.fspath(path)
        raise


def temporary_beside(target: Path) -> Path:
    """Return a new name in the same folder: of at most 255 bytes, and a character has up to 4."""
    return target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.tmp")
