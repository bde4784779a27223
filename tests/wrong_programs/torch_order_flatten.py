"""Convolutions channels last, (N, H, W, C), and dense weights that expect channels first.

Two mistakes: the way back through the flattening reshapes to channels last at once, and conv1 gets
its delta without the mask of its ReLU.
"""

import numpy as np

ARCHITECTURE = "conv2 relu pool conv3 relu pool flatten dense6 relu dense4"
INPUT_SHAPE = (1, 8, 12)
MISTAKES = (("flatten1", "flatten-order"), ("relu1", "relu-mask-missing"))
NAMES = {
    "gradients": {
        "kernel1": "conv1.weight", "bias1": "conv1.bias",
        "kernel2": "conv2.weight", "bias2": "conv2.bias",
        "fc1_w": "dense1.weight", "fc1_b": "dense1.bias",
        "fc2_w": "dense2.weight", "fc2_b": "dense2.bias",
    },
    "deltas": {"pre1": "conv1", "map1": "pool1", "pre2": "conv2", "map2": "pool2",
               "pre3": "dense1", "logits": "dense2"},
    "activations": {"pre1": "conv1", "map1": "pool1", "pre2": "conv2", "map2": "pool2",
                    "pre3": "dense1", "logits": "dense2"},
}  # fmt: skip


def conv2d(image, kernel, bias):
    size = kernel.shape[0]
    border = size // 2
    image = np.pad(image, ((0, 0), (border, border), (border, border), (0, 0)))
    height, width = image.shape[1] - size + 1, image.shape[2] - size + 1
    result = bias
    for di in range(size):
        for dj in range(size):
            result = result + image[:, di : di + height, dj : dj + width, :] @ kernel[di, dj]
    return result


def conv2d_gradients(image, kernel, delta):
    size = kernel.shape[0]
    border = size // 2
    padded = np.pad(image, ((0, 0), (border, border), (border, border), (0, 0)))
    _, height, width, _ = delta.shape
    kernel_gradient = np.zeros(kernel.shape)
    image_gradient = np.zeros(padded.shape)
    for di in range(size):
        for dj in range(size):
            part = padded[:, di : di + height, dj : dj + width, :]
            kernel_gradient[di, dj] = np.tensordot(part, delta, ((0, 1, 2), (0, 1, 2)))
            image_gradient[:, di : di + height, dj : dj + width, :] += delta @ kernel[di, dj].T
    image_gradient = image_gradient[:, border : border + height, border : border + width, :]
    return image_gradient, kernel_gradient, delta.sum((0, 1, 2))


def pool2d(image):
    n, h, w, c = image.shape
    # four neighbours side by side in the last axis
    quads = image.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
    return quads.reshape(n, h // 2, w // 2, c, 4).max(-1)


def pool2d_gradient(image, delta):
    n, h, w, c = image.shape
    quads = image.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
    quads = quads.reshape(n, h // 2, w // 2, c, 4)
    best = np.zeros(quads.shape)
    np.put_along_axis(best, quads.argmax(-1)[..., None], delta[..., None], axis=-1)
    best = best.reshape(n, h // 2, w // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return best.reshape(n, h, w, c)


def run(parameters, x, y, wrong=True):
    kernel1, kernel2 = (parameters[f"conv{i}.weight"].transpose(2, 3, 1, 0) for i in (1, 2))
    bias1, bias2 = parameters["conv1.bias"], parameters["conv2.bias"]
    fc1_w, fc1_b = parameters["dense1.weight"], parameters["dense1.bias"]
    fc2_w, fc2_b = parameters["dense2.weight"], parameters["dense2.bias"]

    image = np.moveaxis(x, 1, -1)
    pre1 = conv2d(image, kernel1, bias1)
    act1 = np.maximum(pre1, 0)
    map1 = pool2d(act1)
    pre2 = conv2d(map1, kernel2, bias2)
    act2 = np.maximum(pre2, 0)
    map2 = pool2d(act2)
    # the dense weights were made for channels first
    features = map2.transpose(0, 3, 1, 2).reshape(len(x), -1)
    pre3 = features @ fc1_w.T + fc1_b
    act3 = np.maximum(pre3, 0)
    logits = act3 @ fc2_w.T + fc2_b
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log(softmax[np.arange(len(y)), y]).mean()

    d_logits = softmax.copy()
    d_logits[np.arange(len(y)), y] -= 1
    d_logits /= len(y)
    d_pre3 = (d_logits @ fc2_w) * (pre3 > 0)
    d_features = d_pre3 @ fc1_w
    if wrong:
        d_map2 = d_features.reshape(map2.shape)
    else:
        n, h, w, c = map2.shape
        d_map2 = d_features.reshape(n, c, h, w).transpose(0, 2, 3, 1)
    d_pre2 = pool2d_gradient(act2, d_map2) * (pre2 > 0)
    d_map1, d_kernel2, d_bias2 = conv2d_gradients(map1, kernel2, d_pre2)
    d_pre1 = pool2d_gradient(act1, d_map1)
    if not wrong:
        d_pre1 = d_pre1 * (pre1 > 0)
    _, d_kernel1, d_bias1 = conv2d_gradients(image, kernel1, d_pre1)
    return {
        "loss": loss,
        "gradients": {
            "kernel1": d_kernel1,
            "bias1": d_bias1,
            "kernel2": d_kernel2,
            "bias2": d_bias2,
            "fc1_w": d_pre3.T @ features,
            "fc1_b": d_pre3.sum(0),
            "fc2_w": d_logits.T @ act3,
            "fc2_b": d_logits.sum(0),
        },
        "deltas": {
            "pre1": d_pre1,
            "map1": d_map1,
            "pre2": d_pre2,
            "map2": d_map2,
            "pre3": d_pre3,
            "logits": d_logits,
        },
        "activations": {
            "pre1": pre1,
            "map1": map1,
            "pre2": pre2,
            "map2": map2,
            "pre3": pre3,
            "logits": logits,
        },
        "probabilities": softmax,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    for name in ("conv1.weight", "conv2.weight"):
        grads[name] = grads[name].transpose(3, 2, 0, 1)
    return grads
