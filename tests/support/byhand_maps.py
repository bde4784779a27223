"""The convolution and the pooling of ``byhand``, in loops."""

import numpy as np

RATE = 0.3  # of an early update


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
    if wrong("padding-mirrored-input", name) and pad:
        xp = np.pad(xin, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="symmetric")
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
                if wrong("channels-summed", name):
                    window = np.stack([window.sum(axis=0)] * c)
                if wrong("channel-0-for-all", name):
                    window = np.stack([window[0]] * c)
                if wrong("first-position-only", name) and (i, j) != (0, 0):
                    break
                one += own[image, :, i, j][:, None, None, None] * window
        if wrong("last-sample-only", name):
            dw, db = one, delta[image].sum(axis=(1, 2))
        else:
            dw += one
            db += delta[image].sum(axis=(1, 2))
    if wrong("first-position-only-bias", name):
        db = delta[:, :, 0, 0].sum(axis=0)
    update = dw
    if wrong("weight-gradient-averaged", name):
        dw = dw / (p * q)
    if wrong("weight-gradient-averaged-all", name):
        dw = dw / (n * p * q)
    if wrong("cast-to-whole", name):
        dw = dw.astype(int).astype(w.dtype)
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
    if wrong("memory-order-filters", name):  # kept as rows, columns, channels, filters
        w = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(f, c, kr, kc)
    if wrong("memory-order-columns", name):  # read as a row for each place of the filter
        w = w.reshape(f, kr, kc, c).transpose(0, 3, 1, 2)
    if wrong("images-mixed-back", name):
        delta = delta.reshape(f, n, p, q).transpose(1, 0, 2, 3)
    dxp = next_delta(delta, w, s, xp, name, wrong)
    dx = dxp[:, :, pad : pad + rows, pad : pad + cols]
    if wrong("padding-cropped-wrong", name):
        dx = dxp[:, :, :rows, :cols]
    if wrong("stride-leftover", name):
        reach = dxp[:, :, : (p - 1) * s + kr, : (q - 1) * s + kc]
        if pad:
            reach = reach[:, :, pad:-pad, pad:-pad]
        dx = np.zeros_like(xin)
        dx[:, :, : reach.shape[2], : reach.shape[3]] = reach
    if wrong("channel-0-for-all-back", name):
        dx = np.stack([dx[:, 0]] * c, axis=1)
    if wrong("memory-order-maps", name):
        dx = np.ascontiguousarray(dx.transpose(0, 2, 3, 1)).reshape(n, c, rows, cols)
    return dw, db, dx


def next_delta(delta, w, s, xp, name, wrong):
    """The delta of the padded input."""
    n, f, p, q = delta.shape
    _, c, kr, kc = w.shape
    dxp = np.zeros_like(xp)
    if wrong("full-convolution-same", name) or wrong("full-convolution-valid", name):
        around = (kr - 1) // 2 if wrong("full-convolution-same", name) else 0
        part = slide(spread(delta, s), w, around, "constant")
        i = (kr - 1) - around
        dxp[:, :, i : i + part.shape[2], i : i + part.shape[3]] = part
        return dxp
    if wrong("padding-edge", name) or wrong("padding-wrapped", name):
        mode = "edge" if wrong("padding-edge", name) else "wrap"
        part = slide(spread(delta, s), w, kr - 1, mode)
        dxp[:, :, : part.shape[2], : part.shape[3]] = part
        return dxp
    if wrong("stride-repeated", name) and s > 1:
        high, wide = dxp.shape[2] - kr + 1, dxp.shape[3] - kc + 1
        delta = np.kron(delta, np.ones((s, s), delta.dtype))[:, :, :high, :wide]
        part = slide(delta, w, kr - 1, "constant")
        dxp[:, :, : part.shape[2], : part.shape[3]] = part
        return dxp
    step = 1 if wrong("stride-not-dilated", name) else s
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
            elif wrong("first-position-only-back", name) and (i, j) != (0, 0):
                continue
            else:
                cells += part
    return dxp


def spread(delta, s):
    """The delta with zeros between its cells, for a stride."""
    n, f, p, q = delta.shape
    wide = np.zeros((n, f, (p - 1) * s + 1, (q - 1) * s + 1), delta.dtype)
    for i in range(p):
        for j in range(q):
            wide[:, :, i * s, j * s] = delta[:, :, i, j]
    return wide


def slide(delta, w, around, mode):
    """The turned filters slid over the delta, with so many cells around it."""
    wide = np.pad(delta, ((0, 0), (0, 0), (around, around), (around, around)), mode=mode)
    _, c, kr, kc = w.shape
    out = np.zeros((len(delta), c, wide.shape[2] - kr + 1, wide.shape[3] - kc + 1), w.dtype)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for r in range(kr):
                for t in range(kc):
                    out[:, :, i, j] += wide[:, :, i + r, j + t] @ w[:, :, kr - 1 - r, kc - 1 - t]
    return out


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
                    at = image - 1 if wrong("pool-stale-winners", name) else image
                    window = xin[at, k, i * s : i * s + size, j * s : j * s + size]
                    top, left = (i, j) if wrong("pool-stride-lost", name) else (i * s, j * s)
                    part = dx[image, k, top : top + size, left : left + size]
                    d = delta[image, k, i, j]
                    if wrong("pool-first-window", name) and (i, j) != (0, 0):
                        continue
                    if wrong("pool-last-window", name) and (i, j) != (p - 1, q - 1):
                        continue
                    if wrong("pool-spread", name):
                        part += d
                    elif wrong("pool-spread-divided", name):
                        part += d / (size * size)
                    elif wrong("pool-ties-all", name):
                        part += d * (window == window.max())
                    else:
                        where = np.unravel_index(window.argmax(), window.shape)
                        if wrong("pool-smallest", name):
                            where = np.unravel_index(window.argmin(), window.shape)
                        if wrong("pool-rows-for-columns", name):
                            where = where[::-1]
                        if wrong("pool-first-cell", name):
                            where = 0, 0
                        if wrong("pool-overlap-assigned", name):
                            part[where] = d
                        else:
                            part[where] += d
    return dx
