"""Batch normalisation along its computational graph, step by step, in a net of closures.

"mu": the mean's own part of the next delta is lost. "gamma": the next delta misses gamma. "var":
the variance's part has the wrong sign.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid, bias=false) batchnorm relu avgpool flatten dense4"
INPUT_SHAPE = (2, 8, 8)
OPTIONS = {"lr": 0.1}
EPS = 1e-5
MISTAKES = {
    "mu": ("batchnorm1", None, "next delta"),
    "gamma": ("batchnorm1", None, "next delta"),
    "var": ("batchnorm1", None, "next delta"),
}


def per_channel(v):
    return v[None, :, None, None]


def batchnorm_forward(x, gamma, beta):
    # step 1 to 9
    m = x.size // x.shape[1]
    mu = x.sum(axis=(0, 2, 3)) / m
    xmu = x - per_channel(mu)
    sq = xmu**2
    var = sq.sum(axis=(0, 2, 3)) / m
    sqrtvar = np.sqrt(var + EPS)
    ivar = 1.0 / sqrtvar
    xhat = xmu * per_channel(ivar)
    gammax = per_channel(gamma) * xhat
    return gammax + per_channel(beta), (xhat, gamma, xmu, ivar, sqrtvar, var, m)


def batchnorm_backward(dout, cache, wrong):
    xhat, gamma, xmu, ivar, sqrtvar, var, m = cache
    dbeta = dout.sum(axis=(0, 2, 3))
    dgamma = (dout * xhat).sum(axis=(0, 2, 3))
    dxhat = dout if wrong == "gamma" else dout * per_channel(gamma)
    divar = (dxhat * xmu).sum(axis=(0, 2, 3))
    dxmu1 = dxhat * per_channel(ivar)
    dsqrtvar = -1.0 / sqrtvar**2 * divar
    dvar = 0.5 / np.sqrt(var + EPS) * dsqrtvar
    dsq = np.ones(dout.shape) / m * per_channel(dvar)
    dxmu2 = 2 * xmu * dsq * (-1 if wrong == "var" else 1)
    dx1 = dxmu1 + dxmu2
    dmu = -1 * dx1.sum(axis=(0, 2, 3))
    dx2 = np.ones(dout.shape) / m * per_channel(dmu)
    return (dx1 if wrong == "mu" else dx1 + dx2), dgamma, dbeta


def create(parameters):
    p = {name: array.copy() for name, array in parameters.items()}
    return {
        "conv": {"W": p["conv1.weight"]},
        "bn": {"gamma": p["batchnorm1.weight"], "beta": p["batchnorm1.bias"]},
        "fc": {"W": p["dense1.weight"], "b": p["dense1.bias"]},
    }


def step(net, x, y, wrong=""):
    W = net["conv"]["W"]
    n, _, h, w = x.shape
    z = np.zeros((n, 3, h - 2, w - 2))
    for r, s in np.ndindex(3, 3):
        z += np.einsum("nchw,kc->nkhw", x[:, :, r : r + h - 2, s : s + w - 2], W[:, :, r, s])
    z_norm, cache = batchnorm_forward(z, **net["bn"])
    a = np.where(z_norm > 0, z_norm, 0)
    pooled = a.reshape(n, 3, (h - 2) // 2, 2, (w - 2) // 2, 2).mean(axis=(3, 5))
    flat = pooled.reshape(n, -1)
    o = flat @ net["fc"]["W"].T + net["fc"]["b"]
    p = np.exp(o - o.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    do = (p - np.eye(4)[y]) / n
    dflat = (do @ net["fc"]["W"]).reshape(pooled.shape)
    da = np.repeat(np.repeat(dflat, 2, axis=2), 2, axis=3) / 4
    dz, dgamma, dbeta = batchnorm_backward(da * (z_norm > 0), cache, wrong)
    dW = np.zeros(W.shape)
    for r, s in np.ndindex(3, 3):
        dW[:, :, r, s] = np.einsum("nkhw,nchw->kc", dz, x[:, :, r : r + h - 2, s : s + w - 2])
    lr = OPTIONS["lr"]
    net["conv"]["W"] = W - lr * dW
    net["bn"] = {"gamma": net["bn"]["gamma"] - lr * dgamma, "beta": net["bn"]["beta"] - lr * dbeta}
    net["fc"] = {"W": net["fc"]["W"] - lr * do.T @ flat, "b": net["fc"]["b"] - lr * do.sum(axis=0)}


def read(net):
    return {
        "conv1.weight": net["conv"]["W"],
        "batchnorm1.weight": net["bn"]["gamma"], "batchnorm1.bias": net["bn"]["beta"],
        "dense1.weight": net["fc"]["W"], "dense1.bias": net["fc"]["b"],
    }  # fmt: skip
