"""Programs as people write them, from ``wrong_programs``, and what they are given."""

import numpy as np
import pytest

from fullback import Network
from wrong_programs import PROGRAMS

CASES = [pytest.param(program, id=name) for name, program in PROGRAMS.items()]


def setting(program, images=3):
    """Return a network and images, mostly of zeros, that give no gradient of zeros only."""
    rows, columns = program.INPUT_SHAPE[1:]
    for seed in range(20):
        rng = np.random.default_rng([seed, *program.ARCHITECTURE.encode()])
        net = Network.parse(program.ARCHITECTURE, program.INPUT_SHAPE, dtype="float64")
        for name, array in net.parameters.items():
            if name.endswith("weight"):
                net.parameters[name] = rng.normal(0, array[0].size ** -0.5, array.shape)
            else:  # above 0, so that the flat background answers, with ties in the pooling windows
                net.parameters[name] = rng.uniform(0.05, 0.3, array.shape)
        x = np.zeros((images, *program.INPUT_SHAPE))
        drawn = x[:, :, : rows // 2, columns // 2 :]
        drawn[...] = rng.uniform(0.1, 1, drawn.shape)
        y = rng.integers(0, net.output_shape[0], images)
        right = net.trace(x, y).gradients
        theirs = program.run(dict(net.parameters), x, y)["gradients"]
        if all(np.any(gradient) for gradient in (*right.values(), *theirs.values())):
            return net, x, y
    raise AssertionError("every seed gives a gradient of zeros only")


def own_weights(program, net, result):
    """Return the network's weights under a program's names and in its layout.

    Where each number of its gradients goes in ``to_fullback`` says where each weight comes from.
    """
    names, sizes = list(result["gradients"]), {}
    places, first = {}, 0
    for name in names:
        shape = np.shape(result["gradients"][name])
        sizes[name] = slice(first, first + int(np.prod(shape)))
        places[name] = np.arange(first, sizes[name].stop, dtype=float).reshape(shape)
        first = sizes[name].stop
    numbers = np.zeros(first)
    for known, index in program.to_fullback({**result, "gradients": places}).items():
        numbers[index.astype(int)] = net.parameters[known]
    return {name: numbers[sizes[name]].reshape(places[name].shape) for name in names}
