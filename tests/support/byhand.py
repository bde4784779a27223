"""A backward pass of the tests' own, in loops, with a switch for every mistake people make in one.

It shares nothing with the package but the weights and the layers' options: arrays are laid out and
looped over as somebody would write it for the first time. ``run`` computes everything, with the
mistakes that are switched on; ``SWITCHES`` says what each is called in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fullback import Conv2D, Dense, Dropout, Flatten, MaxPool2D, Network
from support.byhand_maps import (
    RATE,
    conv_backward,
    conv_forward,
    pads_of,
    pool_backward,
    pool_forward,
)

__all__ = ["ARCHITECTURES", "SWITCHES", "batch", "network", "pads_of", "places", "run"]

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
    "smooth": (
        "conv3(padding=valid) tanh pool conv4(padding=valid) leakyrelu0.1 pool flatten dense7 "
        "sigmoid dense5",
        (2, 14, 13),
    ),
    "large gradients": (
        "conv3 relu conv2(padding=valid) relu flatten dense6 relu dense4",
        (2, 8, 7),
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
    "stride-repeated": ("stride-not-dilated", "conv"),
    "stride-leftover": ("stride-leftover", "conv"),
    "padding-cropped-wrong": ("padding-cropped-wrong", "conv"),
    "full-convolution-same": ("full-convolution-cropped", "conv"),
    "full-convolution-valid": ("full-convolution-cropped", "conv"),
    "padding-edge": ("padding-not-zeros", "conv"),
    "padding-wrapped": ("padding-not-zeros", "conv"),
    "padding-mirrored-input": ("padding-not-zeros", "conv"),
    "weight-gradient-padding": ("weight-gradient-padding", "conv"),
    "weight-gradient-averaged": ("weight-gradient-averaged", "conv"),
    "weight-gradient-averaged-all": ("weight-gradient-averaged", "conv"),
    "channels-summed": ("input-channels-merged", "conv"),
    "channel-0-for-all": ("input-channels-merged", "conv"),
    "channel-0-for-all-back": ("input-channels-merged", "conv"),
    "first-position-only": ("one-window-only", "conv"),
    "first-position-only-back": ("one-window-only", "conv"),
    "first-position-only-bias": ("one-window-only", "conv"),
    "memory-order-filters": ("memory-order", "conv"),
    "memory-order-columns": ("memory-order", "conv"),
    "memory-order-maps": ("memory-order", "conv"),
    "memory-order-dense": ("memory-order", "dense"),
    "cast-to-whole": ("cast-to-whole", "conv"),
    "pool-ties-all": ("pool-ties-all", "pool"),
    "pool-spread": ("pool-spread", "pool"),
    "pool-spread-divided": ("pool-spread", "pool"),
    "pool-overlap-assigned": ("pool-overlap-assigned", "pool"),
    "pool-stride-lost": ("pool-stride-lost", "pool"),
    "pool-smallest": ("pool-wrong-winner", "pool"),
    "pool-rows-for-columns": ("pool-wrong-winner", "pool"),
    "pool-first-cell": ("pool-wrong-winner", "pool"),
    "pool-first-window": ("one-window-only", "pool"),
    "pool-last-window": ("one-window-only", "pool"),
    "pool-stale-winners": ("cache-overwritten", "pool"),
    "relu-mask-missing": ("relu-mask-missing", "rectifier"),
    "relu-mask-for-delta": ("relu-mask-for-delta", "relu"),
    "relu-mask-of-delta": ("relu-mask-of-delta", "relu"),
    "slope-missing": ("slope-missing", "smooth"),
    "slope-twice": ("slope-twice", "smooth"),
    "slope-of-the-input": ("slope-at-wrong-place", "smooth"),
    "slope-of-the-output": ("slope-at-wrong-place", "smooth"),
    "slope-of-relu": ("other-activation-slope", "activation"),
    "slope-of-leakyrelu": ("other-activation-slope", "rectifier"),
    "slope-of-sigmoid": ("other-activation-slope", "activation"),
    "slope-of-tanh": ("other-activation-slope", "activation"),
    "cache-overwritten": ("cache-overwritten", "dense"),
    "cache-overwritten-before": ("cache-overwritten", "dense"),
    "cache-overwritten-relu": ("cache-overwritten", "activation"),
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
    "softmax-diagonal-quotient": ("true-class-only", "loss"),
    "true-class-only": ("true-class-only", "loss"),
    "softmax-of-images": ("other-probabilities", "loss"),
    "softmax-of-batch": ("other-probabilities", "loss"),
    "slope-of-probabilities-missing": ("slope-of-probabilities-missing", "loss"),
    "constant-factor": ("constant-factor", "loss"),
    "constant-factor-here": ("constant-factor", "all"),
    "sign-flipped": ("sign-flipped", "loss"),
    "sign-flipped-gradients": ("sign-flipped", "all"),
    "labels-shifted": ("labels-shifted", "loss"),
    "flatten-order": ("flatten-order", "flatten"),
    "weights-updated-early": ("weights-updated-early", "all"),
    "weights-updated-early-here": ("weights-updated-early", "dense"),
    "gradients-not-cleared": ("gradients-not-cleared", "all"),
    "l2-term": ("l2-term", "all"),
    "l1-term": ("l1-term", "all"),
    "gradient-clipped": ("gradient-clipped", "all"),
    "gradient-clipped-norm": ("gradient-clipped", "all"),
    "gradient-normalised": ("gradient-normalised", "all"),
    "momentum-term": ("update-in-gradient", "conv"),
    "wrong-cached-input": ("wrong-cached-input", "dense"),
    "images-mixed": ("images-mixed", "conv"),
    "images-mixed-back": ("images-mixed", "conv"),
    "dropout-mask-lost": ("dropout-mask-lost", "dropout"),
    "dropout-scale-lost": ("dropout-mask-lost", "dropout"),
}

KINDS = {
    # kinds of layers with a name of their own
    "rectifier": ("relu", "leakyrelu"),
    "smooth": ("tanh", "sigmoid"),
    "activation": ("relu", "leakyrelu", "tanh", "sigmoid"),
}

DECAY, CLIP, MOMENTUM, FACTOR = 0.02, 0.004, 0.9, 0.37


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
    if name == "large gradients":  # small maps, and large weights above them
        net.parameters["conv2.weight"] = net.parameters["conv2.weight"] / 40
        net.parameters["conv2.bias"] = net.parameters["conv2.bias"] / 40
        net.parameters["dense1.weight"] = net.parameters["dense1.weight"] * 40
    return net


def batch(net, images=6, seed=0, dtype="float64"):
    """Drawn-like images: a flat zero background with strokes of distinct values; and labels."""
    rng = np.random.default_rng([seed, 5])
    x = rng.random((images, *net.input_shape)) * (rng.random((images, *net.input_shape)) < 0.5)
    x[:, :, 2:4] = 0
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
        elif layer.kind in KINDS["activation"]:
            h = activation_forward(h, layer)
        elif isinstance(layer, MaxPool2D):
            h = pool_forward(h, layer)
        elif isinstance(layer, Flatten):
            h = h.reshape(len(h), -1)
        elif isinstance(layer, Dropout):
            h = h * masks[name].astype(dtype)
        out.activations[name] = h
    e = np.exp(h - h.max(axis=1, keepdims=True))
    out.probabilities = p = e / e.sum(axis=1, keepdims=True)
    delta = loss_backward(p, h, y, wrong)
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
        elif layer.kind in KINDS["activation"]:
            delta = activation_backward(delta, xin, out.activations[name], layer, name, wrong)
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


def loss_backward(p, logits, y, wrong):
    n, k = p.shape
    labels = y
    if wrong("labels-shifted", "loss"):
        labels = (y + 1) % k
    t = np.zeros_like(p)
    for i in range(n):
        t[i, labels[i]] = 1
    if wrong("softmax-of-images", "loss") or wrong("softmax-of-batch", "loss"):
        e = np.exp(logits)
        p = np.zeros_like(e)
        for i in range(n):
            for j in range(k):
                whole = e if wrong("softmax-of-batch", "loss") else e[:, j]
                p[i, j] = e[i, j] / whole.sum()
    d = (p - t) / n
    if wrong("true-class-only", "loss"):
        d = np.zeros_like(p)
        for i in range(n):
            d[i, labels[i]] = p.dtype.type(-1 / n)
    if wrong("slope-of-probabilities-missing", "loss"):
        d = -t / p / n
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
    if wrong("constant-factor", "loss"):
        d = d * p.dtype.type(FACTOR)
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
    if wrong("l1-term", name):
        dw = dw + w.dtype.type(DECAY) * ((w > 0).astype(w.dtype) - (w < 0))
    if wrong("gradient-clipped", name):
        dw = np.minimum(np.maximum(dw, -w.dtype.type(CLIP)), w.dtype.type(CLIP))
        db = np.minimum(np.maximum(db, -w.dtype.type(CLIP)), w.dtype.type(CLIP))
    if wrong("gradient-clipped-norm", name):
        dw, db = shortened(dw, CLIP), shortened(db, CLIP)
    if wrong("gradient-normalised", name):
        dw, db = (g / np.sqrt((g * g).sum()) if g.any() else g for g in (dw, db))
    if wrong("constant-factor-here", name):
        dw = dw * w.dtype.type(FACTOR)
    if wrong("momentum-term", name):
        dw, db = (g * w.dtype.type(1 - MOMENTUM) for g in (dw, db))
    return dw, db


def shortened(gradient, most):
    norm = np.sqrt((gradient * gradient).sum())
    return gradient * gradient.dtype.type(most / norm) if norm > most else gradient


def dense_backward(delta, xin, w, layer, name, wrong, activations, before):
    n = len(xin)
    if wrong("wrong-cached-input", name):
        xin = activations[before]
    if wrong("cache-overwritten", name):
        xin = np.stack([xin[-1]] * n)
    if wrong("cache-overwritten-before", name):
        xin = np.stack([xin[i - 1] for i in range(n)])
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
    if wrong("memory-order-dense", name):
        return dw, db, delta @ w.reshape(w.shape[1], w.shape[0]).T
    return dw, db, delta @ w


def activation_forward(x, layer):
    one = x.dtype.type(1)
    if layer.kind == "relu":
        return x * (x > 0)
    if layer.kind == "leakyrelu":
        return np.where(x > 0, x, x.dtype.type(layer.slope) * x)
    return np.tanh(x) if layer.kind == "tanh" else one / (one + np.exp(-x))


def activation_backward(delta, xin, y, layer, name, wrong):
    kind, leak = layer.kind, getattr(layer, "slope", 0.0)
    if wrong("relu-mask-for-delta", name):
        return (xin > 0).astype(delta.dtype)
    if wrong("relu-mask-of-delta", name):
        return delta * (delta > 0)
    if wrong("relu-mask-missing", name) or wrong("slope-missing", name):
        return delta
    if wrong("slope-of-the-input", name):
        y = xin
    if wrong("slope-of-the-output", name):
        y = activation_forward(y, layer)
    for other in ("relu", "leakyrelu", "sigmoid", "tanh"):
        if wrong(f"slope-of-{other}", name):
            kind, leak = other, 0.01
    slope = {
        "relu": (xin > 0).astype(delta.dtype),
        "leakyrelu": np.where(xin > 0, 1, leak).astype(delta.dtype),
        "sigmoid": y * (1 - y),
        "tanh": 1 - y * y,
    }[kind]
    if wrong("cache-overwritten-relu", name):
        slope = np.stack([slope[-1]] * len(slope))
    if wrong("slope-twice", name):
        slope = slope * slope
    return delta * slope


def shows(made, right, tolerance, kinds=("gradients", "deltas")):
    """Whether a mistake changed something, and left something: zeros are no evidence of any."""
    changed = False
    for kind in kinds:
        for name, wanted in getattr(right, kind).items():
            off = np.linalg.norm(getattr(made, kind)[name] - wanted)
            changed |= bool(off > tolerance * max(np.linalg.norm(wanted), 1e-300))
            if wanted.any() and not getattr(made, kind)[name].any():
                return False
    return changed


def places(net, switch):
    """The layers of a network where a switch can be thrown."""
    kind = SWITCHES[switch][1]
    if kind in ("loss", "all"):
        return [kind]
    kinds = KINDS.get(kind, (kind,))
    return [name for name, layer in zip(net.names, net.layers, strict=True) if layer.kind in kinds]
