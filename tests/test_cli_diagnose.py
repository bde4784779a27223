"""fullback diagnose: a probe for a program, the page, the events, the exit codes."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import fullback as fb
from fullback.cli.app import app
from support import byhand


def run(*arguments):
    result = CliRunner().invoke(
        app,
        ["diagnose", *map(str, arguments)],
        env={"COLUMNS": "80"},
        catch_exceptions=False,
    )
    return result.exit_code, *(
        re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (result.stdout, result.stderr)
    )


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    fb.save(byhand.network("small", dtype="float32"), path)
    return path


@pytest.fixture
def data(model, tmp_path):
    path = tmp_path / "probe.npz"
    assert run(model, path, "--probe")[0] == 0
    return path


def computed(model, data, path, *mistakes, deltas=True):
    """Run the program by hand, and save what it computed as its author would."""
    with np.load(data) as batch:
        made = byhand.run(fb.load(model), batch["x"], batch["y"], mistakes, "float32")
    arrays = dict(made.gradients)
    if deltas:
        arrays |= {f"deltas/{name}": delta for name, delta in made.deltas.items()}
        arrays |= {f"activations/{name}": y for name, y in made.activations.items()}
        arrays["probabilities"] = made.probabilities
    np.savez(path, **arrays)
    return path


def test_a_probe_is_written_for_their_program(model, tmp_path):
    path = tmp_path / "probe.npz"
    code, out, err = run(model, path, "--probe", "--seed", 3)
    assert (code, err) == (0, "")
    assert out.startswith(f"written    {path}: x ")
    x, y = fb.probe(fb.load(model), 3)
    with np.load(path) as written:
        np.testing.assert_array_equal(written["x"], x)
        np.testing.assert_array_equal(written["y"], y)


def test_nothing_is_wrong(model, data, tmp_path):
    code, out, err = run(model, data, computed(model, data, tmp_path / "c.npz"))
    assert (code, err) == (0, "")
    assert "nothing is wrong: 31 arrays right to float32" in out


def test_a_page_for_people(model, data, tmp_path):
    mistakes = ("filter-not-turned", "conv2"), ("bias-averaged-all", "conv1")
    code, out, err = run(model, data, computed(model, data, tmp_path / "c.npz", *mistakes))
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert max(map(len, lines[2:])) <= 80
    assert "…" not in out
    titles = [line for line in lines if line.startswith("╭─ ")]
    assert [title.strip("╭╮─ ") for title in titles] == [
        "1 of 2  conv2: filter-not-turned",
        "2 of 2  conv1: bias-averaged",
    ]


def test_parameter_gradients_alone(model, data, tmp_path):
    path = computed(model, data, tmp_path / "c.npz", ("filter-not-turned", "conv2"), deltas=False)
    code, out, _ = run(model, data, path)
    assert code == 1
    assert "conv2: filter-not-turned" in out


def test_events_for_machines(model, data, tmp_path):
    path = computed(model, data, tmp_path / "c.npz", ("softmax-twice", "loss"))
    code, out, err = run(model, data, path, "--json")
    assert (code, err) == (1, "")
    finding, result = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert (finding["event"], finding["mistake"], finding["layer"]) == (
        "finding",
        "softmax-twice",
        "loss",
    )
    assert finding["exact"]
    assert finding["evidence"]["array"] == "delta of dense2"
    assert (result["event"], result["ok"], result["precision"]) == ("result", False, "float32")
    assert "probabilities" in result["right"]
    assert "conv1.weight" in result["inherited"]
    assert set(result["judged"]) == {*result["right"], *result["inherited"], *result["wrong"]}
    assert (result["not_judged"], result["conditions"]) == ([], [])


def test_what_cannot_be_judged_and_conditions_are_told_to_machines(tmp_path):
    net = fb.Network.parse("conv1(padding=valid) relu pool flatten dense4", (1, 14, 14))
    net.parameters["conv1.weight"] = np.array([[[[1.0, 0, -1]] * 3]])
    x = np.full((5, 1, 14, 14), 40.25)  # raw pixels
    for i in range(5):
        x[i, 0, 2 + i : 8 + i, 3:9] = 40.75
    y = np.arange(5) % 4
    gradients = dict(net.copy(dtype="float64").trace(x, y).gradients)
    gradients["conv1.weight"] = gradients["conv1.weight"][:, :, ::-1]
    fb.save(net, tmp_path / "net.safetensors")
    np.savez(tmp_path / "batch.npz", x=x, y=y)
    np.savez(tmp_path / "computed.npz", **gradients)
    files = (tmp_path / name for name in ("net.safetensors", "batch.npz", "computed.npz"))
    code, out, _ = run(*files, "--json")
    assert code == 1
    (result,) = map(json.loads, out.splitlines())
    assert not result["ok"]
    assert result["not_judged"] == ["conv1.weight"]
    assert "conv1.weight" not in result["judged"]
    (condition,) = result["conditions"]
    assert (condition["layer"], condition["quantity"]) == ("input", "images")


@pytest.mark.parametrize(
    ("name", "kind", "ours"),
    [
        ("deltas/conv1", "delta", "conv1"),
        ("delta_conv1", "delta", "conv1"),
        ("Delta.dZ1", "delta", "conv1"),
        ("activations/a1", "activation", "relu1"),
        ("grad_conv1_w", "gradient", "conv1.weight"),
        ("dW1", "gradient", "conv1.weight"),
    ],
)
def test_names_say_what_an_array_is(model, data, tmp_path, name, kind, ours):
    with np.load(data) as batch:
        made = byhand.run(fb.load(model), batch["x"], batch["y"], (), "float32")
    arrays = {
        "delta": made.deltas, "activation": made.activations, "gradient": made.gradients
    }[kind]  # fmt: skip
    np.savez(tmp_path / "c.npz", **{name: arrays[ours]})
    code, out, _ = run(model, data, tmp_path / "c.npz", "--json")
    assert code == 0
    shown = {"delta": f"delta of {ours}", "activation": f"output of {ours}", "gradient": ours}
    assert json.loads(out)["right"] == [shown[kind]]


def test_wrong_usage(model, data, tmp_path):
    code, _, err = run(model, data)
    assert code == 2
    assert err.startswith("error: COMPUTED is missing")
    code, _, err = run(model, data, data, "--probe")
    assert code == 2
    assert "takes no COMPUTED" in err
    np.savez(tmp_path / "c.npz", nonsense=np.zeros(77))
    code, _, err = run(model, data, tmp_path / "c.npz")
    assert code == 2
    assert "no gradient is called 'nonsense' (shape (77,))" in err


def test_files_that_are_none(model, data, tmp_path):
    for arguments, message in (
        ((tmp_path / "no.safetensors", data, data), "no.safetensors"),
        ((model, tmp_path / "no.npz", data), "no.npz"),
        ((model, model, data), "is not an intact .npz file"),
        ((model, computed(model, data, tmp_path / "c.npz"), data), "expected x, y"),
        ((model, data, tmp_path), "folder"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert message in err
        assert len(err.splitlines()) == 1


def test_a_probe_that_cannot_be_written(model, tmp_path):
    code, _, err = run(model, tmp_path / "no" / "probe.npz", "--probe")
    assert code == 1
    assert "does not exist" in err


def test_numbers_that_are_none(model, data, tmp_path):
    np.savez(tmp_path / "c.npz", **{"conv1.weight": np.full((3, 1, 3, 3), np.nan)})
    code, out, _ = run(model, data, tmp_path / "c.npz", "--json")
    assert code == 1
    finding = json.loads(out.splitlines()[0], parse_constant=pytest.fail)
    assert finding["mistake"] is None
    assert finding["evidence"]["error_before"] is None


def test_weights_before_and_after_a_step(model, data, tmp_path):
    net = fb.load(model)
    with np.load(data) as batch:
        gradients = byhand.run(net, batch["x"], batch["y"], (), "float64").gradients
    weights = {name: np.asarray(w, float) for name, w in net.parameters.items()}
    arrays = {f"weights/{name}": w for name, w in weights.items()}
    arrays |= {f"after/{name}": w - 0.5 * gradients[name] for name, w in weights.items()}
    np.savez(tmp_path / "step.npz", **arrays)
    code, out, err = run(model, data, tmp_path / "step.npz", "--lr", 0.5, "--reduction", "mean")
    assert (code, err) == (0, "")
    assert "nothing is wrong" in out
    assert run(model, data, tmp_path / "step.npz", "--lr", 5)[0] == 1
    code, out, err = run(model, data, tmp_path / "step.npz", "--lr", -1)
    assert "diagnose: lr must be a number in (0, inf), got -1.0" in err
