"""Commands that ``mpiexec`` starts in several processes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = Path(sys.executable).parent / "mpiexec"
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
SECONDS = 120  # after which a command is taken to hang, on a machine that is busy


def need_mpi():
    """Skip where there is no MPI, but never where CI is set."""
    if MPIEXEC is None or importlib.util.find_spec("mpi4py") is None:
        reason = "needs MPI: pip install 'fullback[mpi]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command left behind: the exit code, and all lines that its processes wrote."""

    code: int
    lines: list[str]

    def said(self, text):
        return [line for line in self.lines if text in line]


class Job:
    """Processes that were started together."""

    def __init__(self, size, *command, threads=1, **changed):
        root = {f"{name}_ALLOW_RUN_AS_ROOT{more}": "1" for name in ("OMPI", "PRTE")
                for more in ("", "_CONFIRM")}  # fmt: skip
        own = {"TERM": "dumb", "FULLBACK_NUM_THREADS": str(threads), "COLUMNS": "200"}
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        own["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # programs import support
        self.process = subprocess.Popen(
            [MPIEXEC, "--oversubscribe", "-n", str(size), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **root, **own, **changed},
            start_new_session=True,
        )

    def end(self, seconds=SECONDS):
        """Wait for its end."""
        try:
            text, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the job did not end within {seconds} s: {self.process.communicate()[0]}")
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")
        return Ended(self.process.returncode, plain.splitlines())

    def ranks(self):
        """Return the process of every rank that has started, by its number."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    environ = (folder / "environ").read_bytes()
                    number = re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", environ)
                    if parent == self.process.pid and number:
                        found[int(number[1])] = int(folder.name)
        return found

    def kill(self):
        for process in self.ranks().values():
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        self.process.kill()


def fullback(*arguments):
    return (sys.executable, "-m", "fullback", *arguments)


def mpi(size, *command, seconds=SECONDS, **options):
    """Run a command in so many processes."""
    return Job(size, *command, **options).end(seconds)
