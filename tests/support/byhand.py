"""A backward pass of the tests' own, in loops, with a switch for every mistake people make in one.

It shares nothing with the package but the weights and the layers' options: arrays are laid out and
looped over as somebody would write it for the first time. ``run`` computes everything, with the
mistakes that are switched on; ``SWITCHES`` says what each is called in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fullback import Conv2D, Dense, Dropout, Flatten, MaxPool2D, Network, ReLU

ARCHITECTURES = {
    "question": ("conv1 relu pool conv1 relu pool flatten dense12 relu dense5", (1, 12, 10)),
    "small": ("conv3 relu pool conv4 relu pool flatten dense8 relu dense5", (1, 12, 10)),
    "C is not F": ("conv4 relu conv2 relu pool conv3 relu flatten dense7 relu dense4", (3, 8, 7)),
    "strided": (
        "conv4(stride=2, padding=1) relu conv3(stride=2, padding=1) relu flatten dense7 relu "
        "dense5",
        (2, 13, 12),
    ),
    "overlapping": (
        "conv3 relu pool3(stride=2) conv4 relu pool3(stride=2) flatten dense6 relu dense4",
        (2, 13, 12),
    ),
    "no padding": (
        "conv3(padding=valid) relu pool conv4(padding=valid) relu pool flatten dense7 relu dense5",
        (1, 14, 13),
    ),
}

SWITCHES = {
    # name of the switch: (mistake, kind of layer where it can be made, what it changes)
    "filter-not-turned": ("filter-not-turned", "conv"),
    "weight-gradient-turned": ("weight-gradient-turned", "conv"),
    "rows-columns-swapped": ("rows-columns-swapped", "conv"),
    "rows-columns-swapped-back": ("rows-columns-swapped", "conv"),
    "channels-swapped": ("channels-swapped", "conv"),
    "filter-sum-lost": ("filter-sum-lost", "conv"),
    "taps-overwritten": ("taps-overwritten", "conv"),
    "stride-not-dilated": ("stride-not-dilated", "conv"),
    "stride-leftover": ("stride-leftover", "conv"),
    "padding-cropped-wrong": ("padding-cropped-wrong", "conv"),
    "weight-gradient-padding": ("weight-gradient-padding", "conv"),
    "pool-ties-all": ("pool-ties-all", "pool"),
    "pool-spread": ("pool-spread", "pool"),
    "pool-spread-divided": ("pool-spread", "pool"),
    "pool-overlap-assigned": ("pool-overlap-assigned", "pool"),
    "relu-mask-missing": ("relu-mask-missing", "relu"),
    "relu-mask-for-delta": ("relu-mask-for-delta", "relu"),
    "relu-mask-of-delta": ("relu-mask-of-delta", "relu"),
    "cache-overwritten": ("cache-overwritten", "dense"),
    "cache-overwritten-relu": ("cache-overwritten", "relu"),
    "bias-averaged-batch": ("bias-averaged", "dense"),
    "bias-averaged-positions": ("bias-averaged", "conv"),
    "bias-averaged-all": ("bias-averaged", "conv"),
    "batch-sum": ("batch-scale", "loss"),
    "batch-mean-twice": ("batch-scale", "all"),
    "batch-sum-here": ("batch-scale", "dense"),
    "last-sample-only": ("last-sample-only", "all"),
    "last-sample-only-loss": ("last-sample-only", "loss"),
    "softmax-twice": ("softmax-twice", "loss"),
    "softmax-diagonal": ("softmax-diagonal", "loss"),
    "softmax-diagonal-quotient": ("softmax-diagonal", "loss"),
    "sign-flipped": ("sign-flipped", "loss"),
    "sign-flipped-gradients": ("sign-flipped", "all"),
    "labels-shifted": ("labels-shifted", "loss"),
    "flatten-order": ("flatten-order", "flatten"),
    "weights-updated-early": ("weights-updated-early", "all"),
    "weights-updated-early-here": ("weights-updated-early", "dense"),
    "gradients-not-cleared": ("gradients-not-cleared", "all"),
    "l2-term": ("l2-term", "all"),
    "wrong-cached-input": ("wrong-cached-input", "dense"),
    "images-mixed": ("images-mixed", "conv"),
    "images-mixed-back": ("images-mixed", "conv"),
    "dropout-mask-lost": ("dropout-mask-lost", "dropout"),
    "dropout-scale-lost": ("dropout-mask-lost", "dropout"),
}

RATE, DECAY = 0.3, 0.02


@dataclass
class Computed:
    """What the program computes."""

    activations: dict = field(default_factory=dict)
    deltas: dict = field(default_factory=dict)
    gradients: dict = field(default_factory=dict)
    probabilities: np.ndarray | None = None


class Switches:
    """Which mistakes are made where: ``{("filter-not-turned", "conv2"), ...}``; "all" is all."""

    def __init__(self, pairs):
        self.pairs = set(pairs)

    def __call__(self, name, layer):
        return (name, layer) in self.pairs or (name, "all") in self.pairs


def network(name, seed=0, dtype="float64", *, dropout=False):
    """A network of one of the architectures, with random biases; with dropout above its units."""
    text, shape = ARCHITECTURES[name]
    if dropout:
        text = " relu dropout0.4 dense".join(text.rsplit(" relu dense", 1))
    net = Network.parse(text, shape, seed=seed, dtype=dtype)
    rng = np.random.default_rng([seed, 77])
    for key, p in net.parameters.items():
        if key.endswith("bias"):
            net.parameters[key] = rng.normal(0, 0.1, p.shape)
        elif key.startswith("dense"):
            net.parameters[key] = p * 1.5 if len(p) > 5 else rng.normal(0, 0.5, p.shape)
    return net


def batch(net, images=6, seed=0, dtype="float64"):
    """Drawn-like images: a flat zero background with strokes of distinct values; and labels."""
    rng = np.random.default_rng([seed, 5])
    x = rng.random((images, *net.input_shape)) * (rng.random((images, *net.input_shape)) < 0.5)
    x[:, :, :2] = 0
    y = np.resize(rng.permutation(net.output_shape[0]), images)
    return x.astype(dtype), y


def run(net, x, y, mistakes=(), dtype="float64"):
    """Run forward and backward in a dtype, with mistakes: pairs of a switch and a layer."""
    wrong = Switches(mistakes)
    masks = masks_of(net, x, y)
    weights = {k: p.astype(dtype) for k, p in net.parameters.items()}
    out = Computed()
    h = x.astype(dtype)
    out.activations["input"] = h
    inputs, caches = {}, {}
    for name, layer in zip(net.names, net.layers, strict=True):
        inputs[name] = h
        if isinstance(layer, Conv2D):
            h, caches[name] = conv_forward(
                h, weights[f"{name}.weight"], weights[f"{name}.bias"], layer
            )
        elif isinstance(layer, Dense):
            h = h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        elif isinstance(layer, ReLU):
            h = h * (h > 0)
        elif isinstance(layer, MaxPool2D):
            h = pool_forward(h, layer)
        elif isinstance(layer, Flatten):
            h = h.reshape(len(h), -1)
        elif isinstance(layer, Dropout):
            h = h * masks[name].astype(dtype)
        out.activations[name] = h
    e = np.exp(h - h.max(axis=1, keepdims=True))
    out.probabilities = p = e / e.sum(axis=1, keepdims=True)
    delta = loss_backward(p, y, wrong)
    for index in reversed(range(len(net.layers))):
        name, layer = net.names[index], net.layers[index]
        out.deltas[name] = delta
        xin = inputs[name]
        if isinstance(layer, Conv2D | Dense):
            w = weights[f"{name}.weight"]
            back = conv_backward if isinstance(layer, Conv2D) else dense_backward
            extra = caches.get(name) if isinstance(layer, Conv2D) else out.activations
            before = net.names[index - 2] if index > 1 else None
            dw, db, new = back(delta, xin, w, layer, name, wrong, extra, before)
            dw, db = common(dw, db, delta, w, weights[f"{name}.bias"], name, wrong)
            out.gradients[f"{name}.weight"], out.gradients[f"{name}.bias"] = dw, db
            delta = new
        elif isinstance(layer, ReLU):
            delta = relu_backward(delta, xin, name, wrong)
        elif isinstance(layer, MaxPool2D):
            delta = pool_backward(delta, xin, layer, name, wrong)
        elif isinstance(layer, Flatten):
            n, c, rows, cols = xin.shape
            if wrong("flatten-order", name):
                delta = delta.reshape(n, rows, cols, c).transpose(0, 3, 1, 2)
            else:
                delta = delta.reshape(n, c, rows, cols)
        elif isinstance(layer, Dropout) and not wrong("dropout-mask-lost", name):
            mask = masks[name].astype(dtype)
            delta = delta * ((mask > 0) if wrong("dropout-scale-lost", name) else mask)
    out.deltas["input"] = delta
    return out


def masks_of(net, x, y):
    """The masks that dropout draws for the seed 0, by layer; a program has to be told them."""
    if not any(isinstance(layer, Dropout) for layer in net.layers):
        return {}
    kept = zip(net.names, net.layers, net.trace(x, y).kept, strict=True)
    return {name: mask for name, layer, mask in kept if isinstance(layer, Dropout)}


def loss_backward(p, y, wrong):
    n, k = p.shape
    labels = y
    if wrong("labels-shifted", "loss"):
        labels = (y + 1) % k
    t = np.zeros_like(p)
    for i in range(n):
        t[i, labels[i]] = 1
    d = (p - t) / n
    if wrong("batch-sum", "loss"):
        d = p - t
    if wrong("softmax-diagonal", "loss"):
        d = (p - t) * p * (1 - p) / n
    if wrong("softmax-diagonal-quotient", "loss"):
        d = -t / p * p * (1 - p) / n
    if wrong("softmax-twice", "loss"):
        new = np.zeros_like(d)
        for i in range(n):
            jacobian = np.diag(p[i]) - np.outer(p[i], p[i])
            new[i] = jacobian @ d[i]
        d = new
    if wrong("sign-flipped", "loss"):
        d = -d
    if wrong("last-sample-only-loss", "loss"):
        d[:-1] = 0
    return d


def common(dw, db, delta, w, b, name, wrong):
    n = len(delta)
    if wrong("batch-mean-twice", name):
        dw, db = dw / n, db / n
    if wrong("batch-sum-here", name):
        dw, db = dw * n, db * n
    if wrong("sign-flipped-gradients", name):
        dw, db = -dw, -db
    if wrong("gradients-not-cleared", name):
        total_w, total_b = np.zeros_like(dw), np.zeros_like(db)
        for _ in range(2):
            total_w += dw
            total_b += db
        dw, db = total_w, total_b
    if wrong("l2-term", name):
        dw = dw + w.dtype.type(DECAY) * w
    return dw, db


def dense_backward(delta, xin, w, layer, name, wrong, activations, before):
    n = len(xin)
    if wrong("wrong-cached-input", name):
        xin = activations[before]
    if wrong("cache-overwritten", name):
        xin = np.stack([xin[-1]] * n)
    dw = np.zeros_like(w)
    db = np.zeros(len(w), w.dtype)
    for i in range(n):
        one = np.outer(delta[i], xin[i])
        if wrong("last-sample-only", name):
            dw, db = one, delta[i].copy()
        else:
            dw += one
            db += delta[i]
    if wrong("bias-averaged-batch", name):
        db = db / n
    if wrong("weights-updated-early", name) or wrong("weights-updated-early-here", name):
        w = w - w.dtype.type(RATE) * dw
    return dw, db, delta @ w


def relu_backward(delta, xin, name, wrong):
    mask = xin > 0
    if wrong("relu-mask-missing", name):
        return delta
    if wrong("relu-mask-for-delta", name):
        return mask.astype(delta.dtype)
    if wrong("relu-mask-of-delta", name):
        return delta * (delta > 0)
    if wrong("cache-overwritten-relu", name):
        mask = np.stack([mask[-1]] * len(mask))
    return delta * mask


def pads_of(layer, rows, cols):
    """Zeros above and on the left, below and on the right, for kernels 3 and stride 1 or given."""
    if layer.padding == "valid":
        return 0
    return 1 if layer.padding == "same" else layer.padding


def conv_forward(x, w, b, layer):
    n, c, rows, cols = x.shape
    f, _, kr, kc = w.shape
    pad, s = pads_of(layer, rows, cols), layer.stride
    xp = np.zeros((n, c, rows + 2 * pad, cols + 2 * pad), x.dtype)
    xp[:, :, pad : pad + rows, pad : pad + cols] = x
    p, q = (rows + 2 * pad - kr) // s + 1, (cols + 2 * pad - kc) // s + 1
    y = np.zeros((n, f, p, q), x.dtype)
    for i in range(p):
        for j in range(q):
            window = xp[:, :, i * s : i * s + kr, j * s : j * s + kc].reshape(n, -1)
            y[:, :, i, j] = window @ w.reshape(f, -1).T + b
    return y, (xp, pad, s)


def conv_backward(delta, xin, w, layer, name, wrong, cache, before):
    xp, pad, s = cache
    n, f, p, q = delta.shape
    _, c, kr, kc = w.shape
    rows, cols = xin.shape[2:]
    if wrong("weight-gradient-padding", name):
        xp = np.zeros_like(xp)
        xp[:, :, :rows, :cols] = xin
    # the weights: an image at a time
    dw = np.zeros_like(w)
    db = np.zeros(f, w.dtype)
    own = delta
    if wrong("images-mixed", name):  # im2col gives (N, P, Q) columns, this (P, Q, N)
        own = delta.transpose(1, 2, 3, 0).reshape(f, -1).reshape(f, n, p, q).swapaxes(0, 1)
    for image in range(n):
        one = np.zeros_like(w)
        for i in range(p):
            for j in range(q):
                window = xp[image, :, i * s : i * s + kr, j * s : j * s + kc]
                one += own[image, :, i, j][:, None, None, None] * window
        if wrong("last-sample-only", name):
            dw, db = one, delta[image].sum(axis=(1, 2))
        else:
            dw += one
            db += delta[image].sum(axis=(1, 2))
    update = dw
    if wrong("weight-gradient-turned", name):
        dw = np.flip(dw, (2, 3)).copy()
    if wrong("rows-columns-swapped", name):
        dw = dw.transpose(0, 1, 3, 2).copy()
    if wrong("bias-averaged-positions", name):
        db = db / (p * q)
    if wrong("bias-averaged-all", name):
        db = db / (n * p * q)
    if wrong("weights-updated-early", name):
        w = w - w.dtype.type(RATE) * update
    # the next delta
    if wrong("rows-columns-swapped-back", name):
        w = w.transpose(0, 1, 3, 2)
    if wrong("filter-not-turned", name):
        w = np.rot90(w, 2, (2, 3))
    if wrong("channels-swapped", name):
        w = w.transpose(1, 0, 2, 3) if c == f else w.reshape(c, f, kr, kc).transpose(1, 0, 2, 3)
    if wrong("images-mixed-back", name):
        delta = delta.reshape(f, n, p, q).transpose(1, 0, 2, 3)
    step = 1 if wrong("stride-not-dilated", name) else s
    dxp = np.zeros_like(xp)
    for i in range(p):
        for j in range(q):
            part = np.zeros((n, c, kr, kc), w.dtype)
            for k in range(f):
                share = delta[:, k, i, j][:, None, None, None] * w[k]
                if wrong("filter-sum-lost", name):
                    part = share
                else:
                    part += share
            cells = dxp[:, :, i * step : i * step + kr, j * step : j * step + kc]
            if wrong("taps-overwritten", name):
                cells[...] = part
            else:
                cells += part
    dx = dxp[:, :, pad : pad + rows, pad : pad + cols]
    if wrong("padding-cropped-wrong", name):
        dx = dxp[:, :, :rows, :cols]
    if wrong("stride-leftover", name):
        reach = dxp[:, :, : (p - 1) * s + kr, : (q - 1) * s + kc]
        if pad:
            reach = reach[:, :, pad:-pad, pad:-pad]
        dx = np.zeros_like(xin)
        dx[:, :, : reach.shape[2], : reach.shape[3]] = reach
    return dw, db, dx


def pool_forward(x, layer):
    size, s = layer.size, layer.size if layer.stride is None else layer.stride
    p, q = (x.shape[2] - size) // s + 1, (x.shape[3] - size) // s + 1
    y = np.zeros((*x.shape[:2], p, q), x.dtype)
    for i in range(p):
        for j in range(q):
            y[:, :, i, j] = x[:, :, i * s : i * s + size, j * s : j * s + size].max(axis=(2, 3))
    return y


def pool_backward(delta, xin, layer, name, wrong):
    size, s = layer.size, layer.size if layer.stride is None else layer.stride
    dx = np.zeros_like(xin)
    n, c, p, q = delta.shape
    for image in range(n):
        for k in range(c):
            for i in range(p):
                for j in range(q):
                    window = xin[image, k, i * s : i * s + size, j * s : j * s + size]
                    part = dx[image, k, i * s : i * s + size, j * s : j * s + size]
                    d = delta[image, k, i, j]
                    if wrong("pool-spread", name):
                        part += d
                    elif wrong("pool-spread-divided", name):
                        part += d / (size * size)
                    elif wrong("pool-ties-all", name):
                        part += d * (window == window.max())
                    else:
                        where = np.unravel_index(window.argmax(), window.shape)
                        if wrong("pool-overlap-assigned", name):
                            part[where] = d
                        else:
                            part[where] += d
    return dx


def places(net, switch):
    """The layers of a network where a switch can be thrown."""
    kind = SWITCHES[switch][1]
    if kind in ("loss", "all"):
        return [kind]
    return [name for name, layer in zip(net.names, net.layers, strict=True) if layer.kind == kind]
