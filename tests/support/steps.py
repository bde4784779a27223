"""Training steps as people write them, from ``wrong_programs``: what they get, what they do."""

import copy
from functools import cache

import numpy as np
import pytest

import fullback as fb
from wrong_programs import STEPS, training_step

RIGHT = [pytest.param(name, id=name) for name in STEPS]


@cache
def mistakes():
    """Every program with each of its mistakes, as parameters of a test."""
    return [
        pytest.param(name, wrong, id=f"{name}-{wrong}".replace(" ", "_"))
        for name in STEPS
        for wrong in training_step(name).MISTAKES
    ]


def setting(program, images=5, dtype="float64", *, flat=False):
    """A network with weights of no order, images without ties or with a flat part, and labels."""
    loss = getattr(fb, getattr(program, "LOSS", "SoftmaxCrossEntropy"))()
    net = fb.Network.parse(program.ARCHITECTURE, program.INPUT_SHAPE, loss=loss, dtype=dtype)
    rng = np.random.default_rng([3, *program.ARCHITECTURE.encode()])
    for name, array in net.parameters.items():
        if name.endswith("weight") and array.ndim > 1:
            drawn = rng.normal(0, (1.5 / array[0].size) ** 0.5, array.shape)
        else:
            drawn = rng.uniform(0.05, 0.4, array.shape)
        net.parameters[name] = drawn.astype(dtype)
    x = rng.random((images, *program.INPUT_SHAPE)) * rng.uniform(0.3, 1.5, (images, 1, 1, 1))
    x *= rng.random(x.shape) < 0.8
    if flat:
        x[:, :, : x.shape[2] // 2, : x.shape[3] // 2] = 0.25
    outputs = max(net.output_shape[0], 2)
    return net, x.astype(dtype), np.resize(rng.permutation(outputs), images)


def options(program, images):
    """What ``diagnose_program`` has to be told of a program."""
    told = dict(program.OPTIONS)
    if hasattr(program, "l2"):
        told["l2"] = program.l2(images)
    return told


def after(program, net, x, y, wrong=""):
    """The program's weights before and after a step; of single images, after each of them alone."""
    before = program.create(dict(net.parameters))
    batches = zip(x, y, strict=True) if getattr(program, "ONE_IMAGE", False) else [(x, y)]
    ends = []
    for images, labels in batches:
        weights = copy.deepcopy(before)
        new = program.step(weights, images, labels, wrong)
        ends.append(weights if new is None else new)
    return before, ends


def gradients(program, net, x, y, wrong=""):
    """The gradients that a step shows, under fullback's names, without the penalty's term."""
    before, ends = after(program, net, x, y, wrong)
    if getattr(program, "HIDES_ITS_GRADIENT", False):
        return program.gradients(ends[0])
    told = options(program, len(x))
    old, new = program.read(before), [program.read(end) for end in ends]
    found = {}
    for name, array in old.items():
        found[name] = np.mean([array - end[name] for end in new], axis=0) / told["lr"]
        if name.endswith("weight"):
            found[name] = found[name] - told.get("l2", 0) * array
    return found


def ask(program, net, x, y, wrong=""):
    """What the doctor says to a program; of one that hides its gradient, to what it does show."""
    if getattr(program, "HIDES_ITS_GRADIENT", False):
        return fb.diagnose(net, x, y, gradients(program, net, x, y, wrong))
    return fb.diagnose_program(
        lambda weights, images, labels: program.step(weights, images, labels, wrong),
        program.create(dict(net.parameters)),
        x,
        y,
        net=net,
        **options(program, len(x)),
    )


def named(program, wrong, found):
    """Whether the mistake is named with its layer, and nothing else is; False where none can be."""
    layer, mistake, _ = program.MISTAKES[wrong]
    told = [{(f.mistake, f.layer), *((a.mistake, a.layer) for a in f.alternatives)}
            for f in found.findings]  # fmt: skip
    also = getattr(program, "ALSO", {}).get(wrong)
    return (
        mistake is not None
        and any((mistake, layer) in entry for entry in told)
        and all({name for name, _ in entry} & {mistake, also} for entry in told)
    )


def narrowed(program, net, wrong, found):
    """Whether the first finding is in the mistake's layer, or in the next that has weights."""
    layer = program.MISTAKES[wrong][0]
    order = ["loss", *reversed(net.names)]
    below = order[order.index(layer) :]
    last = next((n for n in below[1:] if f"{n}.weight" in net.parameters), below[-1])
    return bool(found.findings) and found.findings[0].layer in below[: below.index(last) + 1]
