"""Names that hold control characters, and files that are none, as every command meets them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fullback as fb

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such names and no pipes")
pytestmark = posix

CLASSES = ("\x1b[2JA", "[bold]B\u202e", "c\x9b31m\rd")
MODEL = "m\x1b[2J[x].safetensors"
TEXT = "conv2 relu pool flatten dense3"


def command(*arguments, folder, seconds=120):
    """Run a command as a process; what it writes must not move a terminal's cursor."""
    ran = subprocess.run(
        [sys.executable, "-m", "fullback", *arguments],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=seconds,
    )
    for stream in (ran.stdout, ran.stderr):
        for harm in ("\x1b", "\x07", "\r", "\x9b", "\u202e"):
            assert harm.encode() not in stream, stream
    assert b"Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos in folders of such names, a model, and a run."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 3)):
        for number, name in enumerate(CLASSES):
            (folder / "photos" / part / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 60, (12, 12), np.uint8)
                pixels[number * 4 : number * 4 + 4] += 150
                path = folder / "photos" / part / name / f"\x1b[31mi[red]{n}\n.png"
                Image.fromarray(pixels).save(path)
    options = ("--data", "photos", "--net", TEXT, "--epochs", "6")
    code, _, err = command("train", *options, "--out", MODEL, "--run", "r\x1b[2J", folder=folder)
    assert code == 0, err
    return folder


def photo(folder):
    return str(next((folder / "photos" / "test").glob("*/*.png")))


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "photos"),
        ("summary", MODEL),
        ("eval", MODEL, "--data", "photos"),
        ("predict", "PHOTO", "--model", MODEL),
        ("predict", "PHOTO", "--model", MODEL, "--json"),
        ("explain", "PHOTO", "--model", MODEL, "--out", "report\x1b.html"),
        ("runs", "."),
        ("train", "--resume", "r\x1b[2J"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_work(folder, arguments):
    named = [photo(folder) if word == "PHOTO" else word for word in arguments]
    code, _, err = command(*named, folder=folder)
    assert code == 0, err


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "none\x1b[2J.png", "--model", MODEL),
        ("train", "--data", "none\x1b[2J"),
        ("train", "--net", "conv\x1b[2J"),
        ("train", "--out", ""),
        ("train", "--out", "/dev/null"),
        ("train", "--epochs", "9" * 300),
        ("\x1b[2J",),
        ("train", "--none\x1b[2J"),
    ],
    ids=lambda arguments: " ".join(arguments)[:20].replace("\x1b", "ESC"),
)
def test_commands_that_are_refused(folder, arguments):
    code, out, err = command(*arguments, folder=folder)
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["result.json", "config.toml", "checkpoint.safetensors", "log.txt"]
)
def test_pipes_in_a_run(folder, tmp_path, name):
    """Nobody writes into them; nothing waits for that."""
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    for path in (folder / "r\x1b[2J").iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    (run / name).unlink()
    os.mkfifo(run / name)
    (tmp_path / "photos").symlink_to(folder / "photos")
    command("runs", "runs", folder=tmp_path, seconds=60)
    code, _, err = command("train", "--resume", str(run), folder=tmp_path, seconds=60)
    if name != "result.json":
        assert code in (1, 2)
        assert err.splitlines()[-1].startswith("error: ")


def test_names_in_a_model_file(tmp_path):
    """A file may hold any text as class names."""
    net = fb.Network.parse(TEXT, (1, 12, 12))
    net.class_names = ("\ud800\x1b[2J", "\x00", "x" * 10_000)
    fb.save(net, tmp_path / "m.safetensors")
    Image.new("L", (12, 12)).save(tmp_path / "x.png")
    assert fb.load(tmp_path / "m.safetensors").class_names == net.class_names
    for options in ((), ("--json",)):
        arguments = ("predict", "x.png", "--model", "m.safetensors", *options)
        code, out, err = command(*arguments, folder=tmp_path)
        assert code == 0, err
    assert all(json.loads(line) for line in out.splitlines())
