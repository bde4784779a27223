"""A table of layer dicts and a table of activation functions, with one loop over both.

The mistake: in the dense branch, the derivative of the hidden activation replaces the delta instead
of being multiplied with it.
"""

import numpy as np

ARCHITECTURE = "conv4 relu pool flatten dense6 relu dense3"
INPUT_SHAPE = (3, 6, 8)
MISTAKES = (("relu2", "relu-mask-for-delta"),)
NAMES = {
    "gradients": {
        "weights0": "conv1.weight", "bias0": "conv1.bias",
        "weights2": "dense1.weight", "bias2": "dense1.bias",
        "weights3": "dense2.weight", "bias3": "dense2.bias",
    },
    "deltas": {"delta0": "conv1", "delta2": "dense1", "delta3": "dense2"},
    "activations": {"z0": "conv1", "a0": "relu1", "a1": "pool1", "z2": "dense1", "a2": "relu2"},
}  # fmt: skip

ACTIVATIONS = {
    "relu": (lambda z: z * (z > 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "linear": (lambda z: z, lambda z: np.ones(z.shape)),
}


def convolve(maps, kernels):
    """Same size; kernels (out, in, 3, 3)."""
    n, _, rows, cols = maps.shape
    result = np.zeros((n, len(kernels), rows, cols))
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            # where the input is still inside of the image
            to_r = slice(max(0, -dr), rows - max(0, dr))
            from_r = slice(max(0, dr), rows - max(0, -dr))
            to_c = slice(max(0, -dc), cols - max(0, dc))
            from_c = slice(max(0, dc), cols - max(0, -dc))
            tap = kernels[:, :, dr + 1, dc + 1]
            result[:, :, to_r, to_c] += np.einsum("oi,nirc->norc", tap, maps[:, :, from_r, from_c])
    return result


def forward(layers, maps):
    for layer in layers:
        layer["input"] = maps
        if layer["type"] == "conv":
            layer["z"] = convolve(maps, layer["weights"]) + layer["bias"].reshape(1, -1, 1, 1)
            maps = ACTIVATIONS[layer["activation"]][0](layer["z"])
        elif layer["type"] == "pool":
            maps = np.maximum.reduce([maps[:, :, r::2, c::2] for r in range(2) for c in range(2)])
        elif layer["type"] == "dense":
            layer["input"] = maps.reshape(len(maps), -1)
            layer["z"] = layer["input"] @ layer["weights"].T + layer["bias"]
            maps = ACTIVATIONS[layer["activation"]][0](layer["z"])
        layer["output"] = maps
    return maps


def backward(layers, error, wrong):
    """``error`` is the derivative with respect to what the last layer returned."""
    for layer in reversed(layers):
        if layer["type"] == "pool":
            pooled_error = error.reshape(layer["output"].shape)
            taken = np.zeros(pooled_error.shape, dtype=bool)
            error = np.zeros(layer["input"].shape)
            for r in range(2):
                for c in range(2):
                    mine = (layer["input"][:, :, r::2, c::2] == layer["output"]) & ~taken
                    error[:, :, r::2, c::2] = mine * pooled_error
                    taken |= mine
            continue
        derivative = ACTIVATIONS[layer["activation"]][1](layer["z"])
        if layer["type"] == "dense":
            hidden = layer["activation"] != "linear"
            delta = derivative if wrong and hidden else error * derivative
            layer["dweights"] = delta.T @ layer["input"]
            layer["dbias"] = delta.sum(axis=0)
            error = delta @ layer["weights"]
        else:
            delta = error * derivative
            padded = np.pad(layer["input"], ((0, 0), (0, 0), (1, 1), (1, 1)))
            rows, cols = delta.shape[2:]
            layer["dweights"] = np.zeros(layer["weights"].shape)
            for r in range(3):
                for c in range(3):
                    part = padded[:, :, r : r + rows, c : c + cols]
                    layer["dweights"][:, :, r, c] = np.einsum("norc,nirc->oi", delta, part)
            layer["dbias"] = delta.sum(axis=(0, 2, 3))
            error = convolve(delta, layer["weights"].swapaxes(0, 1)[:, :, ::-1, ::-1])
        layer["delta"] = delta


def run(parameters, x, y, wrong=True):
    def weights(name):
        return {"weights": parameters[f"{name}.weight"], "bias": parameters[f"{name}.bias"]}

    layers = [
        {"type": "conv", "activation": "relu", **weights("conv1")},
        {"type": "pool"},
        {"type": "dense", "activation": "relu", **weights("dense1")},
        {"type": "dense", "activation": "linear", **weights("dense2")},
    ]
    scores = forward(layers, x)
    p = np.exp(scores)
    p = p / p.sum(axis=1, keepdims=True)
    wanted = np.zeros(p.shape)
    wanted[np.arange(len(y)), y] = 1
    loss = -np.log((p * wanted).sum(axis=1)).mean()
    backward(layers, (p - wanted) / len(y), wrong)

    gradients, deltas = {}, {}
    for number in (0, 2, 3):
        gradients[f"weights{number}"] = layers[number]["dweights"]
        gradients[f"bias{number}"] = layers[number]["dbias"]
        deltas[f"delta{number}"] = layers[number]["delta"]
    return {
        "loss": loss,
        "gradients": gradients,
        "deltas": deltas,
        "activations": {
            "z0": layers[0]["z"],
            "a0": layers[0]["output"],
            "a1": layers[1]["output"],
            "z2": layers[2]["z"],
            "a2": layers[2]["output"],
        },
        "probabilities": p,
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
