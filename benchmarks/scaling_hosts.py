"""Hosts for ``scaling.py``: network namespaces of this machine, with a network between them.

Every host has two network cards: ``control``, by which ``mpiexec`` starts processes, and ``data``,
which MPI uses and whose bandwidth ``tc`` limits, by a token bucket in each direction. Without a
delay the data cards are joined by a bridge of the kernel. With one they are TAP devices, and a
thread here carries every frame from one to another after it: that needs nothing that a kernel may
lack, as netem, but a third of a core, and it is late by some tens of microseconds.

That takes root, ``ip``, ``tc`` and Linux; `missing` says what there is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CONTROL, _DATA = "198.18", "198.19.0"  # addresses for measurements, RFC 2544
_MTU = 9000
_BURST = 16_000  # bytes that may go at once
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_PR_SET_TIMERSLACK = 29
_FRAMES = 64  # that are read from a card at a time

_AGENT = """#!/bin/sh
# Starts a command on a host, as ssh would.
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
"""


class CommandError(RuntimeError):
    """A command ended with an error."""


def run(*command: str, **options: Any) -> str:
    """Run a command and return what it writes."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # noqa: S603
    if ran.returncode:
        raise CommandError(f"{' '.join(command)}: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout


def missing() -> str:
    """Say why there can be no hosts, or "" where there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    for tool in ("ip", "tc", "unshare"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    try:
        with Hosts(2) as hosts:
            hosts.limit(1e9)
        with Hosts(2, delay=1e-3):
            pass
    except (CommandError, OSError) as error:
        return str(error)
    return ""


def environment() -> dict[str, str]:
    """Return the variables for ranks of one thread that root may start."""
    root = {f"{name}_ALLOW_RUN_AS_ROOT{more}": "1" for name in ("OMPI", "PRTE")
            for more in ("", "_CONFIRM")}  # fmt: skip
    return {**os.environ, **root, "FULLBACK_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def mpiexec() -> str:
    """Return the mpiexec beside this Python, or else that in the path."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise CommandError("there is no mpiexec; pip install 'fullback[mpi]'")
    return found


def start(
    ranks: int, command: Sequence[str], options: Sequence[str] = (), seconds: int = 300
) -> None:
    """Run a command in so many processes, by mpiexec."""
    every = [
        mpiexec(),
        "-n",
        str(ranks),
        "--bind-to",
        "none",
        "--oversubscribe",
        *options,
        *command,
    ]
    process = subprocess.Popen(  # noqa: S603
        every,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandError(f"mpiexec did not end within {seconds} s") from None
        raise
    if process.returncode:
        raise CommandError(f"mpiexec ended with {process.returncode}: {said.strip()[-2000:]}")


class Hosts:
    """Some hosts, from ``with`` to its end.

    Parameters
    ----------
    count : how many
    delay : seconds that a frame takes from one to another, beside the time that it takes anyway
    """

    def __init__(self, count: int, *, delay: float = 0.0) -> None:
        self._own = f"fb{os.getpid()}"  # several programs have hosts of their own
        self._control = f"{_CONTROL}.{os.getpid() % 256}"
        self.names = [f"{self._own}h{n}" for n in range(1, count + 1)]
        self._delay = delay
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Hosts:
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _make(self) -> None:
        bridges = ["control"] if self._delay else ["control", "data"]
        for kind in bridges:
            run("ip", "link", "add", self._own + kind[0], "type", "bridge")
            self._stack.callback(run, "ip", "link", "del", self._own + kind[0])
            run("ip", "link", "set", "dev", self._own + kind[0], "up", "mtu", str(_MTU))
        run("ip", "addr", "add", f"{self._control}.254/24", "dev", self._own + "c")
        cards: list[int] = []
        for number, host in enumerate(self.names, 1):
            run("ip", "netns", "add", host)
            self._stack.callback(_end, host)
            for kind, network in (("control", self._control), ("data", _DATA)):
                if kind in bridges:
                    self._join(host, kind, number)
                else:
                    cards.append(self._tap(host, number))
                within = ("ip", "-n", host)
                run(*within, "addr", "add", f"{network}.{number}/24", "dev", kind)
                run(*within, "link", "set", "dev", kind, "mtu", str(_MTU), "up")
            run("ip", "-n", host, "link", "set", "dev", "lo", "up")
        if cards:
            self._stack.enter_context(Carrier(cards, self._delay))
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._agent = Path(folder) / "agent"
        self._agent.write_text(_AGENT)
        self._agent.chmod(0o700)

    def _join(self, host: str, kind: str, number: int) -> None:
        """Give a host a card that a bridge here joins with those of the others."""
        end = f"{self._own}{kind[0]}{number}"
        run("ip", "link", "add", end, "type", "veth", "peer", "name", kind, "netns", host)
        self._stack.callback(run, "ip", "link", "del", end)  # a host's end goes with it only later
        run("ip", "link", "set", "dev", end, "mtu", str(_MTU), "master", self._own + kind[0], "up")

    def _tap(self, host: str, number: int) -> int:
        """Give a host a card whose frames are read and written here; return its file."""
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._stack.callback(os.close, file)
        name = f"{self._own}t{number}"
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(file, _TUNSETIFF, request)
        run("ip", "link", "set", "dev", name, "address", f"02:00:00:00:00:{number:02x}")
        run("ip", "link", "set", "dev", name, "netns", host)
        run("ip", "-n", host, "link", "set", "dev", name, "name", "data")
        return file

    def limit(self, bandwidth: float) -> None:
        """Let each host send so many bytes a second to all others together."""
        rate, burst = f"{8 * bandwidth:.0f}bit", str(_BURST)
        for host in self.names:
            bucket = ("tbf", "rate", rate, "burst", burst, "latency", "1s")
            run("tc", "-n", host, "qdisc", "replace", "dev", "data", "root", *bucket)

    def start(self, command: Sequence[str], seconds: int = 300) -> None:
        """Run a command on every host, as ranks that reach each other by TCP alone."""
        options = [
            *("--host", ",".join(self.names), "--map-by", "node"),
            *("--prtemca", "plm_ssh_agent", str(self._agent)),
            *("--prtemca", "prte_if_include", f"{self._control}.0/24"),
            *("--mca", "pml", "ob1", "--mca", "btl", "tcp,self"),
            *("--mca", "btl_tcp_if_include", f"{_DATA}.0/24"),
        ]
        start(len(self.names), command, options, seconds)


def _end(host: str) -> None:
    """End what still runs on a host, and the host."""
    for process in run("ip", "netns", "pids", host).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    run("ip", "netns", "del", host)


class Carrier:
    """A thread that carries frames from card to card, each as long after it came as all others."""

    def __init__(self, cards: Sequence[int], delay: float) -> None:
        self.cards, self.delay = list(cards), delay
        self._ended = False
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> Carrier:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self._thread.join()

    def _carry(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        waiting: deque[tuple[float, int, bytes]] = deque()
        while not self._ended:
            due = waiting[0][0] - time.perf_counter() if waiting else 0.1
            for card in select.select(self.cards, [], [], max(0.0, due))[0]:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(_FRAMES):
                        frame = os.read(card, _MTU + 64)
                        waiting.append((time.perf_counter() + self.delay, card, frame))
            now = time.perf_counter()
            while waiting and waiting[0][0] <= now:
                _, card, frame = waiting.popleft()
                for target in self._targets(card, frame):
                    with contextlib.suppress(OSError):  # a full card loses frames, as others do
                        os.write(target, frame)

    def _targets(self, card: int, frame: bytes) -> list[int]:
        """Return where a frame goes: to the card with its address, or to all others."""
        number = frame[5]
        if frame[:5] == b"\x02\0\0\0\0" and 1 <= number <= len(self.cards):
            return [self.cards[number - 1]]
        return [other for other in self.cards if other != card]
