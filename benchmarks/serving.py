"""``fullback serve`` under load: predictions a second and their latency, by wrk on loopback.

Needs wrk (``apt install wrk``). Its one thread and the server share the machine. The answers are
compared with ``Network.predict_proba`` first. At full load each of the connections asks again as
soon as it is answered; at half load each waits a random time between, so that half as many requests
come. Of each load the round is shown in which others had least of the machine's CPU time, with that
share (Linux tells it): on a machine that others use, it explains most of what differs. CPU is the
server's own a request, and a block is how many images were computed together.
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tables import console, progress, table

import fullback as fb
from fullback.pixels import ImageRecord

CONNECTIONS = 64
BODIES = 50  # different ones, sent in turns
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}

LUA = """
local requests, n = {{}}, 0
init = function(args)
  wrk.headers["Content-Type"] = "{kind}"
  for i = 1, {count} do
    local file = io.open("{folder}/" .. i, "rb")
    requests[i] = wrk.format("{method}", "{path}", nil, file:read("*a"))
    file:close()
  end
  math.randomseed(1)
end
request = function() n = n % {count} + 1; return requests[n] end
if {delay} > 0 then
  delay = function() return math.floor(math.random() * 2 * {delay}) end
end
"""


@dataclass(frozen=True)
class Load:
    """Requests of one kind: their body's type, and the bodies."""

    name: str
    kind: str
    bodies: list[bytes]
    images: int = 1
    method: str = "POST"
    path: str = "/predict"


@dataclass(frozen=True)
class Seen:
    """What was measured.

    Requests a second, latencies in ms, CPU microseconds, images a block, and the share of others.
    """

    rate: float
    half: float
    most: float
    cpu: float
    block: float
    others: float


class Server:
    """A server in a process of its own."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "fullback", "serve", str(model), "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address: str = json.loads(self.process.stdout.readline())["address"]  # type: ignore[union-attr]

    def post(self, body: bytes, kind: str) -> Any:
        """Return what is answered to a body."""
        asked = urllib.request.Request(f"{self.address}predict", body, {"Content-Type": kind})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read())

    def counters(self) -> dict[str, float]:
        """Return what the server counts."""
        with urllib.request.urlopen(f"{self.address}metrics", timeout=60) as answer:
            rows = (row.rsplit(" ", 1) for row in answer.read().decode().splitlines())
            return {name: float(value) for name, value in rows if not name.startswith("#")}

    def close(self) -> None:
        """Tell it to stop, and wait."""
        self.process.terminate()
        if self.process.wait(30) != 0:
            raise SystemExit("the server did not end as it should")


@contextlib.contextmanager
def served(net: fb.Network) -> Iterator[Server]:
    """Serve a network, and check what it answers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        fb.save(net, path)
        server = Server(path)
        try:
            yield server
        finally:
            server.close()


def loads(x: np.ndarray) -> list[Load]:
    """Return what is asked for: an image as JSON and as PNG, and 16 images; and nothing."""

    def as_json(images: np.ndarray) -> bytes:
        return json.dumps({"pixels": images.tolist()}, separators=(",", ":")).encode()

    def as_png(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    some = range(BODIES)
    return [
        Load("1 image, JSON", "application/json", [as_json(x[n, 0]) for n in some]),
        Load("1 image, PNG", "image/png", [as_png(x[n, 0]) for n in some]),
        Load("16 images, JSON", "application/json", [as_json(x[n : n + 16]) for n in some], 16),
        Load("GET /health", "", [b""], 0, "GET", "/health"),
    ]


def check(server: Server, load: Load, x: np.ndarray, net: fb.Network) -> None:
    """Compare the answers to some bodies with the network's own."""
    for n in range(0, len(load.bodies), 7):
        found = server.post(load.bodies[n], load.kind)["predictions"]
        wanted = net.predict_proba(x[n : n + load.images])
        given = np.array([row["probabilities"] for row in found])
        if given.shape != wanted.shape or np.abs(given - wanted).max() > 1e-6:
            raise SystemExit(f"{load.name}: the server answers otherwise than the network")


def wrk(address: str, load: Load, seconds: int, delay: float = 0) -> tuple[float, float, float]:
    """Return the requests a second, and the median and the 99th percentile in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        for place, body in enumerate(load.bodies, 1):
            Path(folder, str(place)).write_bytes(body)
        script = Path(folder, "wrk.lua")
        text = LUA.format(
            count=len(load.bodies),
            folder=folder,
            method=load.method,
            path=load.path,
            kind=load.kind,
            delay=delay,
        )
        script.write_text(text, encoding="utf-8")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
        done = subprocess.run(
            [*command, "-s", str(script), address], capture_output=True, text=True, check=True
        )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{load.name}: some requests failed:\n{done.stdout}")
    (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)
    times = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+[mu]?s)", done.stdout, re.MULTILINE))
    return float(rate), milliseconds(times["50"]), milliseconds(times["99"])


def milliseconds(text: str) -> float:
    """Read a time as wrk writes it."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def measure(server: Server, load: Load, seconds: int, delay: float = 0) -> Seen:
    """Return what one load does to the server."""
    before, start, own = server.counters(), machine(), os.times()
    rate, half, most = wrk(server.address, load, seconds, delay)
    after, end, children = server.counters(), machine(), os.times()
    spent = {name: after[name] - before.get(name, 0) for name in after}
    blocks = spent["fullback_block_images_count"]
    seen = spent["process_cpu_seconds_total"]
    used = seen + children.children_user - own.children_user
    used += children.children_system - own.children_system
    whole, idle = end[0] - start[0], end[1] - start[1]
    return Seen(
        rate,
        half,
        most,
        seen / (rate * seconds) * 1e6,
        spent["fullback_block_images_sum"] / max(blocks, 1),
        max(0.0, 1 - (idle + used) / whole) if whole else float("nan"),
    )


def machine() -> tuple[float, float]:
    """Return the seconds of CPU time that the machine had, and those in which it was idle."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0, 0.0
    ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in line.split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def quietest(seen: list[Seen]) -> Seen:
    """Return the round in which others had least of the machine."""
    return min(seen, key=lambda one: one.others)


def compare(name: str, rounds: int, seconds: int) -> None:
    """Measure one network under each load, and show it."""
    net = fb.zoo.NETWORKS[name]()
    x = fb.load_data("digits").x_train
    net.trained_on = ImageRecord(0.0, 1.0, 0.1, 0.0, 0.0, 1.0)
    shown = table(
        f"{name}: {CONNECTIONS} connections",
        *("load", "asked/s", "images/s", "50% ms", "99% ms", "CPU us", "block", "others"),
    )
    with served(net) as server, progress.status(name) as status:
        for load in loads(x):
            if load.images:
                check(server, load, x, net)
            wrk(server.address, load, 1)
            status.update(f"{name}: {load.name}, full load")
            full = [measure(server, load, seconds) for _ in range(rounds)]
            rows = [("full", full)]
            if load.images:
                status.update(f"{name}: {load.name}, half load")
                wanted = quietest(full).rate / 2
                delay = 1000 * CONNECTIONS / wanted
                delay -= wrk(server.address, load, 2, delay)[1]  # in which it is not waited
                calm = [measure(server, load, seconds, delay) for _ in range(rounds)]
                rows.append(("half", calm))
            for word, every in rows:
                seen = quietest(every)
                shown.add_row(
                    f"{load.name}, {word}",
                    f"{seen.rate:,.0f}",
                    f"{seen.rate * load.images:,.0f}" if load.images else "",
                    f"{seen.half:.1f}",
                    f"{seen.most:.1f}",
                    f"{seen.cpu:.0f}",
                    f"{seen.block:.1f}" if load.images else "",
                    f"{seen.others:.0%}",
                )
    console.print("", shown)


def main() -> None:
    """Measure the networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of which the quietest is shown")
    parser.add_argument("--seconds", type=int, default=3, help="of each round")
    parser.add_argument("--net", choices=list(fb.zoo.NETWORKS), action="append")
    options = parser.parse_args()
    for name in options.net or ["small"]:
        compare(name, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
