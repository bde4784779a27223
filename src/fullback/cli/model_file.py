"""Saving a trained model: what was there before stays, under another name.

``model.safetensors`` becomes ``model.previous.safetensors``, in place of the one before it. A
network that has learned nothing goes to ``model.failed.safetensors``, and replaces no model.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fullback.errors import InputError

if TYPE_CHECKING:
    from fullback.network import Network


def previous_path(out: Path) -> Path:
    """Return where the model goes that ``out`` replaces."""
    return _beside(out, "previous")


def failed_path(out: Path) -> Path:
    """Return where a network goes that has learned nothing."""
    return _beside(out, "failed")


def save_model(network: Network, out: Path) -> Path | None:
    """Save a network; return where the model went that was there, if there was another one.

    At every moment, ``out`` is the old model or the new one, whole.

    Raises
    ------
    InputError, OSError
        It cannot be written; then everything is as it was.
    """
    from fullback.atomic import temporary_beside
    from fullback.export.safetensors import save

    target = Path(os.path.realpath(out)) if out.is_symlink() else out
    if not target.is_file():
        save(network, target)
        return None
    new, link = (temporary_beside(target) for _ in range(2))
    try:
        try:
            save(network, new)
        except OSError as error:
            error.filename = str(out)  # the name that the user knows
            raise
        if new.read_bytes() == target.read_bytes():
            return None
        previous = previous_path(target)
        try:
            os.link(target, link)
            link.replace(previous)
        except OSError:  # a file system without links
            target.replace(previous)
        new.replace(target)
        return previous
    finally:
        for path in (new, link):
            with contextlib.suppress(OSError):
                path.unlink()


def _beside(out: Path, word: str) -> Path:
    if not out.name:
        raise InputError(f"{out} is a folder; give the name of a file for the model")
    return out.with_name(f"{out.stem}.{word}{out.suffix}")
