"""The command as a process of its own: exit codes, pipes, signals, terminals, help."""

import json
import os
import re
import signal
import subprocess

import numpy as np
import pytest

import fullback as fb
from fullback.cli.app import app
from fullback.cli.interrupt import exit_on_ctrl_c, raise_on_ctrl_c
from support.command import command, environment, posix, run, start, time_limit

OPTIONS = {
    "train": """--data --data-dir --image-size --resize --nested --test-share --split-seed
        --label-column --image-folder --unpack --net --from --epochs --batch-size --optimizer --lr
        --momentum --schedule --augment --mixup --weight-decay --clip --average --label-smoothing
        --regression --balanced --class-weight --validation --patience --monitor --min-improvement
        --engine
        --freeze --compare --no-compare --seed --attempts --out --run --resume --pictures
        --no-pictures --config --json --help""",
    "rate": """--data --data-dir --image-size --label-column --net --optimizer --batch-size
        --steps --seed --plot --json --help""",
    "runs": "--json --help",
    "sweep": "--run --workers --json --help",
    "data": """--data-dir --image-size --resize --nested --label-column --image-folder --test-share
        --split-seed --unpack --sheet --augment --json --help""",
    "eval": """--data --data-dir --label-column --image-folder --positive --recall --cost
        --choose-on --store --plots --json --help""",
    "predict": """--model --invert --out --probabilities --kaggle --label-column --image-folder
        --json --help""",
    "summary": "--input-shape --classes --json --help",
    "bench": "--net --batch --threads --rival --rounds --quick --json --help",
    "warmup": "--json --help",
    "check": """--data --data-dir --label-column --images --engine --samples --training
        --prediction --seed --json --help""",
    "diagnose": """--probe --lr --reduction --l2 --convolution --training --prediction --seed --json
        --help""",
    "explain": "--model --label --label-column --data --data-dir --out --invert --json --help",
    "explore": """--data --data-dir --image-size --label-column --seed --port --host --browser
        --no-browser --json --help""",
    "serve": "--host --port --json --help",
    "program": "--input-shape --classes --batch-size --training --prediction --json --help",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with toy data of 30 images, and a model."""
    d = tmp_path_factory.mktemp("process")
    x = np.random.default_rng(0).integers(0, 256, (30, 9, 8), np.uint8)
    y = np.arange(30) % 3
    np.savez(d / "toy.npz", x_train=x, y_train=y, x_test=x[:6], y_test=y[:6])
    fb.save(fb.Network.parse("conv2 relu flatten dense3", (1, 9, 8)), d / "m.safetensors")
    return d


@pytest.fixture
def endless(folder, tmp_path):
    """Arguments of a training run that takes very long, into an empty folder."""
    common = ("train", "--data", folder / "toy.npz", "--net", "conv2 relu flatten dense3")
    return *common, "--epochs", 10**6, "--out", tmp_path / "m.safetensors"


def imported(line):
    """The module whose import Python has just reported on this line, if it is such a line."""
    return line.rpartition("|")[2].strip() if line.startswith("import time:") else None


REPORT_IMPORTS = environment(PYTHONPROFILEIMPORTTIME="1")
WHILE_IT_STARTS = """typer.models typer fullback.cli.app numpy.exceptions numpy fullback.network
    fullback.data"""


class TestStartUp:
    """From the first import to a command's work."""

    @pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
    def test_help_imports_nothing_heavy(self, arguments):
        done = start(*arguments, env=REPORT_IMPORTS)
        out, err = done.communicate(timeout=60)
        assert (done.returncode, out != "") == (0, True)
        modules = {*map(imported, err.splitlines())}
        assert "fullback.cli.app" in modules
        heavy = ("numpy", "sklearn", "PIL", "safetensors", "fullback.network", "fullback.data")
        assert not modules & {*heavy}

    @posix
    @pytest.mark.parametrize("module", WHILE_IT_STARTS.split())
    def test_ctrl_c_while_modules_are_imported(self, endless, module):
        """At a moment, not after a time, so that it is the same one on a busy machine."""
        early = start(*endless, "--json", env=REPORT_IMPORTS)
        with time_limit(early):
            lines = iter(early.stderr.readline, "")
            assert any(imported(line) == module for line in lines)
            early.send_signal(signal.SIGINT)
            early.stdout.read()
            said = [line for line in lines if imported(line) is None]
            assert early.wait() == 130
        early.stdout.close()
        early.stderr.close()
        # Where this process was held up, training has begun, and ends as it does below.
        assert all(line == "error: interrupted\n" or line.startswith("warning: ") for line in said)

    @pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
    def test_ctrl_c_is_handed_back(self, handler):
        before = signal.signal(signal.SIGINT, handler)
        try:
            with exit_on_ctrl_c():
                exits = signal.getsignal(signal.SIGINT) is not handler
            after_it = signal.getsignal(signal.SIGINT)
            with exit_on_ctrl_c():
                raise_on_ctrl_c()
                within = signal.getsignal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, before)
        assert after_it is within is handler
        assert exits == (handler is signal.default_int_handler)


class TestExitCodes:
    def test_done(self, folder):
        done = start("eval", folder / "m.safetensors", "--data", folder / "toy.npz", "--json")
        out, err = done.communicate(timeout=60)
        assert (done.returncode, err) == (0, "")
        (line,) = out.splitlines()
        assert json.loads(line)["event"] == "result"

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [(["eval", "nowhere.safetensors"], 1), (["summary", "cnov"], 2)],
    )
    def test_failed(self, arguments, code):
        failed = start(*arguments)
        out, err = failed.communicate(timeout=60)
        assert (failed.returncode, out) == (code, "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1

    @posix
    def test_ctrl_c(self, endless, tmp_path):
        """The first Ctrl-C ends training; the lines are whole, and the network is saved."""
        training = start(*endless, "--json")
        lines = [training.stdout.readline() for _ in range(3)]
        training.send_signal(signal.SIGINT)
        out, err = training.stdout.read(), training.stderr.read()  # communicate skips the buffer
        assert training.wait(60) == 130
        training.stdout.close()
        training.stderr.close()
        assert all(line.startswith("warning: ") for line in err.splitlines())
        events = [json.loads(line) for line in [*lines, *out.splitlines()]]
        epochs = len(events) - 2
        assert [e["event"] for e in events] == ["start", *["epoch"] * epochs, "result"]
        assert events[-1]["interrupted"] is True
        assert events[-1]["epochs"] == epochs
        assert fb.load(tmp_path / "m.safetensors").output_shape == (3,)
        assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_output_that_cannot_be_written(self, options):
        with open("/dev/full", "w") as full:  # noqa: PTH123
            done = subprocess.run(
                command("summary", *options),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
                timeout=60,
            )
        assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_any_encoding(folder):
    """Where a terminal or a pipe takes no box drawing, there is none."""
    done = subprocess.run(
        command("eval", folder / "m.safetensors", "--data", folder / "toy.npz"),
        capture_output=True,
        env=environment(PYTHONUTF8="0", PYTHONIOENCODING="ascii"),
        timeout=60,
        check=True,
    )
    assert "of 6 images" in done.stdout.decode("ascii")
    assert not done.stderr


@posix
class TestTerminal:
    def show(self, *arguments, columns=80, err=None, code=0):
        """Run a command on a terminal of its own, and return all that it wrote there."""
        import fcntl
        import pty
        import struct
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs if err is None else err}
        env = environment(TERM="xterm-256color")
        child = subprocess.Popen(command(*arguments), env=env, **streams)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # Linux: the other end has closed
        os.close(ours)
        assert child.wait(60) == code
        return shown.decode()

    @pytest.fixture
    def dying(self, folder, tmp_path):
        """Arguments of a training run that soon has a dead layer at each attempt, and warns."""
        net = "flatten dense1 relu dense3"
        common = ("train", "--data", folder / "toy.npz", "--net", net, "--epochs", 30)
        return *common, "--lr", 5, "--out", tmp_path / "m.safetensors"

    def test_a_warning_stands_on_a_line_of_its_own(self, dying):
        text = self.show(*dying, code=1)
        plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", text)]
        attempts = sum(line.startswith("again ") for line in plain) + 1
        assert sum(line.startswith("warning: relu1 is dead") for line in plain) == attempts == 3
        assert not [line for line in plain if "warning:" in line[1:]]
        assert [line for line in plain if re.match(r"epoch +\d+/30 +loss", line)]
        assert "\x1b[1;33mwarning: " in text

    def test_a_warning_goes_where_standard_error_goes(self, dying, tmp_path):
        with (tmp_path / "err").open("w") as err:
            assert "warning:" not in self.show(*dying, err=err, code=1)
        assert (
            (tmp_path / "err").read_text().startswith("warning: relu1 is dead: it is 0 everywhere")
        )


class TestHelp:
    @pytest.mark.parametrize("columns", [80, 120])
    @pytest.mark.parametrize("name", OPTIONS)
    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_every_option_is_explained(self, name, option, columns):
        ran = run(name, option, columns=columns)
        assert ran.code == 0
        assert {*re.findall(r"(?<!\S)--[a-z0-9-]+", ran.out)} >= {*OPTIONS[name].split()}
        assert max(map(len, ran.out.splitlines())) <= columns
        assert "…" not in ran.out
        assert not re.search(r"\[/?(bold|dim)\]|\*\*|`", ran.out)  # markup that was not rendered

    def test_the_options_are_all_that_there_are(self):
        commands = {
            command.name or command.callback.__name__ for command in app.registered_commands
        }
        assert commands == {*OPTIONS}

    def test_overview(self):
        for arguments, code in ((["--help"], 0), ([], 2)):
            ran = run(*arguments)
            assert ran.code == code
            assert ran.err == ""
            text = " ".join(ran.out.split())
            assert "fullback train trains the network of two conv-ReLU-pool stages" in text
            assert all(re.search(rf"│ {name} ", text) for name in OPTIONS)

    def test_alone_it_shows_its_help(self):
        """As a process of its own, where the help was once lost, and an empty error shown."""
        alone = start()
        out, err = alone.communicate(timeout=60)
        assert (alone.returncode, err) == (2, "")
        assert "Usage: fullback" in out

    def test_completion(self):
        completing = start(
            env=environment(
                _FULLBACK_COMPLETE="complete_bash", COMP_WORDS="fullback pre", COMP_CWORD="1"
            )
        )
        out, err = completing.communicate(timeout=60)
        assert (completing.returncode, out.split(), err) == (0, ["predict"], "")

    def test_version(self):
        ran = run("--version")
        assert (ran.code, ran.err) == (0, "")
        assert re.fullmatch(r"fullback \d+\.\d+\.\d+\n", ran.out)
        assert ran.out == f"fullback {fb.__version__}\n"


class TestSummary:
    @pytest.mark.parametrize("columns", [80, 120])
    @pytest.mark.parametrize(
        "net",
        [
            *fb.zoo.NETWORKS,
            "conv8(kernel_size=5x3, padding=2x1) relu pool globalavgpool dropout0.5 dense10",
        ],
    )
    def test_page(self, net, columns):
        """Every layer and the totals are shown, and nothing is cut off."""
        page = run("summary", net, columns=columns).out
        built = (
            fb.zoo.NETWORKS[net]() if net in fb.zoo.NETWORKS else fb.Network.parse(net, (1, 28, 28))
        )
        rows = [line.split() for line in page.splitlines()]
        assert [row[0] for row in rows if row and row[0] in built.names] == list(built.names)
        (total,) = (row for row in rows if row[:1] == ["total"])
        assert total[1] == f"{sum(p.size for p in built.parameters.values()):,}"
        assert max(map(len, page.splitlines())) <= columns
        assert "…" not in page

    def test_json(self):
        events = run("summary", "conv2 flatten dense3", "--input-shape", "3x8x8", "--json").events
        assert events == [
            {"event": "layer", "name": "conv1", "layer": "Conv2D(2)", "output_shape": [2, 8, 8]},
            {"event": "layer", "name": "flatten1", "layer": "Flatten()", "output_shape": [128]},
            {"event": "layer", "name": "dense1", "layer": "Dense(3)", "output_shape": [3]},
            {"event": "network", "input_shape": [3, 8, 8], "parameters": 443, "frozen": []},
        ]

    def test_a_model(self, folder, tmp_path):
        net = fb.load(folder / "m.safetensors")
        net.freeze("conv")
        fb.save(net, tmp_path / "without an ending")
        ran = run("summary", tmp_path / "without an ending", "--json")
        assert ran.events[-1]["frozen"] == ["conv1"]
        page = run("summary", tmp_path / "without an ending").out
        assert "Conv2D(2) frozen" in page
        assert "455 (20 frozen)" in page

    def test_classes(self):
        assert run("summary", "--classes", 7, "--json").events[-2]["output_shape"] == [7]
