"""A tutorial's ``cnn_cost``: parameters in one vector theta, images (H, W, N), kron to unpool.

Two mistakes: the delta of a maximum is shared out evenly over its window, as in mean pooling, and
the filters' bias gradients are means over the delta where they should be sums.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) relu pool flatten dense4"
INPUT_SHAPE = (1, 8, 6)
MISTAKES = (("pool1", "pool-spread"), ("conv1", "bias-averaged"))
NAMES = {
    "gradients": {
        "Wc_grad": "conv1.weight", "bc_grad": "conv1.bias",
        "Wd_grad": "dense1.weight", "bd_grad": "dense1.bias",
    },
    "deltas": {"delta_conv": "conv1", "delta_pool": "pool1", "delta_softmax": "dense1"},
    "activations": {"activations_pooled": "pool1"},
}  # fmt: skip


def params_to_stack(theta, image_rows, image_cols, filter_dim, num_filters, pool_dim, num_classes):
    """Unroll theta into Wc (rows, cols, filters), bc, Wd (classes, hidden) and bd."""
    hidden = (image_rows - filter_dim + 1) // pool_dim * ((image_cols - filter_dim + 1) // pool_dim)
    hidden *= num_filters
    sizes = [filter_dim**2 * num_filters, num_filters, num_classes * hidden, num_classes]
    Wc, bc, Wd, bd = np.split(theta, np.cumsum(sizes)[:-1])
    Wc = Wc.reshape(filter_dim, filter_dim, num_filters)
    return Wc, bc, Wd.reshape(num_classes, hidden), bd


def cnn_cost(theta, images, labels, num_classes, filter_dim, num_filters, pool_dim, wrong):
    image_rows, image_cols, num_images = images.shape
    dims = (image_rows, image_cols, filter_dim, num_filters, pool_dim, num_classes)
    Wc, bc, Wd, bd = params_to_stack(theta, *dims)

    # STEP 1a: forward propagation
    conv_rows, conv_cols = image_rows - filter_dim + 1, image_cols - filter_dim + 1
    convolved = np.zeros((conv_rows, conv_cols, num_filters, num_images))
    for r in range(filter_dim):
        for c in range(filter_dim):
            part = images[r : r + conv_rows, c : c + conv_cols]
            convolved += part[:, :, None, :] * Wc[r, c][:, None]
    activations = np.maximum(convolved + bc[:, None], 0)
    pooled_rows, pooled_cols = conv_rows // pool_dim, conv_cols // pool_dim
    blocks = activations.reshape(
        pooled_rows, pool_dim, pooled_cols, pool_dim, num_filters, num_images
    )
    blocks = blocks.transpose(0, 2, 4, 5, 1, 3).reshape(
        pooled_rows, pooled_cols, num_filters, num_images, pool_dim**2
    )
    activations_pooled = blocks.max(axis=-1)
    hidden = activations_pooled.reshape(-1, num_images)
    probs = Wd @ hidden + bd[:, None]
    probs = np.exp(probs - probs.max(axis=0))
    probs /= probs.sum(axis=0)

    # STEP 1b: cost
    ground_truth = np.zeros((num_classes, num_images))
    ground_truth[labels, np.arange(num_images)] = 1
    cost = -np.sum(ground_truth * np.log(probs)) / num_images

    # STEP 1c: backpropagation
    delta_softmax = -(ground_truth - probs) / num_images
    delta_pool = (Wd.T @ delta_softmax).reshape(activations_pooled.shape)
    delta_conv = np.zeros(activations.shape)
    for n in range(num_images):
        for f in range(num_filters):
            upsampled = np.kron(delta_pool[:, :, f, n], np.ones((pool_dim, pool_dim)))
            if wrong:
                upsampled = upsampled / pool_dim**2
            else:
                winner = blocks[:, :, f, n].argmax(axis=-1)
                winner = np.eye(pool_dim**2)[winner].reshape(*winner.shape, pool_dim, pool_dim)
                upsampled = upsampled * winner.transpose(0, 2, 1, 3).reshape(upsampled.shape)
            delta_conv[:, :, f, n] = upsampled * (activations[:, :, f, n] > 0)

    # STEP 1d: gradients
    Wd_grad = delta_softmax @ hidden.T
    bd_grad = delta_softmax.sum(axis=1)
    Wc_grad = np.zeros(Wc.shape)
    for r in range(filter_dim):
        for c in range(filter_dim):
            part = images[r : r + conv_rows, c : c + conv_cols]
            Wc_grad[r, c] = np.sum(part[:, :, None, :] * delta_conv, axis=(0, 1, 3))
    bc_grad = np.zeros(bc.shape)
    for f in range(num_filters):
        bc_grad[f] = delta_conv[:, :, f].mean() if wrong else delta_conv[:, :, f].sum()

    # unroll the gradients
    grad = np.concatenate([g.ravel() for g in (Wc_grad, bc_grad, Wd_grad, bd_grad)])
    deltas = {"delta_conv": delta_conv, "delta_pool": delta_pool, "delta_softmax": delta_softmax}
    return cost, grad, probs, deltas, activations_pooled


def run(parameters, x, y, wrong=True):
    Wc = parameters["conv1.weight"][:, 0].transpose(1, 2, 0)
    Wd = parameters["dense1.weight"].reshape(4, 3, 3, 2).transpose(0, 2, 3, 1)
    bc, bd = parameters["conv1.bias"], parameters["dense1.bias"]
    theta = np.concatenate([p.ravel() for p in (Wc, bc, Wd, bd)])
    images = x[:, 0].transpose(1, 2, 0)
    cost, grad, probs, deltas, pooled = cnn_cost(theta, images, y, 4, 3, 3, 2, wrong)
    stack = params_to_stack(grad, 8, 6, 3, 3, 2, 4)
    return {
        "loss": cost,
        "gradients": dict(zip(NAMES["gradients"], stack, strict=True)),
        "deltas": deltas,
        "activations": {"activations_pooled": pooled},
        "probabilities": probs,
    }


def to_fullback(result):
    g = result["gradients"]
    return {
        "conv1.weight": g["Wc_grad"].transpose(2, 0, 1)[:, None],
        "conv1.bias": g["bc_grad"],
        "dense1.weight": g["Wd_grad"].reshape(4, 3, 2, 3).transpose(0, 3, 1, 2).reshape(4, 18),
        "dense1.bias": g["bd_grad"],
    }
