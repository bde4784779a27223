"""Pure functions on nested tuples of parameters, as in stax, with dropout on the hidden layer.

The mask is the one that fullback draws, so that both leave out the same units. The mistake: the
backward pass has no dropout.
"""

import numpy as np

from fullback import Network

ARCHITECTURE = "conv3 relu pool flatten dense8 relu dropout0.5 dense4"
INPUT_SHAPE = (2, 6, 8)
MISTAKES = (("dropout1", "dropout-mask-lost"),)
NAMES = {
    "gradients": {
        "params[0][0]": "conv1.weight", "params[0][1]": "conv1.bias",
        "params[1][0]": "dense1.weight", "params[1][1]": "dense1.bias",
        "params[2][0]": "dense2.weight", "params[2][1]": "dense2.bias",
    },
    "deltas": {"conv": "conv1", "hidden": "dense1", "dropped": "dropout1", "scores": "dense2"},
    "activations": {"conv": "conv1", "hidden": "dense1", "dropped": "dropout1", "scores": "dense2"},
}  # fmt: skip


def mask_of_fullback(x, y):
    """0 for units that are left out, 1 / (1 - rate) for the others."""
    net = Network.parse(ARCHITECTURE, INPUT_SHAPE, dtype="float64")
    return net.trace(x, y).kept[net.names.index("dropout1")]


def conv_apply(params, inputs):
    kernel, bias = params
    padded = np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.as_strided(
        padded, (*inputs.shape, 3, 3), padded.strides + padded.strides[2:]
    )
    return (
        np.moveaxis(np.tensordot(view, kernel, ((1, 4, 5), (1, 2, 3))), 3, 1) + bias[:, None, None]
    )


def conv_vjp(params, inputs, cotangent):
    padded = np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.as_strided(
        padded, (*inputs.shape, 3, 3), padded.strides + padded.strides[2:]
    )
    return np.tensordot(cotangent, view, ((0, 2, 3), (0, 2, 3))), cotangent.sum((0, 2, 3))


def pool_apply(inputs):
    n, c, h, w = inputs.shape
    return inputs.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def pool_vjp(inputs, outputs, cotangent):
    """A running mask of cells that were not yet equal to the maximum finds the first one."""
    free = np.ones(outputs.shape)
    result = np.zeros(inputs.shape)
    for i in range(2):
        for j in range(2):
            hit = free * (inputs[:, :, i::2, j::2] == outputs)
            result[:, :, i::2, j::2] = hit * cotangent
            free = free - hit
    return result


def apply(params, inputs, mask):
    conv_params, (w1, b1), (w2, b2) = params
    conv = conv_apply(conv_params, inputs)
    pooled = pool_apply(np.maximum(conv, 0))
    hidden = pooled.reshape(len(inputs), -1) @ w1 + b1
    dropped = np.maximum(hidden, 0) * mask
    scores = dropped @ w2 + b2
    return conv, pooled, hidden, dropped, scores


def grad(params, inputs, targets, mask, wrong):
    conv_params, (w1, _), (w2, _) = params
    conv, pooled, hidden, dropped, scores = outputs = apply(params, inputs, mask)
    probs = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    loss = -(targets * np.log(probs)).sum(axis=1).mean()

    d_scores = (probs - targets) / len(inputs)
    d_dropped = d_scores @ w2.T
    d_relu = d_dropped if wrong else d_dropped * mask
    d_hidden = d_relu * (hidden > 0)
    d_pooled = (d_hidden @ w1.T).reshape(pooled.shape)
    d_conv = pool_vjp(np.maximum(conv, 0), pooled, d_pooled) * (conv > 0)
    grads = (
        conv_vjp(conv_params, inputs, d_conv),
        (pooled.reshape(len(inputs), -1).T @ d_hidden, d_hidden.sum(axis=0)),
        (dropped.T @ d_scores, d_scores.sum(axis=0)),
    )
    return loss, probs, grads, outputs, (d_conv, d_hidden, d_dropped, d_scores)


def run(parameters, x, y, wrong=True):
    params = (
        (parameters["conv1.weight"], parameters["conv1.bias"]),
        (parameters["dense1.weight"].T, parameters["dense1.bias"]),
        (parameters["dense2.weight"].T, parameters["dense2.bias"]),
    )
    mask = mask_of_fullback(x, y)
    loss, probs, grads, outputs, deltas = grad(params, x, np.eye(4)[y], mask, wrong)
    conv, _, hidden, dropped, scores = outputs
    return {
        "loss": loss,
        "gradients": {f"params[{i}][{j}]": grads[i][j] for i in range(3) for j in range(2)},
        "deltas": dict(zip(NAMES["deltas"], deltas, strict=True)),
        "activations": {"conv": conv, "hidden": hidden, "dropped": dropped, "scores": scores},
        "probabilities": probs,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["dense1.weight"] = grads["dense1.weight"].T
    grads["dense2.weight"] = grads["dense2.weight"].T
    return grads
