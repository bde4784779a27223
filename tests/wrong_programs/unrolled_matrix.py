"""The convolution as one large sparse matrix: every layer is a product with columns of images.

Two mistakes: the error is target minus output, the wrong way round, and the hidden layer's error is
not masked by its ReLU.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) relu pool flatten dense6 relu dense4"
INPUT_SHAPE = (2, 6, 8)
MISTAKES = (("loss", "sign-flipped"), ("relu2", "relu-mask-missing"))
NAMES = {
    "gradients": {
        "grad_F": "conv1.weight", "grad_f": "conv1.bias",
        "grad_U": "dense1.weight", "grad_u": "dense1.bias",
        "grad_V": "dense2.weight", "grad_v": "dense2.bias",
    },
    "deltas": {"err_F": "conv1", "err_U": "dense1", "err_V": "dense2"},
    "activations": {"X1": "conv1", "X3": "dense1", "X5": "dense2"},
}  # fmt: skip

ROWS, COLS = 4, 6  # of a map
SHAPE = (2, 6, 8)


def places(k, c, r, s):
    """Entries of the matrix that hold the weight F[k, c, r, s]: (row, column) index arrays."""
    i, j = np.mgrid[:ROWS, :COLS]
    rows = np.ravel_multi_index((np.full(i.shape, k), i, j), (3, ROWS, COLS))
    cols = np.ravel_multi_index((np.full(i.shape, c), i + r, j + s), SHAPE)
    return rows.ravel(), cols.ravel()


def as_matrix(F):
    M = np.zeros((3 * ROWS * COLS, np.prod(SHAPE)))
    for k, c, r, s in np.ndindex(F.shape):
        M[places(k, c, r, s)] = F[k, c, r, s]
    return M


def pool_table():
    """For every pooled cell, the four entries of the column that it looks at."""
    index = np.arange(3 * ROWS * COLS).reshape(3, ROWS // 2, 2, COLS // 2, 2)
    return index.transpose(0, 1, 3, 2, 4).reshape(-1, 4)


def run(parameters, x, y, wrong=True):
    F, f = parameters["conv1.weight"], parameters["conv1.bias"]
    U, u = parameters["dense1.weight"], parameters["dense1.bias"][:, None]
    V, v = parameters["dense2.weight"], parameters["dense2.bias"][:, None]
    n = len(x)

    X0 = x.reshape(n, -1).T
    M = as_matrix(F)
    X1 = M @ X0 + np.repeat(f, ROWS * COLS)[:, None]
    table = pool_table()
    looked_at = np.maximum(X1, 0)[table]  # pooled cell, candidate, image
    X2 = looked_at.max(axis=1)
    winner = np.take_along_axis(table, looked_at.argmax(axis=1), axis=1)
    X3 = U @ X2 + u
    X4 = np.maximum(X3, 0)
    X5 = V @ X4 + v
    output = np.exp(X5 - X5.max(axis=0))
    output /= output.sum(axis=0)
    target = np.eye(4)[:, y]
    loss = -np.log(output[target == 1]).sum() / n

    err_V = (target - output if wrong else output - target) / n
    err_U = V.T @ err_V
    if not wrong:
        err_U = err_U * (X3 > 0)
    err_pool = U.T @ err_U
    err_F = np.zeros(X1.shape)
    err_F[winner, np.arange(n)] = err_pool
    err_F = err_F * (X1 > 0)

    # a weight's gradient is the sum over its places in the matrix
    grad_M = err_F @ X0.T
    grad_F = np.zeros(F.shape)
    for index in np.ndindex(F.shape):
        grad_F[index] = grad_M[places(*index)].sum()
    return {
        "loss": loss,
        "gradients": {
            "grad_F": grad_F,
            "grad_f": err_F.reshape(3, -1).sum(axis=1),
            "grad_U": err_U @ X2.T,
            "grad_u": err_U.sum(axis=1, keepdims=True),
            "grad_V": err_V @ X4.T,
            "grad_v": err_V.sum(axis=1, keepdims=True),
        },
        "deltas": {"err_F": err_F, "err_U": err_U, "err_V": err_V},
        "activations": {"X1": X1, "X3": X3, "X5": X5},
        "probabilities": output,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    for name in ("dense1.bias", "dense2.bias"):
        grads[name] = grads[name][:, 0]
    return grads
