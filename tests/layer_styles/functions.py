"""Layers as functions: options in dicts, caches, columns, channels or images last."""

from types import SimpleNamespace

import numpy as np

# Course notes: a dict of options, a cache of all --------------------------------------------------


def affine_forward(x, w, b):
    return x.reshape(x.shape[0], -1).dot(w) + b, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    dx = dout.dot(w.T).reshape(x.shape)
    return dx, x.reshape(x.shape[0], -1).T.dot(dout), np.sum(dout, axis=0)


def conv_forward_naive(x, w, b, conv_param):
    pad, stride = conv_param["pad"], conv_param["stride"]
    N, _, H, W = x.shape
    F, _, HH, WW = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "constant")
    out = np.zeros((N, F, 1 + (H + 2 * pad - HH) // stride, 1 + (W + 2 * pad - WW) // stride))
    for n in range(N):
        for f in range(F):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    hs, ws = i * stride, j * stride
                    out[n, f, i, j] = np.sum(x_pad[n, :, hs : hs + HH, ws : ws + WW] * w[f]) + b[f]
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout, cache, crop=None):
    x, w, b, conv_param = cache
    pad, stride = conv_param["pad"], conv_param["stride"]
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "constant")
    dx_pad, dw, db = np.zeros_like(x_pad), np.zeros_like(w), np.zeros_like(b)
    HH, WW = w.shape[2:]
    for n, f, i, j in np.ndindex(*dout.shape):
        hs, ws = i * stride, j * stride
        db[f] += dout[n, f, i, j]
        dw[f] += dout[n, f, i, j] * x_pad[n, :, hs : hs + HH, ws : ws + WW]
        dx_pad[n, :, hs : hs + HH, ws : ws + WW] += dout[n, f, i, j] * w[f]
    if crop == "negative":  # empty where pad is 0
        return dx_pad[:, :, pad:-pad, pad:-pad], dw, db
    return dx_pad[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw, db


def max_pool_forward_naive(x, pool_param):
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    N, C, H, W = x.shape
    out = np.zeros((N, C, 1 + (H - ph) // s, 1 + (W - pw) // s))
    for i, j in np.ndindex(*out.shape[2:]):
        out[:, :, i, j] = np.max(x[:, :, i * s : i * s + ph, j * s : j * s + pw], axis=(2, 3))
    return out, (x, pool_param)


def max_pool_backward_naive(dout, cache, add=True):
    x, pool_param = cache
    ph, pw, s = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*dout.shape):
        window = x[n, c, i * s : i * s + ph, j * s : j * s + pw]
        r, q = np.unravel_index(np.argmax(window), window.shape)
        before = dx[n, c, i * s + r, j * s + q] if add else 0
        dx[n, c, i * s + r, j * s + q] = before + dout[n, c, i, j]
    return dx


def batchnorm_forward(x, gamma, beta, bn_param):
    eps = bn_param.get("eps", 1e-5)
    assert bn_param["mode"] in ("train", "test")
    mu, var = x.mean(axis=0), x.var(axis=0)
    std = np.sqrt(var + eps)
    x_hat = (x - mu) / std
    return gamma * x_hat + beta, (x_hat, gamma, std)


def batchnorm_backward(dout, cache):
    x_hat, gamma, std = cache
    N = dout.shape[0]
    dbeta, dgamma = dout.sum(axis=0), (dout * x_hat).sum(axis=0)
    dx = gamma / (N * std) * (N * dout - dbeta - x_hat * dgamma)
    return dx, dgamma, dbeta


def dropout_forward(x, dropout_param):
    p, mode = dropout_param["p"], dropout_param["mode"]
    mask = (np.random.rand(*x.shape) < p) / p if mode == "train" else None
    return (x * mask if mode == "train" else x), (dropout_param, mask)


def dropout_backward(dout, cache):
    return dout * cache[1]


def dropout_backward_no_mask(dout, cache):
    return dout / cache[0]["p"]


def softmax_loss(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    log_probs = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    N = x.shape[0]
    dx = np.exp(log_probs)
    dx[np.arange(N), y] -= 1
    return -np.sum(log_probs[np.arange(N), y]) / N, dx / N


def loss(x, labels):
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    p = shifted / shifted.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(x)), labels]).mean(), (p, labels)


def loss_backward(cache):
    p, labels = cache
    dx = p.copy()
    dx[np.arange(len(dx)), labels] -= 1
    return dx / len(dx)


# Assignments: channels last, hparameters, 1 / m at the weights ------------------------------------


def zero_pad(X, pad):
    return np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def conv_forward(A_prev, W, b, hparameters):
    (m, n_H_prev, n_W_prev, _), (f, f, _, n_C) = A_prev.shape, W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    n_H = int((n_H_prev - f + 2 * pad) / stride) + 1
    n_W = int((n_W_prev - f + 2 * pad) / stride) + 1
    Z = np.zeros((m, n_H, n_W, n_C))
    A_prev_pad = zero_pad(A_prev, pad)
    for h, w in np.ndindex(n_H, n_W):
        a_slice = A_prev_pad[:, h * stride : h * stride + f, w * stride : w * stride + f, :]
        for c in range(n_C):
            Z[:, h, w, c] = (a_slice * W[..., c]).sum(axis=(1, 2, 3)) + float(b[0, 0, 0, c])
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ, cache):
    A_prev, W, _, hparameters = cache
    f, stride, pad = W.shape[0], hparameters["stride"], hparameters["pad"]
    dW, db = np.zeros(W.shape), np.zeros((1, 1, 1, W.shape[3]))
    A_prev_pad = zero_pad(A_prev, pad)
    dA_prev_pad = np.zeros_like(A_prev_pad)
    for i, h, w, c in np.ndindex(*dZ.shape):
        v, u = h * stride, w * stride
        dA_prev_pad[i, v : v + f, u : u + f, :] += W[:, :, :, c] * dZ[i, h, w, c]
        dW[:, :, :, c] += A_prev_pad[i, v : v + f, u : u + f, :] * dZ[i, h, w, c]
        db[:, :, :, c] += dZ[i, h, w, c]
    dA_prev = np.zeros(A_prev.shape)
    dA_prev[...] = dA_prev_pad[:, pad:-pad, pad:-pad, :]  # fails where pad is 0
    return dA_prev, dW, db


def pool_forward(A_prev, hparameters, mode="max"):
    f, stride = hparameters["f"], hparameters["stride"]
    m, n_H_prev, n_W_prev, n_C = A_prev.shape
    A = np.zeros((m, int(1 + (n_H_prev - f) / stride), int(1 + (n_W_prev - f) / stride), n_C))
    for h, w in np.ndindex(*A.shape[1:3]):
        a_slice = A_prev[:, h * stride : h * stride + f, w * stride : w * stride + f, :]
        A[:, h, w, :] = (np.max if mode == "max" else np.mean)(a_slice, axis=(1, 2))
    return A, (A_prev, hparameters)


def pool_backward(dA, cache, mode="max"):
    A_prev, hparameters = cache
    f, stride = hparameters["f"], hparameters["stride"]
    dA_prev = np.zeros(A_prev.shape)
    for i, h, w, c in np.ndindex(*dA.shape):
        at = np.s_[i, h * stride : h * stride + f, w * stride : w * stride + f, c]
        if mode == "max":
            dA_prev[at] += (A_prev[at] == np.max(A_prev[at])) * dA[i, h, w, c]
        else:
            dA_prev[at] += np.ones((f, f)) * dA[i, h, w, c] / (f * f)
    return dA_prev


def linear_forward(A, W, b):
    return W.dot(A) + b, (A, W, b)


def linear_backward(dZ, cache):
    A_prev, W, _ = cache
    m = A_prev.shape[1]
    return W.T.dot(dZ), dZ.dot(A_prev.T) / m, np.sum(dZ, axis=1, keepdims=True) / m


def sigmoid(Z):
    return 1 / (1 + np.exp(-Z)), Z


def sigmoid_backward(dA, cache):
    s = 1 / (1 + np.exp(-cache))
    return dA * s * (1 - s)


def softmax_columns(Z):
    e = np.exp(Z - Z.max(axis=0, keepdims=True))
    A = e / e.sum(axis=0, keepdims=True)
    return A, A


def softmax_columns_backward(dA, cache):
    return cache * (dA - np.sum(dA * cache, axis=0, keepdims=True))


# Pure functions, other languages ------------------------------------------------------------------


def apply(params, x):
    W, b = params
    return x @ W + b, (params, x)


def apply_vjp(residuals, g):
    (W, _), x = residuals
    return (x.T @ g, g.sum(axis=0)), g @ W.T


def apply_dict(params, inputs):
    return inputs @ params["W"] + params["b"]


def apply_dict_vjp(params, inputs, cotangent_grad):
    grads = {"W": inputs.T @ cotangent_grad, "b": cotangent_grad.sum(axis=0)}
    return grads, cotangent_grad @ params["W"].T


def cnn_convolve(images, W, b):
    """(rows, columns, channels, images), filters (rows, columns, channels, filters)."""
    rows, columns, _, count = images.shape
    dim = W.shape[0]
    out = np.zeros((rows - dim + 1, columns - dim + 1, W.shape[3], count))
    for k in range(W.shape[3]):
        for i, j in np.ndindex(*out.shape[:2]):
            patch = images[i : i + dim, j : j + dim]
            out[i, j, k] = np.einsum("rscn,rsc->n", patch, W[:, :, :, k]) + b[k]
    return out


def cnn_convolve_grad(delta, images, W, turned=False):
    dim = W.shape[0]
    Wgrad, bgrad, down = np.zeros_like(W), delta.sum(axis=(0, 1, 3)), np.zeros_like(images)
    for k in range(W.shape[3]):
        for i, j in np.ndindex(*delta.shape[:2]):
            Wgrad[..., k] += images[i : i + dim, j : j + dim] @ delta[i, j, k]
            down[i : i + dim, j : j + dim] += W[..., k, None] * delta[i, j, k]
    return down, Wgrad[::-1, ::-1] if turned else Wgrad, bgrad


def smooth(name):
    """Return an activation as a pair of functions."""
    return {
        "tanh": SimpleNamespace(f=np.tanh, back=lambda grad, y: grad * (1 - y**2)),
        "tanh-of-z": SimpleNamespace(f=np.tanh, back=lambda grad, z: grad * (1 - z**2)),
    }[name]


def filter_images(x, w):
    """A convolution without a bias, by windows."""
    seen = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("ncijrs,kcrs->nkij", seen, w), (x, w, seen)


def filter_images_backward(dout, cache):
    x, w, seen = cache
    dx, (rows, columns) = np.zeros_like(x), w.shape[2:]
    for i, j in np.ndindex(*dout.shape[2:]):
        dx[:, :, i : i + rows, j : j + columns] += np.einsum("nk,kcrs->ncrs", dout[:, :, i, j], w)
    return dx, np.einsum("nkij,ncijrs->kcrs", dout, seen)
