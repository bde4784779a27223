"""Layers as classes: one image or a batch, gradients as attributes, weights that change on the way
back."""

import copy

import numpy as np

RNG = np.random.default_rng(0)


# A blog: one image at a time, weights that change on the way back ---------------------------------


class Conv3x3:
    def __init__(self, num_filters):
        self.num_filters = num_filters
        self.filters = RNG.normal(size=(num_filters, 3, 3)) / 9

    def iterate_regions(self, image):
        h, w = image.shape
        for i in range(h - 2):
            for j in range(w - 2):
                yield image[i : (i + 3), j : (j + 3)], i, j

    def forward(self, input):
        self.last_input = input
        h, w = input.shape
        output = np.zeros((h - 2, w - 2, self.num_filters))
        for im_region, i, j in self.iterate_regions(input):
            output[i, j] = np.sum(im_region * self.filters, axis=(1, 2))
        return output

    def backprop(self, d_L_d_out, learn_rate):
        d_L_d_filters = np.zeros(self.filters.shape)
        for im_region, i, j in self.iterate_regions(self.last_input):
            for f in range(self.num_filters):
                d_L_d_filters[f] += d_L_d_out[i, j, f] * im_region
        self.filters -= learn_rate * d_L_d_filters


class Conv3x3LastRegion(Conv3x3):
    def backprop(self, d_L_d_out, learn_rate):
        d_L_d_filters = np.zeros(self.filters.shape)
        for im_region, i, j in self.iterate_regions(self.last_input):
            for f in range(self.num_filters):
                d_L_d_filters[f] = d_L_d_out[i, j, f] * im_region
        self.filters -= learn_rate * d_L_d_filters


class MaxPool2:
    def forward(self, input):
        self.last_input = input
        h, w, num_filters = input.shape
        output = np.zeros((h // 2, w // 2, num_filters))
        for i, j in np.ndindex(h // 2, w // 2):
            output[i, j] = np.amax(input[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(0, 1))
        return output

    def backprop(self, d_L_d_out):
        d_L_d_input = np.zeros(self.last_input.shape)
        h, w, _ = d_L_d_out.shape
        for i, j in np.ndindex(h, w):
            im_region = self.last_input[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            amax = np.amax(im_region, axis=(0, 1))
            for i2, j2, f2 in np.ndindex(*im_region.shape):
                if im_region[i2, j2, f2] == amax[f2]:
                    d_L_d_input[i * 2 + i2, j * 2 + j2, f2] = d_L_d_out[i, j, f2]
        return d_L_d_input


# A video: columns, a bias for every output cell, the shape of the input in the constructor --------


def correlate2d(image, kernel, mode):
    if mode == "full":
        rows, columns = (n - 1 for n in kernel.shape)
        image = np.pad(image, ((rows, rows), (columns, columns)))
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    return np.einsum("ijrs,rs->ij", windows, kernel)


class Convolutional:
    def __init__(self, input_shape, kernel_size, depth, turn=True):
        self.input_shape, self.depth, self.turn = input_shape, depth, turn
        self.input_depth, height, width = input_shape
        self.kernels = RNG.normal(size=(depth, self.input_depth, kernel_size, kernel_size))
        self.biases = RNG.normal(size=(depth, height - kernel_size + 1, width - kernel_size + 1))

    def forward(self, input):
        self.input = input
        self.output = np.copy(self.biases)
        for i in range(self.depth):
            for j in range(self.input_depth):
                self.output[i] += correlate2d(self.input[j], self.kernels[i, j], "valid")
        return self.output

    def backward(self, output_gradient, learning_rate):
        kernels_gradient = np.zeros(self.kernels.shape)
        input_gradient = np.zeros(self.input_shape)
        for i in range(self.depth):
            for j in range(self.input_depth):
                kernels_gradient[i, j] = correlate2d(self.input[j], output_gradient[i], "valid")
                kernel = self.kernels[i, j, ::-1, ::-1] if self.turn else self.kernels[i, j]
                input_gradient[j] += correlate2d(output_gradient[i], kernel, "full")
        self.kernels -= learning_rate * kernels_gradient
        self.biases -= learning_rate * output_gradient
        return input_gradient


class ColumnDense:
    def __init__(self, input_size, output_size, early=False):
        self.weights = RNG.normal(size=(output_size, input_size))
        self.bias = RNG.normal(size=(output_size, 1))
        self.early = early

    def forward(self, input):
        self.input = input
        return np.dot(self.weights, self.input) + self.bias

    def backward(self, output_gradient, learning_rate):
        weights_gradient = np.dot(output_gradient, self.input.T)
        input_gradient = np.dot(self.weights.T, output_gradient)
        self.weights -= learning_rate * weights_gradient
        self.bias -= learning_rate * output_gradient
        if self.early:
            return np.dot(self.weights.T, output_gradient)
        return input_gradient


# A book: im2col, classes, gradients as attributes -------------------------------------------------


def im2col(input_data, filter_h, filter_w, stride=1, pad=0):
    N, C, H, W = input_data.shape
    out_h, out_w = (H + 2 * pad - filter_h) // stride + 1, (W + 2 * pad - filter_w) // stride + 1
    img = np.pad(input_data, [(0, 0), (0, 0), (pad, pad), (pad, pad)], "constant")
    col = np.zeros((N, C, filter_h, filter_w, out_h, out_w))
    for y, x in np.ndindex(filter_h, filter_w):
        y_max, x_max = y + stride * out_h, x + stride * out_w
        col[:, :, y, x, :, :] = img[:, :, y:y_max:stride, x:x_max:stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * out_h * out_w, -1)


def col2im(col, input_shape, filter_h, filter_w, stride=1, pad=0):
    N, C, H, W = input_shape
    out_h, out_w = (H + 2 * pad - filter_h) // stride + 1, (W + 2 * pad - filter_w) // stride + 1
    col = col.reshape(N, out_h, out_w, C, filter_h, filter_w).transpose(0, 3, 4, 5, 1, 2)
    img = np.zeros((N, C, H + 2 * pad + stride - 1, W + 2 * pad + stride - 1))
    for y, x in np.ndindex(filter_h, filter_w):
        y_max, x_max = y + stride * out_h, x + stride * out_w
        img[:, :, y:y_max:stride, x:x_max:stride] += col[:, :, y, x, :, :]
    return img[:, :, pad : H + pad, pad : W + pad]


class Convolution:
    def __init__(self, W, b, stride=1, pad=0, mixed=False):
        self.W, self.b, self.stride, self.pad, self.mixed = W, b, stride, pad, mixed
        self.x = self.col = self.col_W = self.dW = self.db = None

    def forward(self, x):
        FN, _, FH, FW = self.W.shape
        N, _, H, W = x.shape
        out_h = 1 + int((H + 2 * self.pad - FH) / self.stride)
        out_w = 1 + int((W + 2 * self.pad - FW) / self.stride)
        self.x, self.col = x, im2col(x, FH, FW, self.stride, self.pad)
        self.col_W = self.W.reshape(FN, -1).T
        out = np.dot(self.col, self.col_W) + self.b
        return out.reshape(N, out_h, out_w, -1).transpose(0, 3, 1, 2)

    def backward(self, dout):
        FN, C, FH, FW = self.W.shape
        if self.mixed:
            dout = dout.transpose(2, 3, 0, 1).reshape(-1, FN)
        else:
            dout = dout.transpose(0, 2, 3, 1).reshape(-1, FN)
        self.db = np.sum(dout, axis=0)
        self.dW = np.dot(self.col.T, dout).transpose(1, 0).reshape(FN, C, FH, FW)
        return col2im(np.dot(dout, self.col_W.T), self.x.shape, FH, FW, self.stride, self.pad)


class SoftmaxWithLoss:
    def forward(self, x, t):
        self.t = t
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        self.y = e / e.sum(axis=-1, keepdims=True)
        batch = self.y.shape[0]
        return -np.sum(np.log(self.y[np.arange(batch), self.t] + 1e-300)) / batch

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(dx)), self.t] -= 1
        return dx / len(dx) * dout


class Dropout:
    def __init__(self, dropout_ratio=0.5):
        self.dropout_ratio = dropout_ratio

    def forward(self, x, train_flg=True):
        if train_flg:
            self.mask = np.random.rand(*x.shape) > self.dropout_ratio
            return x * self.mask
        return x * (1.0 - self.dropout_ratio)

    def backward(self, dout):
        return dout * self.mask


class Sigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * (1.0 - self.out) * self.out


class SigmoidOfSigmoid(Sigmoid):
    def backward(self, dout):
        out = 1 / (1 + np.exp(-self.out))
        return dout * (1.0 - out) * out


# An optimizer inside ------------------------------------------------------------------------------


class SGD:
    def __init__(self, learning_rate=0.01):
        self.learning_rate = learning_rate

    def update(self, w, grad_wrt_w):
        return w - self.learning_rate * grad_wrt_w


class OptimizedDense:
    def __init__(self, n_units, input_shape):
        self.layer_input, self.n_units, self.input_shape = None, n_units, input_shape
        self.W = RNG.uniform(-1, 1, (input_shape[0], n_units))
        self.w0 = np.zeros((1, n_units))
        self.W_opt, self.w0_opt = copy.copy(SGD()), copy.copy(SGD())

    def forward_pass(self, X, training=True):
        self.layer_input = X
        return X.dot(self.W) + self.w0

    def backward_pass(self, accum_grad):
        W = self.W
        self.W = self.W_opt.update(self.W, self.layer_input.T.dot(accum_grad))
        self.w0 = self.w0_opt.update(self.w0, np.sum(accum_grad, axis=0, keepdims=True))
        return accum_grad.dot(W.T)


# Modules, true convolutions, loops ----------------------------------------------------------------


class Parameter:
    def __init__(self, data):
        self.data, self.grad = data, None


class Linear:
    def __init__(self, in_features, out_features):
        self.weight = Parameter(RNG.normal(size=(out_features, in_features)))
        self.bias = Parameter(np.zeros(out_features))

    def __call__(self, x):
        self._saved = x
        return x @ self.weight.data.T + self.bias.data

    def backward(self, grad_output):
        self.weight.grad = grad_output.T @ self._saved
        self.bias.grad = grad_output.sum(0)
        return grad_output @ self.weight.data


class TrueConvolution:
    """One image (channels, rows, columns), filters turned in the forward pass."""

    def __init__(self):
        self.w, self.b = RNG.normal(size=(3, 2, 3, 3)), RNG.normal(size=3)

    def forward(self, x):
        self.x = x
        turned = self.w[:, :, ::-1, ::-1]
        return np.stack(
            [
                sum(correlate2d(c, f, "valid") for c, f in zip(x, filters, strict=True)) + b
                for filters, b in zip(turned, self.b, strict=True)
            ]
        )

    def backward(self, delta):
        turned = [[correlate2d(c, d, "valid")[::-1, ::-1] for c in self.x] for d in delta]
        self.grad_w, self.grad_b = np.array(turned), delta.sum(axis=(1, 2))
        return np.stack(
            [
                sum(correlate2d(d, f, "full") for d, f in zip(delta, self.w[:, c], strict=True))
                for c in range(len(self.x))
            ]
        )


class LoopDense:
    """One sample, a list of neurons, loops."""

    def __init__(self, n_inputs, n_outputs):
        self.weights = RNG.random((n_outputs, n_inputs))
        self.biases = RNG.random(n_outputs)
        self.grads = {}

    def forward(self, row):
        self.row = row
        outputs = []
        for neuron, bias in zip(self.weights, self.biases, strict=True):
            activation = bias
            for i in range(len(row)):
                activation += neuron[i] * row[i]
            outputs.append(activation)
        return np.array(outputs)

    def backward(self, delta):
        errors = []
        for j in range(len(self.row)):
            error = 0.0
            for neuron, d in zip(self.weights, delta, strict=True):
                error += neuron[j] * d
            errors.append(error)
        self.grads = {"weights": np.outer(delta, self.row), "biases": delta.copy()}
        return np.array(errors)


class FirstShape:
    """Allocates its buffers at the first input, and keeps them."""

    def __init__(self):
        self.buffer = None

    def forward(self, x):
        if self.buffer is None:
            self.buffer = np.zeros_like(x)
        self.buffer[...] = np.tanh(x)
        return self.buffer.copy()

    def backward(self, grad):
        return grad * (1 - self.buffer**2)


class FirstInput(FirstShape):
    """Keeps the values of its first input as well."""

    def forward(self, x):
        if self.buffer is None:
            self.buffer = np.tanh(x)
        return np.tanh(x)


class ChannelsLastConv:
    """One image (rows, columns, channels), its own learning rate, filters (K, R, S, C)."""

    def __init__(self, sign=1):
        self.kernels, self.bias = RNG.normal(size=(4, 3, 3, 2)), np.zeros((1, 1, 4))
        self.lr, self.sign = 0.05, sign

    def forward(self, img):
        self.img = img
        view = np.lib.stride_tricks.sliding_window_view(img, (3, 3), axis=(0, 1))
        return np.einsum("ijcrs,krsc->ijk", view, self.kernels) + self.bias

    def backward(self, dout):
        view = np.lib.stride_tricks.sliding_window_view(self.img, (3, 3), axis=(0, 1))
        dk = np.einsum("ijcrs,ijk->krsc", view, dout)
        dx = np.zeros_like(self.img)
        for i, j in np.ndindex(*dout.shape[:2]):
            dx[i : i + 3, j : j + 3] += np.einsum("k,krsc->rsc", dout[i, j], self.kernels)
        self.kernels -= self.sign * self.lr * dk
        self.bias -= self.lr * dout.sum(axis=(0, 1), keepdims=True)
        return dx
