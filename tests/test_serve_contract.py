"""schemathesis, which asks for whatever the description allows and forbids, finds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fullback as fb
from fullback.pixels import ImageRecord
from support.command import environment

pytest.importorskip("schemathesis", reason="needs schemathesis")
pytest.importorskip("httptools", reason="needs the extra serve")
pytest.importorskip("orjson", reason="needs the extra serve")

from fullback.serve.launch import service


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks of each kind: of grey images, colours, and numbers, and one of unknown scale."""
    path = tmp_path_factory.mktemp("models")
    grey = fb.Network.parse("conv2 relu flatten dense2", (1, 3, 3))
    grey.threshold = fb.Threshold(1, 0.3)
    fb.save(grey, path / "grey.safetensors")
    fb.save(fb.Network.parse("flatten dense3", (3, 2, 2)), path / "colours.safetensors")
    loss = fb.MeanSquaredError()
    fb.save(fb.Network.parse("dense2", (4,), loss=loss), path / "numbers.safetensors")
    unknown = fb.Network.parse("flatten dense2", (1, 3, 3), loss=fb.BinaryCrossEntropy())
    unknown.trained_on = ImageRecord(-3.0, 3.0, 0.0, -1.0, None, None)
    fb.save(unknown, path / "unknown.safetensors")
    return path


def importing_support():
    """The environment of schemathesis, whose process finds the package ``support`` too."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return environment(
        SCHEMATHESIS_HOOKS="support.image_bodies", PYTHONPATH=os.pathsep.join(filter(None, paths))
    )


@pytest.mark.parametrize("names", [["grey"], ["colours", "numbers", "unknown"]])
def test_it_finds_nothing(folder, names):
    with service([(name, str(folder / f"{name}.safetensors")) for name in names], port=0) as server:
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}openapi.json",
             "--seed", "1", "--max-examples", "100", "--no-color"],
            env=importing_support(),
            capture_output=True,
            text=True,
            timeout=300,
        )  # fmt: skip
    report = "\n".join(line[:300] for line in done.stdout.splitlines())
    assert done.returncode == 0, report[-5000:] + done.stderr[-1000:]
    assert "No issues found" in report
