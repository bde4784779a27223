"""What ``net.program()`` says: names, shapes, bytes, and which instruction mirrors which."""

from itertools import pairwise

import pytest

from fullback import Network, zoo

WITH_NORM = "conv4 batchnorm relu pool conv6 relu pool flatten dense5 relu dense3"
NETWORKS = {
    "question": zoo.question(seed=0),
    "small": zoo.small(seed=0),
    "norm": Network.parse(WITH_NORM, (3, 16, 12), seed=0),
    "strided": Network.parse("conv4(stride=2) tanh avgpool flatten dense3", (2, 17, 9), seed=0),
}


@pytest.fixture(params=NETWORKS)
def net(request):
    return NETWORKS[request.param]


def line(program, name, *layers):
    """The only instruction of that kernel and those layers."""
    (found,) = [each for each in program.lines if each.name == name and each.layers == layers]
    return found


def test_parts_are_the_layers_in_their_order(net):
    parts = net.program().parts
    assert parts[0].layers == ("input",)
    assert parts[-1].layers == ("loss",)
    assert [name for part in parts[1:-1] for name in part.layers] == list(net.names)


def test_instructions_are_numbered_as_they_are_run(net):
    lines = net.program().lines
    assert [each.number for each in lines] == list(range(1, len(lines) + 1))


def test_what_is_read_was_written(net):
    # A flatten moves nothing: it is another name of what lies before it.
    before = {after: name for name, after in pairwise(net.names) if after.startswith("flatten")}
    same = before | {f"d {after}": f"d {name}" for after, name in before.items()}
    known = set(net.parameters)
    for each in net.program().lines:
        assert {same.get(name, name) for name in each.reads} <= known, each
        known |= {same.get(name, name) for name in each.writes}


def test_every_parameter_is_updated_beside_its_layer(net):
    for part in net.program().parts:
        own = [name for name in net.parameters if name.split(".")[0] in part.layers]
        updated = [each for each in part.backward if each.name == "sgd"]
        assert [each.writes for each in updated] == [(name,) for name in own]
        assert [each.reads for each in updated] == [(f"d {name}",) for name in own]
        assert all(each.once for each in updated)


def test_instructions_compute_every_array_of_a_trace(net):
    lines = net.program().lines
    results = {name for each in lines for name in each.results}
    first = next(name for name in net.names if f"{name}.weight" in net.parameters)
    above = net.names[net.names.index(first) :]
    assert results == {
        "probabilities",
        *(f"a:{name}" for name in ("input", *net.names)),
        *(f"d:{name}" for name in above),
        *(f"g:{name}" for name in net.parameters),
    }


def test_instructions_read_what_was_computed(net):
    known = {f"p:{name}" for name in net.parameters}
    for each in net.program().lines:
        assert set(each.sources) <= known, each
        known |= set(each.results)


def test_every_instruction_says_what_it_does(net):
    for each in net.program().lines:
        assert each.sentence.endswith((".", ".)")), each
        assert each.name not in each.sentence.split(), each


def test_a_prediction_has_no_backward_pass(net):
    assert not any(part.backward for part in net.program(training=False).parts)


def test_shapes_and_bytes():
    program = NETWORKS["small"].program()
    pooled = line(program, "conv3x3_pool", "conv1", "relu1", "pool1")
    assert pooled.writes == ("pool1",)
    assert pooled.made == "8 x 14 x 14, 98 KB"  # 8 * 14 * 14 cells of 64 bytes are 98 * 1024
    assert line(program, "dense", "dense1", "relu3").made == "64, 4.0 KB"


def test_normalisation_with_a_pooling_sums_deltas_of_windows():
    layers = ("batchnorm1", "relu1", "pool1")
    program = NETWORKS["norm"].program()
    assert line(program, "batchnorm_pool", *layers).reads == ("conv1",)
    assert line(program, "batchnorm_pool_sums", *layers).reads == ("d pool1",)
    assert line(program, "batchnorm_pool_dx", *layers).reads == ("conv1", "d pool1")


def test_the_text_shows_the_mirror():
    text = str(NETWORKS["question"].program())
    heading, row = text.splitlines()[0], next(n for n in text.splitlines() if "conv3x3_pool(" in n)
    assert heading.split() == ["#", "forward", "writes", "#", "backward", "writes"]
    assert row.index("conv3x3_pool(") == heading.index("forward")
    assert "unpool2x2(d pool2)" in text
    assert "* once a batch" in text
