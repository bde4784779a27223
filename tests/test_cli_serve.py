"""``fullback serve`` as a process of its own: what it says, and how it ends."""

import json
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

import fullback as fb
from support.command import posix, run, start, time_limit

pytest.importorskip("httptools", reason="needs the extra serve")
pytest.importorskip("orjson", reason="needs the extra serve")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    fb.save(fb.Network.parse("flatten dense2", (1, 3, 3)), path / "tiny.safetensors")
    fb.save(fb.zoo.wide(seed=1), path / "wide.safetensors")
    return path


def ask(address, numbers, name):
    asked = urllib.request.Request(
        f"{address}predict/{name}",
        json.dumps({"pixels": numbers}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answered:
        return json.loads(answered.read())


class TestProcess:
    @posix
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_answers_and_ends(self, folder, number):
        """It ends with exit code 0, without a line on standard error."""
        process = start("serve", folder / "tiny.safetensors", "--port", 0, "--json")
        with time_limit(process):
            told = json.loads(process.stdout.readline())
            assert told["models"] == {"tiny": str(folder / "tiny.safetensors")}
            assert len(ask(told["address"], [[0, 1, 2]] * 3, "tiny")["predictions"]) == 1
            process.send_signal(number)
            out, err = process.stdout.read(), process.stderr.read()
            assert (process.wait(), err) == (0, "")
            assert json.loads(out) == {"event": "end"}
        process.stdout.close()
        process.stderr.close()

    @posix
    def test_what_was_begun_is_finished(self, folder):
        process = start("serve", f"w={folder / 'wide.safetensors'}", "--port", 0, "--json")
        with time_limit(process), ThreadPoolExecutor(4) as pool:
            address = json.loads(process.stdout.readline())["address"]
            images = [[[7] * 28] * 28] * 128
            asked = [pool.submit(ask, address, images, "w") for _ in range(4)]
            while not all(one.running() or one.done() for one in asked):
                pass
            waiting = "fullback_waiting_images 0.0"
            while waiting in metrics(address) and not any(one.done() for one in asked):
                pass
            process.send_signal(signal.SIGTERM)
            # Those that had arrived; a request that had not finds nobody.
            ended = [one for one in asked if one.exception() is None]
            assert process.wait() == 0
            assert ended, [one.exception() for one in asked]
            assert all(len(one.result()["predictions"]) == 128 for one in ended)
        process.stdout.close()
        process.stderr.close()

    def test_for_people(self, folder):
        models = [f"{name}={folder / 'tiny.safetensors'}" for name in ("a", "b")]
        process = start("serve", *models, "--port", 0, "--host", "0.0.0.0")
        with time_limit(process):
            lines = [process.stdout.readline() for _ in range(4)]
        process.wait()
        process.stdout.close()
        process.stderr.close()
        assert lines[0].startswith("model      /predict/a: ")
        assert lines[0].endswith("for images of 1 x 3 x 3\n")
        assert lines[1].startswith("model      /predict/b: ")
        assert lines[2] == "careful    whoever reaches this address can ask\n"
        assert lines[3].startswith("address    http://")


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "code", "match"),
        [
            (["nowhere.safetensors"], 1, "nowhere.safetensors"),
            (["a=nowhere.safetensors"], 1, "nowhere.safetensors"),
            (["a b={tiny}"], 2, "a model's name must be letters"),
            (["{tiny}", "{tiny}"], 2, "two models are called tiny; give them names"),
            (["{tiny}", "--host", "192.0.2.1"], 2, "cannot listen at 192.0.2.1"),
            (["{tiny}", "--host", ""], 2, "the host to listen at is empty"),
            (["{tiny}", "--port", "70000"], 2, "70000"),
            ([], 2, "Missing argument"),
        ],
    )
    def test_one_line(self, folder, arguments, code, match):
        given = [text.format(tiny=folder / "tiny.safetensors") for text in arguments]
        if code == 2 and match in ("70000", "Missing argument"):
            process = start("serve", *given)
            out, err = process.communicate(timeout=60)
            assert process.returncode == code
        else:
            ran = run("serve", *given)
            out, err = ran.out, ran.err
            assert ran.code == code
        assert out == ""
        assert match in err
        assert len(err.splitlines()) == 1

    def test_without_the_extra(self, folder):
        script = (
            "import sys; sys.modules.update(httptools=None, orjson=None); "
            "sys.argv[1:] = ['serve', 'm.safetensors']; from fullback.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert done.stderr == (
            "error: fullback serve needs httptools and orjson; pip install 'fullback[serve]'\n"
        )


def metrics(address):
    with urllib.request.urlopen(f"{address}metrics", timeout=60) as answered:
        return answered.read().decode()
