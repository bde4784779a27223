"""Nothing but lists: one image at a time, every weight changed in place by ``-= rate * ...``.

"assigned": the next delta is assigned where windows overlap. "early": a weight of the output is
changed before its share of the hidden delta is taken. "first": the loop over positions returns
after the first window of every filter.
"""

import math

import numpy as np

ARCHITECTURE = "conv2(padding=valid) relu conv2(padding=valid) relu flatten dense3"
INPUT_SHAPE = (1, 7, 8)
ONE_IMAGE = True
RATE = 0.02
OPTIONS = {"lr": RATE}
MISTAKES = {
    "assigned": ("conv2", "taps-overwritten", "next delta"),
    "early": ("dense1", "weights-updated-early", "next delta"),
    "first": ("conv1", "one-window-only", "weight gradient"),
}
ALSO = {"assigned": "filter-sum-lost"}  # later filters overwrite earlier ones too


def zeros(*shape):
    return [zeros(*shape[1:]) for _ in range(shape[0])] if shape else 0.0


def convolve(maps, filters, biases):
    rows, cols = len(maps[0]) - 2, len(maps[0][0]) - 2
    out = zeros(len(filters), rows, cols)
    for k in range(len(filters)):
        for i in range(rows):
            for j in range(cols):
                total = biases[k]
                for c in range(len(maps)):
                    for r in range(3):
                        for s in range(3):
                            total += filters[k][c][r][s] * maps[c][i + r][j + s]
                out[k][i][j] = total
    return out


def rectified(maps):
    return [[[value if value > 0 else 0.0 for value in row] for row in rows] for rows in maps]


def convolve_back(delta, maps, filters, biases, wrong):
    back = zeros(len(maps), len(maps[0]), len(maps[0][0]))
    old = [[[row[:] for row in kernel] for kernel in kernels] for kernels in filters]
    for k in range(len(delta)):
        done = False
        for i in range(len(delta[0])):
            for j in range(len(delta[0][0])):
                d = delta[k][i][j]
                biases[k] -= RATE * d
                for c in range(len(maps)):
                    for r in range(3):
                        for s in range(3):
                            share = old[k][c][r][s] * d
                            if wrong == "assigned":
                                back[c][i + r][j + s] = share
                            else:
                                back[c][i + r][j + s] += share
                            if not done:
                                filters[k][c][r][s] -= RATE * d * maps[c][i + r][j + s]
                if wrong == "first":
                    done = True
    return back


def create(parameters):
    return {
        "filters1": parameters["conv1.weight"].tolist(),
        "biases1": parameters["conv1.bias"].tolist(),
        "filters2": parameters["conv2.weight"].tolist(),
        "biases2": parameters["conv2.bias"].tolist(),
        "weights": parameters["dense1.weight"].tolist(),
        "biases": parameters["dense1.bias"].tolist(),
    }


def masked(delta, maps):
    return [
        [
            [d if value > 0 else 0.0 for d, value in zip(one, other, strict=True)]
            for one, other in zip(ones, others, strict=True)
        ]
        for ones, others in zip(delta, maps, strict=True)
    ]


def step(net, image, label, wrong=""):
    image = np.asarray(image).tolist()
    z1 = convolve(image, net["filters1"], net["biases1"])
    a1 = rectified(z1)
    z2 = convolve(a1, net["filters2"], net["biases2"])
    a2 = rectified(z2)
    flat = [value for rows in a2 for row in rows for value in row]
    scores = [
        sum(w * v for w, v in zip(row, flat, strict=True)) + b
        for row, b in zip(net["weights"], net["biases"], strict=True)
    ]
    exps = [math.exp(score - max(scores)) for score in scores]
    delta = [e / sum(exps) - (index == label) for index, e in enumerate(exps)]

    hidden = [0.0] * len(flat)
    for o, d in enumerate(delta):
        row = net["weights"][o]
        for i, value in enumerate(flat):
            if wrong == "early":
                row[i] -= RATE * d * value
                hidden[i] += row[i] * d
            else:
                hidden[i] += row[i] * d
                row[i] -= RATE * d * value
        net["biases"][o] -= RATE * d
    numbers = iter(hidden)
    delta = [[[next(numbers) for _ in row] for row in rows] for rows in a2]
    first = wrong if wrong == "assigned" else ""
    delta = convolve_back(masked(delta, z2), a1, net["filters2"], net["biases2"], first)
    last = wrong if wrong == "first" else ""
    convolve_back(masked(delta, z1), image, net["filters1"], net["biases1"], last)


def read(net):
    names = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")
    names += ("dense1.weight", "dense1.bias")
    return {name: np.array(value) for name, value in zip(names, net.values(), strict=True)}
