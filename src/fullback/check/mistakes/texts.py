"""The catalogue: every mistake by its name, with its sentence, the right formula, and a hint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One entry of the catalogue.

    Attributes
    ----------
    id : its public name
    sentence : what was done
    mend : the right formula, in the notation of ``layers/``
    hint : how that is written, in up to three lines of NumPy
    """

    id: str
    sentence: str
    mend: str
    hint: str


_ENTRIES = (
    (
        "filter-not-turned",
        "The next delta was computed without turning the filters by 180 degrees.",
        "dx[n,c,i,j] = sum over k, r, s of w[k,c,r,s] dy[n,k,i-r,j-s]",
        "turned = w[:, :, ::-1, ::-1]  # 180 degrees\n"
        "wide = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))\n"
        "dx = correlate(wide, turned.swapaxes(0, 1))",
    ),
    (
        "weight-gradient-turned",
        "The filter gradient is turned by 180 degrees.",
        "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n,c,p+r,q+s]",
        "for r, s in np.ndindex(R, S):  # no turn: only dx takes one\n"
        "    seen = x[:, :, r:r + P, s:s + Q]\n"
        "    dw[:, :, r, s] = np.einsum('nkpq,ncpq->kc', dy, seen)",
    ),
    (
        "rows-columns-swapped",
        "Rows and columns were exchanged.",
        "dw[k,c,r,s]: r runs down the rows, s along the columns; dx = dy w for a dense layer",
        "w.shape == (K, C, R, S)  # rows before columns, everywhere\n"
        "dx = dy @ w              # dense: w is (units, features)\n"
        "dw = dy.T @ x",
    ),
    (
        "channels-swapped",
        "The filters' input and output channels were exchanged.",
        "dx[n,c,...] = sum over k of w[k,c,...] dy[n,k,...]: the sum runs over filters k",
        "back = w.swapaxes(0, 1)[:, :, ::-1, ::-1]  # (C, K, R, S), exchanged once\n"
        "# reshape does not exchange axes: it would mix the weights up\n"
        "dx = correlate(wide_dy, back)",
    ),
    (
        "filter-sum-lost",
        "The next delta is not the sum over the filters.",
        "dx[n,c,i,j] = sum over k, r, s of w[k,c,r,s] dy[n,k,i-r,j-s]",
        "dx = np.zeros_like(x)\n"
        "for k in range(K):\n"
        "    dx += full_convolution(dy[:, k], w[k])  # +=, not =",
    ),
    (
        "taps-overwritten",
        "Shares that had to be added were assigned, so later ones overwrote earlier ones.",
        "dx[n,c,p+r,q+s] collects w[k,c,r,s] dy[n,k,p,q] of every p, q, r, s, k",
        "dx = np.zeros_like(x)\n"
        "for p, q in np.ndindex(P, Q):\n"
        "    dx[:, :, p:p + R, q:q + S] += np.tensordot(dy[:, :, p, q], w, 1)",
    ),
    (
        "stride-not-dilated",
        "The stride was left out on the way back.",
        "dx[n,c,p stride+r,q stride+s] collects w[k,c,r,s] dy[n,k,p,q]",
        "spread = np.zeros((N, K, (P - 1) * stride + 1, (Q - 1) * stride + 1))\n"
        "spread[:, :, ::stride, ::stride] = dy  # zeros in between\n"
        "dx = full_convolution(spread, w)",
    ),
    (
        "stride-leftover",
        "The rows and columns that the stride leaves over were misplaced.",
        "dx has the shape of the padded x; the cells that no window reached, at its end, stay 0",
        "dx = np.zeros_like(x_padded)  # its own size, leftovers included\n"
        "dx[:, :, p * stride:p * stride + R, q * stride:q * stride + S] += ...\n"
        "dx = dx[:, :, above:above + H, left:left + W]",
    ),
    (
        "padding-cropped-wrong",
        "The padding was cut off from the wrong side, which shifts the next delta.",
        "dx[i,j] = dx_padded[i+above,j+left]",
        "dx = dx_padded[:, :, above:above + H, left:left + W]\n"
        "# for a padding of 1 on every side: dx_padded[:, :, 1:-1, 1:-1]",
    ),
    (
        "weight-gradient-padding",
        "The filter gradient was computed from an input that lies wrongly in its padding.",
        "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x_padded[n,c,p+r,q+s]",
        "around = ((0, 0), (0, 0), (above, below), (left, right))\n"
        "x_padded = np.pad(x, around)  # the same one as in the forward pass\n"
        "dw = correlate_images(x_padded, dy)",
    ),
    (
        "pool-ties-all",
        "The pooling layer handed its delta to every cell that ties for the maximum.",
        "dx[n,c,i,j] = sum over the windows that (i, j) won of dy[n,c,p,q]",
        "winner = windows.argmax(axis=-1)  # the first of a tie, one a window\n"
        "dx.ravel()[winner_index] += dy    # not: (x == max) * dy",
    ),
    (
        "pool-spread",
        "The pooling layer shared its delta out over the window in the wrong way.",
        "max: only the winner gets dy;  average: every cell gets dy / (R S)",
        "dx[n, c, i_max, j_max] += dy[n, c, p, q]  # max pooling: the winner alone\n"
        "dx[n, c, i:i + R, j:j + S] += dy[n, c, p, q] / (R * S)  # average pooling",
    ),
    (
        "pool-overlap-assigned",
        "Overlapping pooling windows overwrote each other's deltas.",
        "dx[n,c,i,j] = sum over the windows that (i, j) won of dy[n,c,p,q]",
        "dx = np.zeros_like(x)\n"
        "dx[n, c, i_max, j_max] += dy[n, c, p, q]  # +=: a cell can win twice",
    ),
    (
        "relu-mask-missing",
        "The activation's slope is missing: the delta passed it unchanged.",
        "dx = dy where x > 0, else 0   (in general dx = dy f'(x))",
        "dx = dy * (x > 0)  # x: what went into the ReLU",
    ),
    (
        "relu-mask-for-delta",
        "The ReLU handed down its mask in place of the masked delta.",
        "dx = dy where x > 0, else 0",
        "mask = x > 0\ndx = dy * mask  # not: dx = mask",
    ),
    (
        "relu-mask-of-delta",
        "The ReLU was applied to the delta: negative deltas were cut off.",
        "dx = dy where x > 0, else 0: the sign of x decides, not that of dy",
        "dx = dy * (x > 0)  # not: np.maximum(dy, 0), not: dy * (dy > 0)",
    ),
    (
        "cache-overwritten",
        "What the backward pass took from the cache had been overwritten.",
        "every image needs its own x of the forward pass",
        "self.x = x.copy()  # one cache a layer, for the whole batch\n"
        "# x *= mask and x[x < 0] = 0 change what others have kept",
    ),
    (
        "bias-averaged",
        "The bias gradient was averaged where it has to be added up.",
        "db[k] = sum over n, p, q of dy[n,k,p,q]",
        "db = dy.sum(axis=(0, 2, 3))  # not mean: dy already holds 1 / N",
    ),
    (
        "batch-scale",
        "The 1 / N of the batch's mean is missing, or there twice.",
        "L = mean over n of l[n], so dx[n,k] = (p[n,k] - t[n,k]) / N, once, at the loss",
        "delta = (p - t) / N  # once, here\ndw = delta.T @ x     # and nowhere below",
    ),
    (
        "last-sample-only",
        "Only the last image's gradient is left of the batch's.",
        "dw = sum over n of dy[n] x[n]",
        "dw = np.zeros_like(w)\nfor n in range(N):\n    dw += gradient_of(n)  # +=, not =",
    ),
    (
        "softmax-twice",
        "The softmax's derivative was applied twice.",
        "dx[n,k] = (p[n,k] - t[n,k]) / N is the delta of the logits: softmax included",
        "delta = (p - t) / N  # of the logits\n# no softmax_backward(delta) after it",
    ),
    (
        "softmax-diagonal",
        "Only the diagonal of the softmax's Jacobian was used.",
        "dp[j]/dx[k] = p[j] ((j == k) - p[k]), which with -t / p gives  p - t",
        "delta = (p - t) / N  # softmax and cross-entropy together\n"
        "# p * (1 - p) is the diagonal alone: rows of delta must sum to 0",
    ),
    (
        "sign-flipped",
        "The sign is turned round.",
        "dx[n,k] = (p[n,k] - t[n,k]) / N, and weights go against it: w -= rate dw",
        "delta = (p - t) / N  # not (t - p)\nw -= rate * dw",
    ),
    (
        "labels-shifted",
        "The labels are off by one.",
        "t[n,k] = 1 where k is the label of image n, else 0; classes count from 0",
        "t = np.zeros((N, K))\nt[np.arange(N), y] = 1  # y from 0 to K - 1",
    ),
    (
        "flatten-order",
        "Maps were flattened in one order and folded back in another.",
        "feature (c H + i) W + j  is  x[c,i,j]: channel, row, column, both ways",
        "flat = x.reshape(N, -1)      # forward\n"
        "dx = delta.reshape(x.shape)  # back: the same shape, no transpose",
    ),
    (
        "weights-updated-early",
        "The weights were updated before the next delta was computed with them.",
        "dx = dy w, with the w of the forward pass",
        "dx = dy @ w     # first the next delta,\ndw = dy.T @ x\nw -= rate * dw  # then the update",
    ),
    (
        "gradients-not-cleared",
        "The gradient was added to what an earlier call had left.",
        "dw = sum over n of dy[n] x[n], of this batch alone",
        "dw[...] = 0  # before every backward pass\n# or assign: dw = dy.T @ x, not dw += dy.T @ x",
    ),
    (
        "dropout-mask-lost",
        "Dropout's mask or its scale was left out on the way back.",
        "dx = m dy, with m = 1 / (1 - rate) where the unit stayed, else 0",
        "mask = (rng.random(x.shape) >= rate) / (1 - rate)  # forward: y = mask * x\n"
        "dx = mask * dy  # back: the same mask",
    ),
    (
        "l2-term",
        "The gradient holds an L2 term that this loss does not have.",
        "dw = sum over n of dy[n] x[n];  with a penalty a/2 |w|^2 in the loss, + a w, once",
        "dw = dy.T @ x + a * w  # for a loss of ... + a / 2 * (w**2).sum()\n"
        "# not divided by N, not doubled, and not for biases",
    ),
    (
        "wrong-cached-input",
        "The backward pass used another activation than the one the layer had seen.",
        "dw = delta times the layer's own input x;  slopes in terms of the x or y they name",
        "y = x @ w.T + b\nself.x = x  # keep this layer's own input\ndw = dy.T @ self.x",
    ),
    (
        "images-mixed",
        "Columns of different images were mixed up in a reshape.",
        "reshape splits or joins neighbouring axes only; to exchange axes takes a transpose",
        "columns = dy.transpose(1, 0, 2, 3).reshape(K, -1)  # (K, N P Q)\n"
        "# (N, P, Q) or (P, Q, N): the same order for both factors",
    ),
)

MISTAKES: dict[str, Mistake] = {entry[0]: Mistake(*entry) for entry in _ENTRIES}
"""Every mistake of the catalogue, by its id."""
