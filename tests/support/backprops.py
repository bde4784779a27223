"""Right backward passes in several manners, which share nothing with the package or each other.

Sums are taken in another order in each, so that rounding decides another way about what is next to
a tie; what ties exactly is decided by a rule, which most of them can be told.
"""

import numpy as np

from support import byhand
from support.byhand import Computed

RULES = [(last, slope) for last in (False, True) for slope in (0, 1)]
"""Of equal cells in a window the last one wins, or the first; ReLU's slope at 0.

Between its slopes below and above, that is: 0 is the one below, 1/2 the mean.
"""

MANNERS = ("im2col", "einsum", "taps")


def numpy_program(net, x, y, manner, dtype="float64", *, last=False, slope=0):
    """Compute everything in one of the manners, by one of the rules."""
    weights = {name: p.astype(dtype) for name, p in net.parameters.items()}
    h = x.astype(dtype)
    out, ways_back = Computed({"input": h}), []
    for name, layer in zip(net.names, net.layers, strict=True):
        w, b = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
        if layer.kind == "conv":
            h, back = _conv(h, w, b, layer, manner)
        elif layer.kind == "dense":
            h, back = _dense(h, w, b)
        elif layer.kind in ("relu", "leakyrelu"):
            h, back = _relu(h, getattr(layer, "slope", 0.0), slope)
        elif layer.kind == "pool":
            h, back = _max_pool(h, layer, last)
        elif layer.kind == "avgpool":
            h, back = _average_pool(h, layer)
        else:
            h, back = _flatten(h)
        out.activations[name] = h
        ways_back.append((name, back))
    e = np.exp(h - h.max(axis=1, keepdims=True))
    out.probabilities = e / e.sum(axis=1, keepdims=True)
    delta = (out.probabilities - np.eye(h.shape[1], dtype=dtype)[y]) / len(y)
    for name, back in reversed(ways_back):
        out.deltas[name] = delta
        delta, *gradients = back(delta)
        for kind, gradient in zip(("weight", "bias"), gradients, strict=False):
            if gradient is not None:
                out.gradients[f"{name}.{kind}"] = gradient
    out.deltas["input"] = delta
    return out


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _around(x, size, stride, padding):
    """What is added above, below, left and right."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        return tuple((p, p) for p in _pair(padding))
    shares = []
    for n, m, s in zip(x.shape[2:], size, stride, strict=True):
        missing = max((-(-n // s) - 1) * s + m - n, 0)
        shares.append((missing // 2, missing - missing // 2))
    return tuple(shares)


def _windows(x, size, stride, padding, fill=0.0):
    """All windows, (N, C, P, Q, R, S), and a function that adds cells of windows up to an image."""
    around = _around(x, size, stride, padding)
    wide = np.pad(x, ((0, 0), (0, 0), *around), constant_values=x.dtype.type(fill))
    cut = np.lib.stride_tricks.sliding_window_view(wide, size, axis=(2, 3))
    cut = cut[:, :, :: stride[0], :: stride[1]]
    rows, columns = cut.shape[2:4]

    def add_up(cells):  # (N, C, P, Q, R, S)
        total = np.zeros(wide.shape, x.dtype)
        for r in range(size[0]):
            for s in range(size[1]):
                total[
                    :, :,
                    r : r + rows * stride[0] : stride[0],
                    s : s + columns * stride[1] : stride[1],
                ] += cells[..., r, s]  # fmt: skip
        (above, _), (left, _) = around
        return total[:, :, above : above + x.shape[2], left : left + x.shape[3]]

    return cut, add_up


def _conv(x, w, b, layer, manner):
    k, c, *size = w.shape
    size, stride = tuple(size), _pair(layer.stride)
    cut, add_up = _windows(x, size, stride, layer.padding)
    n, _, rows, columns = cut.shape[:4]
    if manner in ("im2col", "not turned"):
        col = cut.transpose(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, -1)
        y = col @ w.reshape(k, -1).T
        if b is not None:
            y = y + b
        y = y.reshape(n, rows, columns, k).transpose(0, 3, 1, 2)
    elif manner == "einsum":
        y = np.einsum("ncpqrs,kcrs->nkpq", cut, w)
        if b is not None:
            y = y + b[:, None, None]
    else:  # tap by tap, on top of the bias
        y = np.zeros((n, k, rows, columns), x.dtype)
        if b is not None:
            y += b[:, None, None]
        for i in range(c):
            for r, s in np.ndindex(*size):
                y += w[:, i, r, s][:, None, None] * cut[:, i, None, :, :, r, s]

    def back(dy):
        db = None if b is None else dy.sum(axis=(0, 2, 3))
        if manner == "im2col":
            flat = dy.transpose(0, 2, 3, 1).reshape(-1, k)
            dw = (flat.T @ col).reshape(w.shape)
            cells = (flat @ w.reshape(k, -1)).reshape(n, rows, columns, c, *size)
            cells = cells.transpose(0, 3, 1, 2, 4, 5)
        elif manner == "einsum":
            dw = np.einsum("nkpq,ncpqrs->kcrs", dy, cut)
            cells = np.einsum("nkpq,kcrs->ncpqrs", dy, w)
        elif manner == "not turned":  # the mistake, for networks that are too large for loops
            dw = np.einsum("nkpq,ncpqrs->kcrs", dy, cut, optimize=True)
            cells = np.einsum("nkpq,kcrs->ncpqrs", dy, w[:, :, ::-1, ::-1], optimize=True)
        else:
            dw = np.zeros_like(w)
            cells = np.zeros(cut.shape, x.dtype)
            for i in range(n):
                for r, s in np.ndindex(*size):
                    dw[:, :, r, s] += np.tensordot(dy[i], cut[i, ..., r, s], ((1, 2), (1, 2)))
                    cells[i, ..., r, s] = np.tensordot(w[:, :, r, s], dy[i], (0, 0))
        return add_up(cells), dw, db

    return y, back


def _dense(x, w, b):
    y = x @ w.T if b is None else x @ w.T + b
    return y, lambda dy: (dy @ w, dy.T @ x, None if b is None else dy.sum(axis=0))


def _relu(x, low, at_zero):
    at_zero = low + at_zero * (1 - low)
    slope = np.where(x > 0, 1, np.where(x == 0, at_zero, low)).astype(x.dtype)
    return x * slope, lambda dy: (dy * slope,)


def _max_pool(x, layer, last):
    size = _pair(layer.size)
    stride = size if layer.stride is None else _pair(layer.stride)
    cut, add_up = _windows(x, size, stride, layer.padding, -np.inf)
    flat = cut.reshape(*cut.shape[:4], -1)
    winner = flat.argmax(axis=-1)
    if last:
        winner = flat.shape[-1] - 1 - flat[..., ::-1].argmax(axis=-1)
    hot = winner[..., None] == np.arange(flat.shape[-1])
    return flat.max(axis=-1), lambda dy: (add_up((dy[..., None] * hot).reshape(cut.shape)),)


def _average_pool(x, layer):
    size = _pair(layer.size)
    stride = size if layer.stride is None else _pair(layer.stride)
    cut, add_up = _windows(x, size, stride, layer.padding)
    share = x.dtype.type(1 / (size[0] * size[1]))

    def back(dy):
        return (add_up(np.broadcast_to((dy * share)[..., None, None], cut.shape)),)

    return cut.sum(axis=(4, 5)) * share, back


def _flatten(x):
    return x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape),)


def pytorch_program(net, x, y, dtype="float64"):
    """Compute everything with PyTorch's autograd."""
    import torch

    functional = torch.nn.functional
    weights = {
        k: torch.tensor(p.astype(dtype), requires_grad=True) for k, p in net.parameters.items()
    }
    h = torch.tensor(x.astype(dtype), requires_grad=True)
    outputs = {"input": h}
    for name, layer in zip(net.names, net.layers, strict=True):
        w, b = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
        if layer.kind == "conv":
            (above, below), (left, right) = _around(
                h, tuple(w.shape[2:]), _pair(layer.stride), layer.padding
            )
            wide = functional.pad(h, (left, right, above, below))
            h = functional.conv2d(wide, w, b, layer.stride)
        elif layer.kind == "dense":
            h = functional.linear(h, w, b)
        elif layer.kind in ("relu", "leakyrelu"):
            h = functional.leaky_relu(h, layer.slope) if hasattr(layer, "slope") else torch.relu(h)
        elif layer.kind in ("tanh", "sigmoid"):
            h = getattr(torch, layer.kind)(h)
        elif layer.kind == "pool":
            h = functional.max_pool2d(h, layer.size, layer.stride)
        elif layer.kind == "avgpool":
            h = functional.avg_pool2d(h, layer.size, layer.stride)
        else:
            h = h.flatten(1)
        h.retain_grad()
        outputs[name] = h
    functional.cross_entropy(h, torch.tensor(y)).backward()
    return Computed(
        {k: v.detach().numpy() for k, v in outputs.items()},
        {k: v.grad.numpy() for k, v in outputs.items()},
        {k: p.grad.numpy() for k, p in weights.items()},
        torch.softmax(h, 1).detach().numpy(),
    )


def in_loops(net):
    """Whether the program by hand has all the layers of a network."""
    for layer in net.layers:
        if layer.kind == "conv":
            square = _pair(layer.kernel_size) == (3, 3) and isinstance(layer.stride, int)
            if not (square and layer.bias and not isinstance(layer.padding, tuple)):
                return False
            if layer.padding == "same" and layer.stride != 1:
                return False
        elif layer.kind == "dense":
            if not layer.bias:
                return False
        elif layer.kind == "pool":
            if not isinstance(layer.size, int):
                return False
        elif layer.kind not in ("relu", "flatten"):
            return False
    return True


def programs(net):
    """Every right program that a network can be given to, by its name."""

    def numpy(manner, last, slope):
        return lambda x, y, dtype: numpy_program(net, x, y, manner, dtype, last=last, slope=slope)

    found = {
        f"{manner}, {'last' if last else 'first'} of ties, slope {slope}": numpy(
            manner, last, slope
        )
        for manner in MANNERS
        for last, slope in RULES
    }
    if in_loops(net):
        found["in loops"] = lambda x, y, dtype: byhand.run(net, x, y, dtype=dtype)
    try:
        import torch  # noqa: F401
    except ImportError:
        return found
    return found | {"PyTorch": lambda x, y, dtype: pytorch_program(net, x, y, dtype)}
