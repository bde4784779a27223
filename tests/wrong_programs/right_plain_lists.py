"""Plain lists and floats, image[row][col][channel], to be rewritten in C. Without a mistake.

The deltas are those of one image, the gradients are divided by the number of images at the end.
"""

import math

import numpy as np

ARCHITECTURE = "conv3 relu pool flatten dense4"
INPUT_SHAPE = (2, 6, 4)
MISTAKES = ()
DELTAS_PER_IMAGE = True
NAMES = {
    "gradients": {
        "d_filter": "conv1.weight", "d_filter_bias": "conv1.bias",
        "d_weight": "dense1.weight", "d_bias": "dense1.bias",
    },
    "deltas": {"delta_map": "conv1", "delta_out": "dense1"},
    "activations": {},
}  # fmt: skip

H, W, C, K, CLASSES = 6, 4, 2, 3, 4
P, Q = H // 2, W // 2


def zeros(*shape):
    if len(shape) == 1:
        return [0.0] * shape[0]
    return [zeros(*shape[1:]) for _ in range(shape[0])]


def inside(row, col):
    return 0 <= row < H and 0 <= col < W


def feature_map(image, filters, filter_bias):
    out = zeros(H, W, K)
    for row in range(H):
        for col in range(W):
            for k in range(K):
                total = filter_bias[k]
                for r in range(3):
                    for s in range(3):
                        if inside(row + r - 1, col + s - 1):
                            pixel = image[row + r - 1][col + s - 1]
                            for c in range(C):
                                total += filters[r][s][c][k] * pixel[c]
                out[row][col][k] = total
    return out


def strongest(maps, p, q, k):
    """Row and column of the largest value of a 2x2 window after the ReLU."""
    best, where = -1.0, None
    for row in (2 * p, 2 * p + 1):
        for col in (2 * q, 2 * q + 1):
            value = max(maps[row][col][k], 0.0)
            if value > best:
                best, where = value, (row, col)
    return best, where


def train_image(image, label, net, sums):
    filters, filter_bias, weight, bias = net
    d_filter, d_filter_bias, d_weight, d_bias = sums
    maps = feature_map(image, filters, filter_bias)
    features, origin = [], []
    for p in range(P):
        for q in range(Q):
            for k in range(K):
                best, where = strongest(maps, p, q, k)
                features.append(best)
                origin.append((*where, k))
    scores = list(bias)
    for o in range(CLASSES):
        for i, feature in enumerate(features):
            scores[o] += weight[i][o] * feature
    largest = max(scores)
    exps = [math.exp(score - largest) for score in scores]
    probs = [e / sum(exps) for e in exps]

    delta_out = [prob - (1.0 if o == label else 0.0) for o, prob in enumerate(probs)]
    delta_map = zeros(H, W, K)
    for o in range(CLASSES):
        d_bias[o] += delta_out[o]
    for i, feature in enumerate(features):
        back = 0.0
        for o in range(CLASSES):
            d_weight[i][o] += feature * delta_out[o]
            back += weight[i][o] * delta_out[o]
        row, col, k = origin[i]
        if maps[row][col][k] > 0.0:
            delta_map[row][col][k] += back
    for row in range(H):
        for col in range(W):
            for k in range(K):
                delta = delta_map[row][col][k]
                if delta == 0.0:
                    continue
                d_filter_bias[k] += delta
                for r in range(3):
                    for s in range(3):
                        if inside(row + r - 1, col + s - 1):
                            pixel = image[row + r - 1][col + s - 1]
                            for c in range(C):
                                d_filter[r][s][c][k] += delta * pixel[c]
    return -math.log(probs[label]), probs, delta_map, delta_out


def run(parameters, x, y, wrong=True):
    weight = parameters["dense1.weight"].reshape(CLASSES, K, P, Q).transpose(2, 3, 1, 0)
    net = (
        parameters["conv1.weight"].transpose(2, 3, 1, 0).tolist(),
        parameters["conv1.bias"].tolist(),
        weight.reshape(P * Q * K, CLASSES).tolist(),
        parameters["dense1.bias"].tolist(),
    )
    sums = zeros(3, 3, C, K), zeros(K), zeros(P * Q * K, CLASSES), zeros(CLASSES)
    loss, all_probs, delta_maps, delta_outs = 0.0, [], [], []
    for image, label in zip(x.transpose(0, 2, 3, 1).tolist(), y.tolist(), strict=True):
        one, probs, delta_map, delta_out = train_image(image, label, net, sums)
        loss += one
        all_probs.append(probs)
        delta_maps.append(delta_map)
        delta_outs.append(delta_out)
    n = len(x)
    return {
        "loss": loss / n,
        "gradients": {
            name: np.array(total) / n for name, total in zip(NAMES["gradients"], sums, strict=True)
        },
        "deltas": {"delta_map": np.array(delta_maps), "delta_out": np.array(delta_outs)},
        "activations": {},
        "probabilities": np.array(all_probs),
    }


def to_fullback(result):
    g = result["gradients"]
    return {
        "conv1.weight": g["d_filter"].transpose(3, 2, 0, 1),
        "conv1.bias": g["d_filter_bias"],
        "dense1.weight": g["d_weight"]
        .reshape(P, Q, K, CLASSES)
        .transpose(3, 2, 0, 1)
        .reshape(CLASSES, -1),
        "dense1.bias": g["d_bias"],
    }
