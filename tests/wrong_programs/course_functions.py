"""Pairs of functions as in a course's exercises: ``out, cache`` forward, ``dout, cache`` backward.

Dense weights are (in, out). The mistake: conv2's next delta loses twice the padding on one side
instead of the padding on both.
"""

import numpy as np

ARCHITECTURE = "conv3 relu pool conv4 relu pool flatten dense5 relu dense3"
INPUT_SHAPE = (2, 8, 6)
MISTAKES = (("conv2", "padding-cropped-wrong"),)
NAMES = {
    "gradients": {
        "W1": "conv1.weight", "b1": "conv1.bias", "W2": "conv2.weight", "b2": "conv2.bias",
        "W3": "dense1.weight", "b3": "dense1.bias", "W4": "dense2.weight", "b4": "dense2.bias",
    },
    "deltas": {"dconv1": "conv1", "dconv2": "conv2", "dhidden": "dense1", "dscores": "dense2"},
    "activations": {"conv1": "conv1", "pool1": "pool1", "scores": "dense2"},
}  # fmt: skip


def conv_forward_naive(x, w, b, conv_param):
    """Input x (N, C, H, W), w (F, C, HH, WW), b (F,); conv_param has 'stride' and 'pad'."""
    stride, pad = conv_param["stride"], conv_param["pad"]
    n, _, h, wd = x.shape
    f, _, hh, ww = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    out_h = 1 + (h + 2 * pad - hh) // stride
    out_w = 1 + (wd + 2 * pad - ww) // stride
    out = np.zeros((n, f, out_h, out_w))
    for i in range(out_h):
        for j in range(out_w):
            si, sj = i * stride, j * stride
            patch = x_pad[:, :, si : si + hh, sj : sj + ww]
            for k in range(f):
                out[:, k, i, j] = np.sum(patch * w[k], axis=(1, 2, 3)) + b[k]
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout, cache, wrong):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    f, _, hh, ww = w.shape
    n, _, out_h, out_w = dout.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    dx_pad = np.zeros_like(x_pad)
    dw = np.zeros_like(w)
    db = np.zeros_like(b)
    for k in range(f):
        db[k] = np.sum(dout[:, k])
        for i in range(out_h):
            for j in range(out_w):
                si, sj = i * stride, j * stride
                for idx in range(n):
                    patch = x_pad[idx, :, si : si + hh, sj : sj + ww]
                    dw[k] += patch * dout[idx, k, i, j]
                    dx_pad[idx, :, si : si + hh, sj : sj + ww] += w[k] * dout[idx, k, i, j]
    # remove the padding
    dx = dx_pad[:, :, pad:-pad, pad:-pad]
    if wrong:
        dx = dx_pad[:, :, : -2 * pad, : -2 * pad]
    return dx, dw, db


def relu_forward(x):
    return np.maximum(0, x), x


def relu_backward(dout, cache):
    return dout * (cache > 0)


def max_pool_forward_naive(x, pool_param):
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    n, c, h, w = x.shape
    out = np.zeros((n, c, 1 + (h - ph) // s, 1 + (w - pw) // s))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, i * s : i * s + ph, j * s : j * s + pw].max(axis=(2, 3))
    return out, (x, pool_param)


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros_like(x)
    for idx in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(dout.shape[2]):
                for j in range(dout.shape[3]):
                    window = x[idx, c, i * s : i * s + ph, j * s : j * s + pw]
                    a, b = np.unravel_index(np.argmax(window), window.shape)
                    dx[idx, c, i * s + a, j * s + b] += dout[idx, c, i, j]
    return dx


def affine_forward(x, w, b):
    return x.reshape(x.shape[0], -1).dot(w) + b, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    db = dout.sum(axis=0)
    return dx, dw, db


def softmax_loss(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    log_probs = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    probs = np.exp(log_probs)
    n = x.shape[0]
    loss = -np.sum(log_probs[np.arange(n), y]) / n
    dx = probs.copy()
    dx[np.arange(n), y] -= 1
    dx /= n
    return loss, dx, probs


def run(parameters, x, y, wrong=True):
    params = {name: parameters[ours] for name, ours in NAMES["gradients"].items()}
    for name in ("W3", "W4"):
        params[name] = params[name].T.copy()
    conv_param = {"stride": 1, "pad": 1}
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}

    c1, conv1_cache = conv_forward_naive(x, params["W1"], params["b1"], conv_param)
    r1, relu1_cache = relu_forward(c1)
    p1, pool1_cache = max_pool_forward_naive(r1, pool_param)
    c2, conv2_cache = conv_forward_naive(p1, params["W2"], params["b2"], conv_param)
    r2, relu2_cache = relu_forward(c2)
    p2, pool2_cache = max_pool_forward_naive(r2, pool_param)
    h, affine1_cache = affine_forward(p2, params["W3"], params["b3"])
    r3, relu3_cache = relu_forward(h)
    scores, affine2_cache = affine_forward(r3, params["W4"], params["b4"])
    loss, dscores, probs = softmax_loss(scores, y)

    grads = {}
    dr3, grads["W4"], grads["b4"] = affine_backward(dscores, affine2_cache)
    dh = relu_backward(dr3, relu3_cache)
    dp2, grads["W3"], grads["b3"] = affine_backward(dh, affine1_cache)
    dr2 = max_pool_backward_naive(dp2, pool2_cache)
    dc2 = relu_backward(dr2, relu2_cache)
    dp1, grads["W2"], grads["b2"] = conv_backward_naive(dc2, conv2_cache, wrong)
    dr1 = max_pool_backward_naive(dp1, pool1_cache)
    dc1 = relu_backward(dr1, relu1_cache)
    _, grads["W1"], grads["b1"] = conv_backward_naive(dc1, conv1_cache, wrong)
    return {
        "loss": loss,
        "gradients": grads,
        "deltas": {"dconv1": dc1, "dconv2": dc2, "dhidden": dh, "dscores": dscores},
        "activations": {"conv1": c1, "pool1": p1, "scores": scores},
        "probabilities": probs,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    for name in ("dense1.weight", "dense2.weight"):
        grads[name] = grads[name].T
    return grads
