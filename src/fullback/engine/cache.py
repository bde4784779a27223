"""The folder of the compiled kernels: files that are executed, so only this user may write them.

On POSIX systems a file is read only if

- it is a regular file, no link, that belongs to this user or to root, and that only its owner can
  write to,
- its folder belongs to this user or to root, and only its owner can write to it,
- no folder above could be used by another user to put another folder in its place: each belongs to
  this user or to root, and only its owner can write to it, or it is sticky like /tmp. A group
  counts as its owner where this user is its only member, as on systems that give each user a group.

Everything is checked on open descriptors, and opened relative to them, so that nothing can be
exchanged between the check and the use. Folders that are missing are made with the permissions
0700, files with 0600, under a temporary name that did not exist.

Windows has neither user numbers nor these permissions in Python; there the cache lies in the user's
own folder, which other accounts cannot write to, and none of this is checked.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fullback.atomic import write_atomically
from fullback.errors import InputError

_CHECKED = os.name == "posix"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FOLDER_PERMISSIONS = 0o700
_FILE_PERMISSIONS = 0o600


class UntrustedError(Exception):
    """Another user could have written this file, or could put another one in its place."""


def read(path: Path) -> bytes | None:
    """Return a file's content, or None where there is no such file.

    Raises
    ------
    UntrustedError
        Another user could have written it.
    """
    if not _CHECKED:
        with contextlib.suppress(OSError):
            return path.read_bytes()
        return None
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with _folder(path.parent, make=False) as folder:
            descriptor = _open(path.name, flags, folder, path)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISDIR(found.st_mode):
                    return None
                _require_file(found, path)
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    return file.read()
            finally:
                os.close(descriptor)
    except OSError:
        return None


def write(path: Path, content: bytes, most: int) -> None:
    """Write a file, whole or not at all, and delete the oldest beyond ``most`` with its suffix.

    A link in its place is replaced, not followed.

    Raises
    ------
    UntrustedError
        Another user could replace it.
    InputError, OSError
        It cannot be written.
    """
    if not _CHECKED:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        with contextlib.suppress(OSError):
            files = [(file.stat().st_mtime, file) for file in path.parent.glob(f"*{path.suffix}")]
            _delete_oldest(files, most, lambda file: file.unlink(missing_ok=True))
        return
    with _folder(path.parent, make=True) as folder:
        _write(path.name, content, folder)
        with contextlib.suppress(OSError):  # another process may tidy up, too
            old = [
                (os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime, name)
                for name in os.listdir(folder)  # noqa: PTH208 -- of a descriptor
                if name.endswith(path.suffix)
            ]
            _delete_oldest(old, most, lambda name: os.unlink(name, dir_fd=folder))


def _write(name: str, content: bytes, folder: int) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, _FILE_PERMISSIONS, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        try:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            raise InputError(f"{name} is a folder") from None
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


@contextlib.contextmanager
def _folder(path: Path, *, make: bool) -> Iterator[int]:
    """Open a folder, after every folder above it: each from the one before, without links."""
    parts = Path(os.path.realpath(path)).parts
    opened = os.open(parts[0], _way(last=len(parts) == 1))
    try:
        for number, part in enumerate(parts[1:], 2):
            above = Path(*parts[: number - 1])
            _require_folder(os.fstat(opened), above, last=False)
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, _FOLDER_PERMISSIONS, dir_fd=opened)
            inner = _open(part, _way(last=number == len(parts)), opened, above / part)
            os.close(opened)
            opened = inner
        _require_folder(os.fstat(opened), path, last=True)
        yield opened
    finally:
        os.close(opened)


def _way(*, last: bool) -> int:
    """Return how to open a folder: those above need not be readable, where the system allows it."""
    kind = os.O_RDONLY if last else getattr(os, "O_PATH", os.O_RDONLY)
    return kind | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _open(name: str, flags: int, folder: int, path: Path) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise UntrustedError(f"{path} is a link") from None
        raise


def _require_file(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UntrustedError(f"{path} is not a regular file")
    _require_owner(found, path)
    if found.st_mode & _OTHERS:
        raise UntrustedError(f"{path} can be written to by other users ({_mode(found)})")


def _require_folder(found: os.stat_result, path: Path, *, last: bool) -> None:
    _require_owner(found, path)
    if not last and found.st_mode & stat.S_ISVTX:
        return
    others = found.st_mode & _OTHERS
    if others == stat.S_IWGRP and _is_own_group(found.st_gid):
        return
    if others:
        raise UntrustedError(f"the folder {path} can be written to by other users ({_mode(found)})")


def _require_owner(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise UntrustedError(f"{path} belongs to another user (number {found.st_uid})")


def _is_own_group(number: int) -> bool:
    """Whether a group has this user's name and number, and no other member."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    same = (group.gr_gid, group.gr_name) == (user.pw_gid, user.pw_name)
    return same and set(group.gr_mem) <= {user.pw_name}


def _mode(found: os.stat_result) -> str:
    return f"permissions {stat.S_IMODE(found.st_mode):o}"


def _delete_oldest(
    files: list[tuple[float, Any]], most: int, delete: Callable[[Any], None]
) -> None:
    """Delete all but so many of the newest files, each beside its time."""
    for _, file in sorted(files)[:-most]:
        delete(file)
