"""One trial of a sweep: ``fullback train --resume FOLDER`` in a process that is made for it.

Such a process takes one trial after another, so that only the first waits for Python to start. It
reads the folders of trials from its standard input, a line each, and answers each with a line on
its standard output; it ends, in the middle of a trial as well, when its input is closed, which
happens also where the process that made it was killed. A run can be left at any moment.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fullback.cli.output import FAILURE
from fullback.cli.run_folder import RunFolder

KILLED = -1
"""In place of an exit code, where the process was killed."""

_TRIES = 3  # of a trial whose process is killed each time
_SECONDS_TO_END = 30  # for another process that trains in the folder, and is about to end
_NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows

Answer = tuple[int, str]
"""An exit code, and the error's line without ``error:``, or nothing."""


class TrialProcesses:
    """Processes that train trials, as many as there are trials at a time.

    Parameters
    ----------
    threads : of each process
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._idle: list[_TrialProcess] = []
        self._busy: set[_TrialProcess] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def train(self, folder: str) -> Answer:
        """Train the run in a folder to its end, from where it is.

        Where its process is killed, it goes on in another one.
        """
        for _ in range(_TRIES):
            _wait_for_lock(folder)
            with self._lock:
                if self._stopped.is_set():
                    break
                process = self._idle.pop() if self._idle else _TrialProcess(self.threads)
                self._busy.add(process)
            answer = process.train(folder)
            with self._lock:
                self._busy.remove(process)
                if answer is not None and not self._stopped.is_set():
                    self._idle.append(process)
                    return answer
            process.end()
            if answer is not None:
                return answer
        return KILLED, f"its process was killed, {_TRIES} times in a row; is there enough memory?"

    def stop(self) -> None:
        """End all processes, also those that train."""
        with self._lock:
            self._stopped.set()
            for busy in self._busy:
                busy.stop()
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()


class _TrialProcess:
    def __init__(self, threads: int) -> None:
        count = str(threads)
        threads_of = ("FULLBACK_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", "fullback.cli.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, **dict.fromkeys(threads_of, count), "PYTHONUTF8": "1"},
            start_new_session=True,  # so that Ctrl-C reaches the sweep alone
            creationflags=_NEW_GROUP,
        )

    def train(self, folder: str) -> Answer | None:
        """Train a run; None where the process was killed or stopped."""
        try:
            self._process.stdin.write(json.dumps(folder) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # it has ended, or its input was closed
            line = ""
        if not line.endswith("\n"):
            return None
        code, error = json.loads(line)
        return code, error

    def stop(self) -> None:
        """Let it end, from any thread."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self) -> None:
        """Let it end, and wait for that."""
        self.stop()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _wait_for_lock(folder: str) -> None:
    """Wait for a process that is about to end, as its sweep or its Dask worker was killed."""
    with (
        contextlib.suppress(Timeout, OSError),
        FileLock(Path(folder) / ".lock", timeout=_SECONDS_TO_END),
    ):
        pass


def train_on_dask(folder: str, version: str) -> Answer:
    """Train the run in a folder, in a task of Dask; where that is cancelled, training ends.

    Parameters
    ----------
    version : that of the fullback which started the sweep
    """
    from distributed import get_worker

    from fullback import __version__
    from fullback.engine.machine import threads

    worker = get_worker()
    if __version__ != version:
        return FAILURE, (
            f"the worker {worker.address} has fullback {__version__}, and the sweep was started by "
            f"{version}; install the same one"
        )
    if not RunFolder(Path(folder)).config.is_file():
        return FAILURE, (
            f"the worker {worker.address} does not see {folder}; the sweep's folder must be on a "
            "file system that all machines share, and --run may name one"
        )
    processes = TrialProcesses(threads())
    ended = threading.Event()
    task = worker.get_current_task()

    def watch() -> None:
        while not ended.wait(0.5):
            state = worker.state.tasks.get(task)
            if state is None or state.state in ("cancelled", "released"):
                processes.stop()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        return processes.train(folder)
    finally:
        ended.set()
        processes.stop()


# In the process itself ----------------------------------------------------------------------------


def main() -> None:
    """Train what standard input asks for, until it is closed."""
    folders: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    threading.Thread(target=_read, args=(folders,), daemon=True).start()
    while True:
        answer = _train(folders.get())
        print(json.dumps(answer), file=answers, flush=True)


def _read(folders: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        folders.put(json.loads(line))
    os._exit(0)


def _train(folder: str) -> Answer:
    from fullback.cli.app import run

    sys.argv = ["fullback", "train", "--resume", folder, "--no-pictures", "--json"]
    code: Any = 0
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,  # noqa: PTH123
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(io.StringIO()) as written,
    ):
        try:
            run()
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:  # noqa: BLE001 -- a mistake of fullback's, told as this trial's
            return FAILURE, f"{type(error).__name__}: {error}"
    lines = [line for line in written.getvalue().splitlines() if line.startswith("error: ")]
    return int(code), lines[-1].removeprefix("error: ") if lines else ""


if __name__ == "__main__":
    main()
