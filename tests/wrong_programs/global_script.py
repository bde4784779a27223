"""A script: everything is a global variable, and ``step`` is what the loop over epochs called.

Dense weights are (in, out). The mistake: the classifier's weights are updated before the error is
carried through them.
"""

import numpy as np

ARCHITECTURE = "conv2 relu pool flatten dense6 relu dense3"
INPUT_SHAPE = (1, 6, 8)
MISTAKES = (("dense2", "weights-updated-early"),)
NAMES = {
    "gradients": {
        "dw_conv": "conv1.weight", "db_conv": "conv1.bias",
        "dw_fc1": "dense1.weight", "db_fc1": "dense1.bias",
        "dw_fc2": "dense2.weight", "db_fc2": "dense2.bias",
    },
    "deltas": {"e_conv": "conv1", "e_fc1": "dense1", "e_fc2": "dense2"},
    "activations": {},
}  # fmt: skip

learning_rate = 0.5

w_conv = b_conv = w_fc1 = b_fc1 = w_fc2 = b_fc2 = None
img_pad = conv_out = pool_out = flat = fc1_in = fc1_out = prob = None
dw_conv = db_conv = dw_fc1 = db_fc1 = dw_fc2 = db_fc2 = None
e_conv = e_fc1 = e_fc2 = None


def forward(img):
    global img_pad, conv_out, pool_out, flat, fc1_in, fc1_out, prob
    n, h, w = img.shape
    img_pad = np.zeros((n, h + 2, w + 2))
    img_pad[:, 1 : h + 1, 1 : w + 1] = img
    conv_out = np.zeros((n, 2, h, w))
    for f in range(2):
        for i in range(h):
            for j in range(w):
                conv_out[:, f, i, j] = (img_pad[:, i : i + 3, j : j + 3] * w_conv[f]).sum((1, 2))
        conv_out[:, f] += b_conv[f]
    relu_out = np.where(conv_out > 0, conv_out, 0)
    pool_out = np.zeros((n, 2, h // 2, w // 2))
    for i in range(h // 2):
        for j in range(w // 2):
            pool_out[:, :, i, j] = relu_out[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((2, 3))
    flat = pool_out.reshape(n, -1)
    fc1_in = np.dot(flat, w_fc1) + b_fc1
    fc1_out = np.where(fc1_in > 0, fc1_in, 0)
    score = np.dot(fc1_out, w_fc2) + b_fc2
    score = np.exp(score - score.max(axis=1)[:, None])
    prob = score / score.sum(axis=1)[:, None]


def unpool(err):
    relu_out = np.where(conv_out > 0, conv_out, 0)
    out = np.zeros(relu_out.shape)
    for n, f, i, j in np.ndindex(err.shape):
        best = (2 * i, 2 * j)
        for r, s in ((0, 1), (1, 0), (1, 1)):
            if relu_out[n, f, 2 * i + r, 2 * j + s] > relu_out[n, f, best[0], best[1]]:
                best = (2 * i + r, 2 * j + s)
        out[n, f, best[0], best[1]] = err[n, f, i, j]
    return out


def step(img, target, wrong):
    global w_conv, b_conv, w_fc1, b_fc1, w_fc2, b_fc2
    global dw_conv, db_conv, dw_fc1, db_fc1, dw_fc2, db_fc2
    global e_conv, e_fc1, e_fc2
    forward(img)
    loss = -np.log(prob[np.arange(len(img)), target]).mean()

    # classifier
    e_fc2 = (prob - np.eye(3)[target]) / len(img)
    dw_fc2 = np.dot(fc1_out.T, e_fc2)
    db_fc2 = e_fc2.sum(axis=0)
    old = w_fc2
    w_fc2 = w_fc2 - learning_rate * dw_fc2
    b_fc2 = b_fc2 - learning_rate * db_fc2

    # hidden layer and filters
    e_fc1 = np.dot(e_fc2, w_fc2.T if wrong else old.T) * (fc1_in > 0)
    dw_fc1 = np.dot(flat.T, e_fc1)
    db_fc1 = e_fc1.sum(axis=0)
    e_conv = unpool(np.dot(e_fc1, w_fc1.T).reshape(pool_out.shape)) * (conv_out > 0)
    dw_conv = np.zeros(w_conv.shape)
    for f in range(2):
        for r in range(3):
            for s in range(3):
                seen = img_pad[:, r : r + conv_out.shape[2], s : s + conv_out.shape[3]]
                dw_conv[f, r, s] = (seen * e_conv[:, f]).sum()
    db_conv = e_conv.sum(axis=(0, 2, 3))
    w_fc1 = w_fc1 - learning_rate * dw_fc1
    b_fc1 = b_fc1 - learning_rate * db_fc1
    w_conv = w_conv - learning_rate * dw_conv
    b_conv = b_conv - learning_rate * db_conv
    return loss


def run(parameters, x, y, wrong=True):
    global w_conv, b_conv, w_fc1, b_fc1, w_fc2, b_fc2
    w_conv, b_conv = parameters["conv1.weight"][:, 0], parameters["conv1.bias"]
    w_fc1, b_fc1 = parameters["dense1.weight"].T, parameters["dense1.bias"]
    w_fc2, b_fc2 = parameters["dense2.weight"].T, parameters["dense2.bias"]
    loss = step(x[:, 0], y, wrong)
    return {
        "loss": loss,
        "gradients": {name: globals()[name] for name in NAMES["gradients"]},
        "deltas": {name: globals()[name] for name in NAMES["deltas"]},
        "activations": {},
        "probabilities": prob,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["conv1.weight"] = grads["conv1.weight"][:, None]
    grads["dense1.weight"] = grads["dense1.weight"].T
    grads["dense2.weight"] = grads["dense2.weight"].T
    return grads
