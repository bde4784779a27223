"""fullback check: the table, the events and the exit code."""

import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import fullback as fb
from fullback.cli.check import check

app = typer.Typer()
app.command()(check)


def run(*arguments):
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], env={"COLUMNS": "80"}, catch_exceptions=False
    )
    return result.exit_code, *(
        re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (result.stdout, result.stderr)
    )


def test_a_page_for_people():
    code, out, err = run("question", "--samples", 5, "--images", 2)
    assert (code, err) == (0, "")
    assert "dense1.weight" in out
    assert out.count("right") >= 10
    assert "agree with finite differences of the loss to" in out
    assert max(map(len, out.split("result")[0].splitlines())) <= 80
    assert "…" not in out


def test_events_for_machines():
    code, out, _ = run("flatten dense4 relu dense10", "--samples", 3, "--json", "--engine", "lanes")
    events = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events] == ["array"] * 4 + ["direction"] * 3 + ["result"]
    assert events[0]["name"] == "dense1.weight"
    assert events[-1]["ok"]


def test_a_saved_model(tmp_path):
    fb.save(fb.zoo.question(), tmp_path / "m.safetensors")
    assert run(tmp_path / "m.safetensors", "--samples", 2, "--images", 1)[0] == 0
    fb.save(fb.Network.parse("flatten dense10", (1, 5, 5)), tmp_path / "small.safetensors")
    code, _, err = run(tmp_path / "small.safetensors")
    assert code == 1
    assert "takes images of shape (1, 5, 5), but" in err


def test_a_wrong_gradient_ends_with_1(monkeypatch):
    backward = fb.Dense.backward

    def wrong(self, dy, kept, parameters):
        dx, gradients = backward(self, dy, kept, parameters)
        return dx, {**gradients, "weight": gradients["weight"] * 1.01}

    monkeypatch.setattr(fb.Dense, "backward", wrong)
    code, out, err = run("question", "--samples", 1, "--images", 1)
    assert code == 1
    assert "dense2.weight: 1 of 1 entries are wrong" in out
    assert err.startswith("error: The reference engine's gradients are wrong")


def test_wrong_usage():
    code, _, err = run("quest")
    assert code == 2
    assert "did you mean question?" in err


def test_a_data_file(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 1, 6, 5), dtype=np.uint8), np.arange(20) % 3
    np.savez(tmp_path / "x.npz", x=x, y=y)
    code, out, _ = run("conv2 relu flatten dense3", "--data", tmp_path / "x.npz", "--samples", 3)
    assert code == 0, out
