"""fullback bench and fullback warmup: what they check, count and write."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fullback import Network
from fullback.bench import comparison
from fullback.bench.children import ChildError, Children
from fullback.bench.comparison import WrongError, reference_gradients, require_close
from fullback.bench.problem import NETWORKS, Problem, inference_flops, training_flops
from fullback.bench.rival import Lanes
from fullback.cli.app import app
from fullback.engine.library import cache_path, library

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TEXT = "conv2 batchnorm relu pool conv2 relu flatten dense3"
TINY = ["--net", TEXT, "--batch", "16", "--rounds", "1", "--threads", "1", "--quick"]


class Same(Lanes):
    """A rival that is fullback itself."""

    framework = "Same"
    variants = ("float32",)


class WrongGradient(Same):
    def gradients(self):
        return {**(g := super().gradients()), "conv2.weight": 1.1 * g["conv2.weight"]}


class WrongStep(Same):
    def train(self, steps):
        super().train(steps + 1)


class Broken(Same):
    def __init__(self, *_):
        raise RuntimeError("no compiler\nwas found")


class Missing(Same):
    framework = "Missing"
    module = "no_module_of_this_name"
    install = "pip install missing"


class Dying:
    def die(self):
        sys.exit(3)


def bench(monkeypatch, *rivals, arguments=TINY):
    """The exit code, and what was written to standard output and to standard error."""
    named = {kind.__name__.lower(): kind for kind in rivals}
    monkeypatch.setattr(comparison, "RIVALS", named)
    ran = CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "110"})
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


def events(text):
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def test_operations_of_a_network_counted_by_hand():
    net = Network.parse("conv2 relu pool flatten dense3", (1, 4, 4))
    conv = 2 * 4 * 4 * (3 * 3 * 1)  # filters, positions, weights: 288
    dense = 3 * (2 * 2 * 2)  # 24
    assert inference_flops(net) == 2 * (conv + dense) == 624
    # Forward and the weights' gradient for both, the next delta for the dense layer alone.
    assert training_flops(net) == 2 * (2 * conv + 3 * dense) == 1296
    below = Network.parse("batchnorm conv2 relu pool flatten dense3", (1, 4, 4))
    assert training_flops(below) == 2 * (3 * conv + 3 * dense)


def test_operations_of_the_networks_in_the_documentation():
    megaflops = {name: training_flops(make()) / 1e6 for name, make in NETWORKS.items()}
    assert megaflops["question"] == pytest.approx(0.056, rel=0.01)
    assert megaflops["small"] == pytest.approx(1.89, rel=0.01)
    assert megaflops["wide"] == pytest.approx(25.5, rel=0.02)


def test_a_problem_is_made_of_whole_batches():
    problem = Problem.make("tiny", Network.parse("flatten dense3", (1, 4, 4)), 48, 100)
    assert (problem.count, problem.steps) == (96, 2)
    assert sorted(problem.order) == list(range(96))
    np.testing.assert_array_equal(problem.floats, problem.pixels / np.float32(255))
    large = Problem.make("large", Network.parse("conv1 flatten dense3", (3, 200, 200)), 64)
    assert large.count % 64 == 0
    assert large.floats.nbytes <= 2**27


def test_gradients_are_told_apart():
    problem = Problem.make("net", Network.parse(TEXT, (1, 8, 8)), 16, 64)
    wanted = reference_gradients(problem)
    given = Lanes(problem, "float32", 1).gradients()
    assert 0 < require_close("the gradient of {}", given, wanted, 1e-3) < 1e-3
    for name in wanted:
        if name == "conv1.bias":  # before the batch normalisation: rounding in both
            continue
        off = {**given, name: 1.02 * given[name]}
        with pytest.raises(WrongError, match=f"the gradient of {name} is off by"):
            require_close("the gradient of {}", off, wanted, 1e-2)
    with pytest.raises(WrongError, match="there are"):
        require_close("", {name: given[name] for name in list(given)[1:]}, wanted, 1e-2)
    with pytest.raises(WrongError, match=r"shape \(1, 3\), not \(3,\)"):
        require_close("{}", {**given, "dense1.bias": np.zeros((1, 3))}, wanted, 1e-2)
    with pytest.raises(WrongError, match="off by nan"):
        require_close("{}", {**given, "dense1.bias": np.full(3, np.nan)}, wanted, 1e-2)


def test_a_comparison_with_itself(monkeypatch):
    code, out, err = bench(monkeypatch, Same, arguments=[*TINY, "--json"])
    assert (code, err) == (0, "")
    machine, *rows, comparison = events(out)
    assert machine["event"] == "machine"
    assert machine["peak_gflops"]["1"] > 1
    named = [(row["framework"], row["variant"]) for row in rows]
    assert named == [("fullback", "float32"), ("fullback", "uint8"), ("Same", "float32")]
    for row in rows:
        assert row["event"] == "row"
        assert row["images_per_second"] > 0
        assert row["gflops"] > 0
        assert row["gradient_error"] < 1e-3
    assert 0.1 < rows[-1]["ratio"] < 10
    assert comparison["event"] == "comparison"
    assert (comparison["best"], comparison["best_threads"]) == ("Same float32", 1)
    assert comparison["ratio"] == rows[-1]["ratio"]
    flops = training_flops(Network.parse(TEXT, (1, 28, 28)))
    assert comparison["flops_per_image"] == flops
    assert rows[0]["gflops"] == pytest.approx(rows[0]["images_per_second"] * flops / 1e9)


def test_a_table_for_people(monkeypatch):
    code, out, _ = bench(monkeypatch, Same, Missing)
    assert code == 0
    assert "GFLOP/s" in out
    assert "times as fast as the best rival, Same float32, 1 thread" in out
    assert "Missing is not installed: pip install missing" in out


def test_without_rivals(monkeypatch):
    code, out, err = bench(monkeypatch, Missing, arguments=[*TINY, "--json"])
    assert (code, err) == (0, "")
    assert events(out)[1]["event"] == "missing"
    assert events(out)[-1]["best"] is None


@pytest.mark.parametrize(
    ("rival", "reason"),
    [
        (WrongGradient, "the gradient of conv2.weight is off by"),
        (WrongStep, "the change of the weights in two steps is off by"),
    ],
)
def test_a_rival_that_computes_something_else_is_refused(monkeypatch, rival, reason):
    code, out, err = bench(monkeypatch, rival)
    assert code == 1
    assert f"refused    Same float32, 1 thread: {reason}" in out
    assert err == "error: 1 rows were refused, because they compute something else\n"


def test_a_rival_that_fails_is_left_out(monkeypatch):
    code, out, _ = bench(monkeypatch, Broken)
    assert code == 0
    assert "left out   Same float32, 1 thread: RuntimeError: no compiler was found" in out


def test_a_wrong_gradient_of_our_own_ends_the_run(monkeypatch):
    wrong = {name: -g for name, g in reference_gradients(_tiny()).items()}
    monkeypatch.setattr(comparison, "reference_gradients", lambda problem: wrong)
    code, _, err = bench(monkeypatch, Same)
    assert code == 1
    assert "fullback float32: the gradient of conv1.weight is off by" in err


def _tiny():
    return Problem.make("tiny", Network.parse(TEXT, (1, 28, 28)), 16)


def test_wrong_usage(monkeypatch):
    code, _, err = bench(monkeypatch, Same, arguments=["--rival", "nope"])
    assert (code, err) == (2, "error: --rival must be one of same, got 'nope'\n")


@pytest.mark.parametrize("module", ["torch", "tensorflow", "jax"])
def test_real_rivals_compute_the_same(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    (kind,) = (kind for kind in comparison.RIVALS.values() if kind.module == module)
    text = "conv3 batchnorm relu pool conv4(kernel_size=5, padding=valid) tanh avgpool"
    net = Network.parse(f"{text} flatten dense5 relu dense3", (2, 17, 18))
    problem = Problem.make("net", net, 16, 64)
    plan = comparison.Plan(rounds=1, seconds=0.01, compiler=False)
    with Children() as children:
        result = comparison.compare(problem, [kind], plan, children)
    assert [entry.refused for entry in result.rivals] == [""] * len(result.rivals)
    assert result.best in result.rivals


def test_a_process_that_dies_is_an_error():
    with Children() as children:
        handle = children.get("dying", 1).make(Dying)
        with pytest.raises(ChildError, match="its process ended with code 3"):
            handle.call("die")
        children.clear()
        assert children.get("dying", 1).make(Dying)


def test_warmup_with_compiled_kernels():
    library()
    ran = CliRunner().invoke(app, ["warmup", "--json"])
    assert ran.exit_code == 0
    (event,) = events(ran.stdout)
    assert event["compiled"] is False
    assert Path(event["path"]) == cache_path()
    assert cache_path().exists()
    ran = CliRunner().invoke(app, ["warmup"], env={"COLUMNS": "200"})
    assert ran.stdout == f"kernels    were there already: {cache_path()}\n"


def test_warmup_without_a_compiler(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    library.cache_clear()
    try:
        ran = CliRunner().invoke(app, ["warmup"])
    finally:
        library.cache_clear()
    assert ran.exit_code == 1
    assert ran.stderr == "error: NUMBA_DISABLE_JIT is set: there is nothing to compile\n"


@pytest.mark.parametrize("script", ["training", "inference", "growth", "start", "scaling"])
def test_scripts_say_how_they_are_used(script):
    command = [sys.executable, BENCHMARKS / f"{script}.py", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "--quick" in ran.stdout
