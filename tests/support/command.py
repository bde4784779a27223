"""Runs of the command line: in this process, and in one of its own."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from fullback.cli.app import app


@dataclasses.dataclass(frozen=True)
class Run:
    """What a command left behind: its exit code and what it wrote, without colours."""

    code: int
    out: str
    err: str

    @property
    def events(self):
        return [json.loads(line, parse_constant=pytest.fail) for line in self.out.splitlines()]

    @property
    def result(self):
        (result,) = (event for event in self.events if event["event"] == "result")
        return result


def run(*arguments, columns=80):
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], env={"COLUMNS": str(columns)}, catch_exceptions=False
    )
    out, err = (re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (result.stdout, result.stderr))
    return Run(result.exit_code, out, err)


def done(*arguments, columns=80):
    """Run a command that must succeed; standard error may hold warnings only."""
    ran = run(*arguments, columns=columns)
    assert ran.code == 0, ran.err
    assert all(line.startswith("warning: ") for line in ran.err.splitlines())
    return ran


posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def command(*arguments):
    return [sys.executable, "-m", "fullback", *map(str, arguments)]


def environment(**changed):
    """This process's environment without what would colour or narrow the output."""
    unwanted = ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "TERM")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONUTF8": "1", **changed}


def start(*arguments, env=None, **options):
    """Start a command whose Ctrl-C is not ignored, as it is in a job in the background."""
    if os.name == "posix":
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment() if env is None else env,
        **options,
    )


@contextlib.contextmanager
def time_limit(process):
    """Kill a process that takes longer than a minute, or that a failed test leaves."""
    watch = threading.Timer(60, process.kill)
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        process.kill()
