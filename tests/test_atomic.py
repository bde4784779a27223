"""Files that are written whole or not at all: links, permissions, full disks, kills."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fullback.atomic import check_writable, write_atomically
from fullback.errors import InputError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"new", bytes(range(256)) * 4096])
def test_new_and_replaced(tmp_path, content):
    file = tmp_path / "file"
    write_atomically(file, content)
    assert file.read_bytes() == content
    write_atomically(str(file), content[::-1] + b"!")
    assert file.read_bytes() == content[::-1] + b"!"
    assert names(tmp_path) == ["file"]


def test_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_writable("file") == tmp_path.resolve() / "file"
    write_atomically("file", b"x")
    assert names(tmp_path) == ["file"]


@posix
@pytest.mark.parametrize("name", ["x" * 255, "å" * 127, "\N{OPEN BOOK}" * 63])
def test_the_longest_names(tmp_path, name):
    write_atomically(tmp_path / name, b"x")
    assert names(tmp_path) == [name]


class TestRefused:
    """Refused before anything is written, by the check and by the write alike."""

    @pytest.fixture(params=[check_writable, lambda path: write_atomically(path, b"x")])
    def refused(self, request):
        def call(path, text):
            with pytest.raises(InputError, match=text) as caught:
                request.param(path)
            assert "\n" not in str(caught.value)

        return call

    def test_a_folder(self, refused, tmp_path):
        refused(tmp_path, "is not a file that can be replaced; give another path")
        assert not names(tmp_path)

    def test_no_folder(self, refused, tmp_path):
        refused(tmp_path / "no" / "file", r"the folder .*no does not exist; make it or give")
        (tmp_path / "file").write_bytes(b"x")
        refused(tmp_path / "file" / "in", r"the folder .*file does not exist")
        assert names(tmp_path) == ["file"]

    @posix
    def test_devices(self, refused, tmp_path):
        null = Path("/dev/null")
        before = null.stat()
        refused(null, "/dev/null is not a file that can be replaced")
        (tmp_path / "link").symlink_to(null)
        refused(tmp_path / "link", "link is not a file that can be replaced")
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "pipe is not a file that can be replaced")
        assert stat.S_ISCHR(null.stat().st_mode)
        assert null.stat().st_ino == before.st_ino
        assert (tmp_path / "pipe").is_fifo()

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses root")
    def test_a_folder_that_takes_no_files(self, refused):
        refused("/proc/file", r"the folder /proc cannot be written to \(.+\); give another path")

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root"
    )
    def test_a_folder_without_permission(self, refused, tmp_path):
        tmp_path.chmod(0o555)
        try:
            refused(tmp_path / "file", "cannot be written to")
        finally:
            tmp_path.chmod(0o755)


@posix
class TestLinksAndPermissions:
    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "real").mkdir()
        target, link, chain = tmp_path / "real" / "file", tmp_path / "link", tmp_path / "chain"
        link.symlink_to("real/file")
        chain.symlink_to(link)
        write_atomically(link, b"made through a dangling link")
        write_atomically(chain, b"new")
        assert target.read_bytes() == b"new"
        assert not target.is_symlink()
        assert link.readlink() == Path("real/file")
        assert names(tmp_path) == ["chain", "link", "real"]
        assert names(tmp_path / "real") == ["file"]

    @pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
    def test_permissions_are_those_of_a_new_file(self, tmp_path, mask, mode):
        before = os.umask(mask)
        try:
            write_atomically(tmp_path / "file", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


class FullDiskError(OSError):
    def __init__(self):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [FullDiskError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails(tmp_path, monkeypatch, error, place):
    """The old file stays, no temporary one does, and an OSError names the file."""
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def fail(*_):
        assert len(names(tmp_path)) == 2
        raise error

    monkeypatch.setattr(place, fail)
    with pytest.raises(error) as caught:
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    if error is FullDiskError:
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(file)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from fullback.atomic import write_atomically

file, sizes = Path(sys.argv[1]), (10, 3_000_000)
write_atomically(file, b"0" * sizes[0])
random.seed(0)
for turn in range(40):
    done, write = os.pipe()
    child = os.fork()
    if not child:
        while True:
            for digit, size in zip(b"01", sizes):
                write_atomically(file, bytes([digit]) * size)
                os.write(write, b".")
    for _ in range(1 + turn % 2):  # until the file is written once, or twice
        os.read(done, 1)
    time.sleep(random.choice((0, random.uniform(0, 0.02))))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(done)
    os.close(write)
    content = file.read_bytes()
    print(len(content), sizes.index(len(content)), chr(content[0]), content.count(content[0]))
"""


@posix
def test_a_killed_process_leaves_a_whole_file(tmp_path):
    """Forty processes that replace the file without pause are killed at any moment."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "file")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    turns = [line.split() for line in found.splitlines()]
    assert len(turns) == 40
    for length, which, digit, count in turns:
        assert which == digit
        assert length == count
    assert {which for _, which, _, _ in turns} == {"0", "1"}  # both were found whole
