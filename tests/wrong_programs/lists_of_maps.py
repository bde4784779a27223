"""A toolbox's nested dicts: net["layers"][l]["a"][j] is map j of layer l, of (H, W, N).

Kernels are k[i][j] from input map i to output map j. The mistake: the deltas that an input map of
conv2 gets from the output maps replace each other instead of adding up.
"""

import numpy as np

ARCHITECTURE = (
    "conv2(padding=valid) sigmoid avgpool conv3(kernel_size=2, padding=valid) sigmoid "
    "flatten dense4"
)
INPUT_SHAPE = (1, 8, 10)
MISTAKES = (("conv2", "filter-sum-lost"),)
NAMES = {
    "gradients": {
        "layers[1].dk": "conv1.weight", "layers[1].db": "conv1.bias",
        "layers[3].dk": "conv2.weight", "layers[3].db": "conv2.bias",
        "dffW": "dense1.weight", "dffb": "dense1.bias",
    },
    "deltas": {"layers[1].d": "conv1", "layers[3].d": "conv2", "od": "dense1"},
    "activations": {"layers[1].a": "sigmoid1", "layers[2].a": "avgpool1",
                    "layers[3].a": "sigmoid2"},
}  # fmt: skip


def sigm(x):
    return 1 / (1 + np.exp(-x))


def corrn(x, k, shape):
    """Correlate maps (H, W, N) with a kernel (R, S)."""
    if shape == "full":
        x = np.pad(x, ((k.shape[0] - 1,) * 2, (k.shape[1] - 1,) * 2, (0, 0)))
    rows, cols = x.shape[0] - k.shape[0] + 1, x.shape[1] - k.shape[1] + 1
    z = np.zeros((rows, cols, x.shape[2]))
    for i in range(k.shape[0]):
        for j in range(k.shape[1]):
            z += k[i, j] * x[i : i + rows, j : j + cols]
    return z


def rot180(k):
    return np.flipud(np.fliplr(k))


def cnnff(net, x):
    layers = net["layers"]
    layers[0]["a"] = [x]
    for l in range(1, len(layers)):
        before, layer = layers[l - 1], layers[l]
        layer["a"] = []
        if layer["type"] == "c":
            for j in range(layer["outputmaps"]):
                z = 0
                for i in range(len(before["a"])):
                    # convolve with the corresponding kernel and add to the output map
                    z = z + corrn(before["a"][i], layer["k"][i][j], "valid")
                layer["a"].append(sigm(z + layer["b"][j]))
        elif layer["type"] == "s":
            scale = layer["scale"]
            for a in before["a"]:
                z = corrn(a, np.ones((scale, scale)) / scale**2, "valid")
                layer["a"].append(z[::scale, ::scale])
    # concatenate all end layer feature maps into vectors
    net["fv"] = np.concatenate([a.reshape(-1, a.shape[2]) for a in layers[-1]["a"]])
    z = net["ffW"] @ net["fv"] + net["ffb"]
    net["o"] = np.exp(z) / np.exp(z).sum(axis=0)


def cnnbp(net, y, wrong):
    layers = net["layers"]
    n = y.shape[1]
    net["L"] = -np.sum(y * np.log(net["o"])) / n
    net["od"] = (net["o"] - y) / n
    net["fvd"] = net["ffW"].T @ net["od"]
    shape = layers[-1]["a"][0].shape
    size = shape[0] * shape[1]
    layers[-1]["d"] = []
    for j, a in enumerate(layers[-1]["a"]):
        # reshape feature vector deltas into output map style; it is a convolution layer
        d = net["fvd"][j * size : (j + 1) * size].reshape(shape)
        layers[-1]["d"].append(d * a * (1 - a))

    for l in range(len(layers) - 2, -1, -1):
        layer, above = layers[l], layers[l + 1]
        layer_d = []
        if layer["type"] == "c":
            for a, d in zip(layer["a"], above["d"], strict=True):
                scale = above["scale"]
                expanded = d.repeat(scale, axis=0).repeat(scale, axis=1) / scale**2
                layer_d.append(expanded * a * (1 - a))
        elif layer["type"] == "s":
            for i in range(len(layer["a"])):
                z = np.zeros(layer["a"][0].shape)
                for j in range(len(above["a"])):
                    if wrong:
                        z = corrn(above["d"][j], rot180(above["k"][i][j]), "full")
                    else:
                        z = z + corrn(above["d"][j], rot180(above["k"][i][j]), "full")
                layer_d.append(z)
        layer["d"] = layer_d

    # calc gradients
    for l in range(1, len(layers)):
        before, layer = layers[l - 1], layers[l]
        if layer["type"] == "c":
            rows, cols = layer["k"][0][0].shape
            layer["dk"] = [[np.zeros((rows, cols)) for _ in layer["d"]] for _ in before["a"]]
            layer["db"] = [d.sum() for d in layer["d"]]
            for i, a in enumerate(before["a"]):
                for j, d in enumerate(layer["d"]):
                    for r in range(rows):
                        for s in range(cols):
                            part = a[r : r + d.shape[0], s : s + d.shape[1]]
                            layer["dk"][i][j][r, s] = np.sum(part * d)
    net["dffW"] = net["od"] @ net["fv"].T
    net["dffb"] = net["od"].sum(axis=1)


def run(parameters, x, y, wrong=True):
    net = {
        "layers": [
            {"type": "i"},
            {
                "type": "c",
                "outputmaps": 2,
                "k": parameters["conv1.weight"].swapaxes(0, 1),
                "b": parameters["conv1.bias"],
            },
            {"type": "s", "scale": 2},
            {
                "type": "c",
                "outputmaps": 3,
                "k": parameters["conv2.weight"].swapaxes(0, 1),
                "b": parameters["conv2.bias"],
            },
        ],
        "ffW": parameters["dense1.weight"],
        "ffb": parameters["dense1.bias"].reshape(-1, 1),
    }
    cnnff(net, x[:, 0].transpose(1, 2, 0))
    cnnbp(net, np.eye(4)[y].T, wrong)
    layers = net["layers"]
    return {
        "loss": net["L"],
        "gradients": {
            "layers[1].dk": np.array(layers[1]["dk"]),
            "layers[1].db": np.array(layers[1]["db"]),
            "layers[3].dk": np.array(layers[3]["dk"]),
            "layers[3].db": np.array(layers[3]["db"]),
            "dffW": net["dffW"],
            "dffb": net["dffb"],
        },
        "deltas": {
            "layers[1].d": np.array(layers[1]["d"]),
            "layers[3].d": np.array(layers[3]["d"]),
            "od": net["od"],
        },
        "activations": {f"layers[{i}].a": np.array(layers[i]["a"]) for i in (1, 2, 3)},
        "probabilities": net["o"],
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    for name in ("conv1.weight", "conv2.weight"):
        grads[name] = grads[name].swapaxes(0, 1)
    return grads
