"""Every layer, loss and optimizer on numbers small enough to check with a pencil.

The arithmetic stands in the comments. All numbers are small whole numbers or halves of them, which
floats hold exactly, unless a logarithm or a root comes in.
"""

from math import log, sqrt

import numpy as np
import pytest

from fullback import SGD, Adam, AdamW
from fullback.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    LeakyReLU,
    MaxPool2D,
    MeanSquaredError,
    Normalize,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
)

equal = np.testing.assert_array_equal


def close(actual, desired):
    """Assert equality up to the rounding of a few operations, of 1e-16 each."""
    np.testing.assert_allclose(actual, desired, rtol=1e-14, atol=1e-15)


def image(*rows):
    """One image of one channel: (1, 1, H, W)."""
    return np.array(rows, float)[None, None]


def run(layer, x, dy, training=False, **parameters):
    """Return y, dx and the gradients."""
    given = {name: np.array(value, float) for name, value in parameters.items()}
    y, kept = layer.forward(x, given, training=training)
    dx, gradients = layer.backward(dy, kept, given)
    return y, dx, gradients


class TestTheErrorOnItsWayToAFilter:
    """One 3x3 filter, ReLU, 2x2 pooling: from the delta above the pool down to dF and dx."""

    x = image(
        [1, 0, 2, 1],
        [0, 3, 1, 0],
        [2, 1, 0, 1],
        [1, 0, 2, 0],
    )
    weight = image(
        [1, 0, -1],
        [0, 2, 1],
        [-1, 0, 0],
    )
    # z[p, q] = b + x[p-1, q-1] - x[p-1, q+1] + 2 x[p, q] + x[p, q+1] - x[p+1, q-1], b = -2:
    z = image(
        # -2 + 2*1 + 0         -2 + 2*0 + 2 - 0     -2 + 2*2 + 1 - 3     -2 + 2*1 - 1
        [0, 0, 0, -1],
        # -2 - 0 + 2*0 + 3     -2 + 1-2 + 2*3+1 -2  -2 + 0-1 + 2*1+0 -1  -2 + 2 + 2*0 - 0
        [1, 2, -2, 0],
        # -2 - 3 + 2*2 + 1     -2 + 0-1 + 2*1+0 -1  -2 + 3-0 + 2*0+1 -0  -2 + 1 + 2*1 - 2
        [0, -2, 2, -1],
        # -2 - 1 + 2*1 + 0     -2 + 2-0 + 2*0 + 2   -2 + 1-1 + 2*2 + 0   -2 + 0 + 2*0
        [-1, 2, 2, -2],
    )
    # The four windows of relu(z): 0 0 1 2 -> 2, at (1,1); 0 0 0 0 -> 0, the first, at (0,2);
    # 0 0 0 2 -> 2, at (3,1); 2 0 2 0 -> 2, the first of two, at (2,2).
    pooled = image([2, 0], [2, 2])
    delta = image([2, -1], [1, 3])
    # Each delta goes to its window's winner:
    da = image(
        [0, 0, -1, 0],
        [0, 2, 0, 0],
        [0, 0, 3, 0],
        [0, 1, 0, 0],
    )
    # and on where z was positive, which it is not at (0,2): z = 0 there.
    dz = image(
        [0, 0, 0, 0],
        [0, 2, 0, 0],
        [0, 0, 3, 0],
        [0, 1, 0, 0],
    )
    # dF adds up what the filter saw (a 3x3 part of x), times the delta there:
    #     2 * 1 0 2     3 * 3 1 0     1 * 2 1 0      2+9+2 0+3+1 4+0+0
    #         0 3 1  +      1 0 1  +      1 0 2   =  0+3+1 6+0+0 2+3+2
    #         2 1 0         0 2 0         0 0 0      4+0+0 2+6+0 0+0+0
    dweight = image([13, 4, 4], [4, 6, 7], [4, 8, 0])
    # The next delta lays the filter, times each delta, where it had been:
    #     2 0 -2  .     .  .  .  .      .  .  .  .
    #     0 4  2  .     .  3  0 -3      .  .  .  .
    #    -2 0  0  .  +  .  0  6  3  +   1  0 -1  .
    #     . .  .  .     . -3  0  0      0  2  1  .    (the last one's third row falls outside)
    dx = image(
        [2, 0, -2, 0],
        [0, 7, 2, -3],
        [-1, 0, 5, 3],
        [0, -1, 1, 0],
    )

    def test_forward(self):
        y, _ = Conv2D(1).forward(self.x, {"weight": self.weight, "bias": np.array([-2.0])})
        equal(y, self.z)
        a, _ = ReLU().forward(self.z, {})
        equal(a, np.maximum(self.z, 0))
        equal(MaxPool2D().forward(a, {})[0], self.pooled)

    def test_backward(self):
        _, da, _ = run(MaxPool2D(), np.maximum(self.z, 0), self.delta)
        equal(da, self.da)
        _, dz, _ = run(ReLU(), self.z, da)
        equal(dz, self.dz)
        _, dx, gradients = run(Conv2D(1), self.x, dz, weight=self.weight, bias=[-2])
        equal(gradients["weight"], self.dweight)
        equal(gradients["bias"], [2 + 3 + 1])
        equal(dx, self.dx)


class TestConv2D:
    def test_stride_leaves_the_last_column_over(self):
        y, dx, gradients = run(
            Conv2D(1, 2, stride=2, padding="valid"),
            image([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]),
            image([1, -2]),
            weight=image([1, 2], [3, 4]),
            bias=[0],
        )
        # 1 + 2*2 + 3*6 + 4*7 and 3 + 2*4 + 3*8 + 4*9
        equal(y, image([51, 71]))
        # 1 * (1 2, 6 7) - 2 * (3 4, 8 9)
        equal(gradients["weight"], image([-5, -6], [-10, -11]))
        # 1 * filter, -2 * filter, and nothing for the column that no window reached
        equal(dx, image([1, 2, -2, -4, 0], [3, 4, -6, -8, 0]))

    def test_dilation(self):
        y, dx, gradients = run(
            Conv2D(1, (1, 2), padding="valid", dilation=2, bias=False),
            image([1, 2, 3, 4, 5]),
            image([1, 2, 3]),
            weight=image([1, 10]),
        )
        # 1 + 10*3, 2 + 10*4, 3 + 10*5
        equal(y, image([31, 42, 53]))
        # 1*1 + 2*2 + 3*3 and 1*3 + 2*4 + 3*5
        equal(gradients["weight"], image([14, 26]))
        # 1 2 3 from the left weight, 10 20 30 two cells on from the right one
        equal(dx, image([1, 2, 13, 20, 30]))

    def test_same_padding_puts_the_odd_zero_on_the_right(self):
        y, _, _ = run(
            Conv2D(1, (1, 2), bias=False), image([1, 2, 3]), image([0, 0, 0]), weight=image([1, 10])
        )
        # 1 + 10*2, 2 + 10*3, 3 + 10*0
        equal(y, image([21, 32, 3]))

    def test_channels_add_up_and_groups_stay_apart(self):
        x = np.array([[1.0, 2.0, 3.0, 4.0]]).reshape(1, 4, 1, 1)
        dy = np.array([[1.0, -1.0]]).reshape(1, 2, 1, 1)
        weight = np.array([[1, 10], [100, 1000]]).reshape(2, 2, 1, 1)
        y, dx, gradients = run(Conv2D(2, 1, groups=2), x, dy, weight=weight, bias=[5, 6])
        # filter 1 sees 1 2: 1 + 20 + 5; filter 2 sees 3 4: 300 + 4000 + 6
        equal(y.ravel(), [26, 4306])
        equal(dx.ravel(), [1, 10, -100, -1000])
        equal(gradients["weight"].reshape(2, 2), [[1, 2], [-3, -4]])
        equal(gradients["bias"], [1, -1])


class TestPooling:
    def test_ties_go_to_the_first_maximum_in_row_major_order(self):
        x = image([0, 5, 0, 0], [5, 5, 0, 0], [1, 2, 3, 1], [2, 1, 1, 3])
        y, dx, _ = run(MaxPool2D(), x, image([1, 2], [3, 4]))
        equal(y, image([5, 0], [2, 3]))
        equal(dx, image([0, 1, 2, 0], [0, 0, 0, 0], [0, 3, 4, 0], [0, 0, 0, 0]))

    def test_a_cell_can_win_twice(self):
        y, dx, _ = run(MaxPool2D((1, 2), stride=1), image([1, 3, 2]), image([10, 1]))
        equal(y, image([3, 3]))
        equal(dx, image([0, 11, 0]))

    def test_rows_and_columns_left_over_get_nothing(self):
        x, dy = image([1, 2, 9], [3, 4, 9], [9, 9, 9]), image([7])
        y, dx, _ = run(MaxPool2D(), x, dy)
        equal(y, image([4]))
        equal(dx, image([0, 0, 0], [0, 7, 0], [0, 0, 0]))
        y, dx, _ = run(AvgPool2D(), x, image([8]))
        equal(y, image([2.5]))
        equal(dx, image([2, 2, 0], [2, 2, 0], [0, 0, 0]))

    def test_padding_never_wins_but_counts_in_the_mean(self):
        dy = image([1, 2], [3, 4])
        y, dx, _ = run(MaxPool2D(2, stride=1, padding=1), image([-8]), dy)
        equal(y, image([-8, -8], [-8, -8]))
        equal(dx, image([1 + 2 + 3 + 4]))
        y, dx, _ = run(AvgPool2D(2, stride=1, padding=1), image([-8]), dy)
        equal(y, image([-2, -2], [-2, -2]))  # -8 and three zeros
        equal(dx, image([10 / 4]))

    def test_average_shares_its_delta(self):
        y, dx, _ = run(AvgPool2D(2, stride=1), image([1, 2, 3], [4, 5, 6]), image([4, 8]))
        equal(y, image([3, 4]))  # (1 + 2 + 4 + 5) / 4, (2 + 3 + 5 + 6) / 4
        equal(dx, image([1, 1 + 2, 2], [1, 1 + 2, 2]))

    def test_global_average(self):
        y, dx, _ = run(GlobalAvgPool2D(), image([1, 2], [3, 6]), np.array([[8.0]]))
        equal(y, [[3]])
        equal(dx, image([2, 2], [2, 2]))


def test_flatten_goes_channel_by_channel_row_by_row():
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    y, dx, _ = run(Flatten(), x, -np.arange(8.0)[None])
    equal(y, [[0, 1, 2, 3, 4, 5, 6, 7]])
    equal(dx, -x)


def test_dense():
    x, dy = np.array([[1.0, 2], [3, 0]]), np.array([[1.0, -1], [2, 0]])
    y, dx, gradients = run(Dense(2), x, dy, weight=[[3, 4], [5, 6]], bias=[10, 20])
    # 3*1 + 4*2 + 10, 5*1 + 6*2 + 20; 3*3 + 10, 5*3 + 20
    equal(y, [[21, 37], [19, 35]])
    # delta times input, over both images: 1*1 + 2*3, 1*2 + 2*0; -1*1, -1*2
    equal(gradients["weight"], [[7, 2], [-1, -2]])
    equal(gradients["bias"], [3, -1])
    # 1*3 - 1*5, 1*4 - 1*6; 2*3, 2*4
    equal(dx, [[-2, -2], [6, 8]])


class TestActivations:
    def test_relu_at_0_has_slope_0(self):
        y, dx, _ = run(ReLU(), np.array([[-1.0, 0, 2]]), np.array([[5.0, 6, 7]]))
        equal(y, [[0, 0, 2]])
        equal(dx, [[0, 0, 7]])

    def test_leaky_relu_at_0_has_its_own_slope(self):
        y, dx, _ = run(LeakyReLU(0.5), np.array([[-1.0, 0, 2]]), np.array([[5.0, 6, 7]]))
        equal(y, [[-0.5, 0, 2]])
        equal(dx, [[2.5, 3, 7]])

    def test_sigmoid(self):
        y, dx, _ = run(Sigmoid(), np.array([[0, log(3), -1000, 1000]]), np.full((1, 4), 16.0))
        close(y, [[1 / 2, 3 / 4, 0, 1]])  # 1 / (1 + 1), 1 / (1 + 1/3)
        close(dx, [[16 / 4, 16 * 3 / 16, 0, 0]])

    def test_tanh(self):
        y, dx, _ = run(Tanh(), np.array([[0, log(2)]]), np.array([[3.0, 100]]))
        close(y, [[0, (2 - 1 / 2) / (2 + 1 / 2)]])  # 0.6
        close(dx, [[3, 64]])  # 100 (1 - 0.36)


def test_dropout():
    def splitmix64(key, i):
        """Steele, Lea and Flood (2014), figure 16, as a number in [0, 1)."""
        z = (key + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return ((z ^ (z >> 31)) >> 11) / 2**53

    stays = [splitmix64(0, i) >= 0.75 for i in range(12)]
    assert 0 < sum(stays) < 12
    x, dy = np.arange(1.0, 13).reshape(3, 4), np.full((3, 4), 5.0)
    y, dx, _ = run(Dropout(0.75), x, dy, training=True)
    # what stays is divided by 1 - 0.75
    equal(y.ravel(), [4 * (i + 1) * kept for i, kept in enumerate(stays)])
    equal(dx.ravel(), [4 * 5 * kept for kept in stays])
    y, dx, _ = run(Dropout(0.75), x, dy)
    equal(y, x)
    equal(dx, dy)


class TestNormalisation:
    x = np.array([0.0, 0, 2, 2]).reshape(2, 1, 1, 2)
    dy = np.array([4.0, 0, 0, 8]).reshape(2, 1, 1, 2)

    def test_batchnorm_in_training(self):
        y, dx, gradients = run(
            BatchNorm2D(epsilon=0),
            self.x,
            self.dy,
            True,
            weight=[3],
            bias=[10],
            mean=[0],
            variance=[1],
        )
        # mean 1, variance 1, z = -1 -1 1 1
        equal(y.ravel(), [7, 7, 13, 13])
        equal(gradients["weight"], [-4 - 0 + 0 + 8])
        equal(gradients["bias"], [12])
        # 3 (dy - 12 / 4 - z * 4 / 4): 3 (4 - 3 + 1), 3 (0 - 3 + 1), 3 (0 - 3 - 1), 3 (8 - 3 - 1)
        equal(dx.ravel(), [6, -6, -12, 12])

    def test_batchnorm_in_prediction(self):
        y, dx, gradients = run(
            BatchNorm2D(epsilon=0), self.x, self.dy, weight=[3], bias=[10], mean=[1], variance=[4]
        )
        # z = (x - 1) / 2 = -1/2 -1/2 1/2 1/2
        equal(y.ravel(), [8.5, 8.5, 11.5, 11.5])
        equal(gradients["weight"], [-2 + 4])
        equal(gradients["bias"], [12])
        equal(dx.ravel(), [6, 0, 0, 12])  # dy * 3 / 2

    def test_normalize(self):
        y, dx, _ = run(Normalize(), self.x, self.dy, mean=[1], deviation=[2])
        equal(y.ravel(), [-0.5, -0.5, 0.5, 0.5])
        equal(dx.ravel(), [2, 0, 0, 4])

    def test_normalize_measures_in_batches(self):
        batches = [np.array([[1.0, 8], [3, 8]]), np.array([[5.0, 8], [7, 8], [9, 8]])]
        measured = Normalize().measured(batches)
        # 1 3 5 7 9: mean 5, squares 16 + 4 + 0 + 4 + 16 = 40 over 5; 8 8 8 8 8: no spread
        close(measured["mean"], [5, 8])
        close(measured["deviation"], [sqrt(8), 1])
        equal(measured["images"], 5)


class TestLosses:
    def test_cross_entropy(self):
        # softmax of 0, log 3: 1/4, 3/4; of 0, 0: 1/2, 1/2
        logits, labels = np.array([[0, log(3)], [0, 0]]), np.array([0, 1])
        loss, kept = SoftmaxCrossEntropy().forward(logits, labels)
        assert loss == pytest.approx((log(4) + log(2)) / 2, rel=1e-14)  # a few roundings
        close(SoftmaxCrossEntropy().backward(kept), [[-3 / 8, 3 / 8], [1 / 4, -1 / 4]])

    def test_cross_entropy_with_weights(self):
        logits, labels = np.array([[0, log(3)], [0, 0]]), np.array([0, 1])
        loss, kept = SoftmaxCrossEntropy().forward(logits, labels, np.array([3.0, 1.0]))
        assert loss == pytest.approx((3 * log(4) + log(2)) / 4, rel=1e-14)  # a few roundings
        # 3/4 (1/4 - 1), ...; 1/4 (1/2 - 0), ...
        close(SoftmaxCrossEntropy().backward(kept), [[-9 / 16, 9 / 16], [1 / 8, -1 / 8]])

    def test_cross_entropy_with_smoothing(self):
        smooth = SoftmaxCrossEntropy(label_smoothing=0.5)
        loss, kept = smooth.forward(np.array([[0, log(3)]]), np.array([0]))
        # targets 0.5 * (1, 0) + 0.5 / 2 = 3/4, 1/4
        assert loss == pytest.approx(3 / 4 * log(4) + 1 / 4 * log(4 / 3), rel=1e-14)
        close(smooth.backward(kept), [[1 / 4 - 3 / 4, 3 / 4 - 1 / 4]])

    def test_cross_entropy_of_large_logits(self):
        loss, kept = SoftmaxCrossEntropy().forward(np.array([[1000.0, -1000.0]]), np.array([1]))
        assert loss == 2000
        equal(SoftmaxCrossEntropy().backward(kept), [[1, -1]])

    def test_mean_squared_error(self):
        y, targets = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 0], [0, 4]])
        loss, kept = MeanSquaredError().forward(y, targets)
        assert loss == ((0 + 4) / 2 + (9 + 0) / 2) / 2
        close(MeanSquaredError().backward(kept), [[0, 2 * 2 / 4], [2 * 3 / 4, 0]])
        loss, kept = MeanSquaredError().forward(y, targets, np.array([1.0, 3.0]))
        assert loss == (1 * 2 + 3 * 4.5) / 4
        close(MeanSquaredError().backward(kept), [[0, 2 / 4], [9 / 4, 0]])


class TestOptimizers:
    """Two steps from a weight and a bias of 1; decay is for the weight alone."""

    @staticmethod
    def steps(optimizer, *gradients):
        parameters = {"dense1.weight": np.array([[1.0]]), "dense1.bias": np.array([1.0])}
        state = optimizer.initial_state(parameters, parameters)
        for g in gradients:
            both = {"dense1.weight": np.array([[g]]), "dense1.bias": np.array([g])}
            optimizer.step(parameters, both, state, parameters)
        assert state["step"] == len(gradients)
        return [float(p.item()) for p in parameters.values()]

    def test_sgd(self):
        # 1 - 0.1 * 0.5; with decay, 1 - 0.1 * (0.5 + 0.2 * 1)
        close(self.steps(SGD(0.1), 0.5), [0.95, 0.95])
        close(self.steps(SGD(0.1, weight_decay=0.2), 0.5), [0.93, 0.95])

    def test_momentum(self):
        optimizer = SGD(0.1, momentum=0.9, weight_decay=0.2)
        # weight: v = 0.7, p = 1 - 0.07; g = 0.5 + 0.2 * 0.93, v = 0.63 + 0.686, p -= 0.1316
        # bias:   v = 0.5, p = 1 - 0.05; v = 0.45 + 0.5, p -= 0.095
        close(self.steps(optimizer, 0.5), [0.93, 0.95])
        close(self.steps(optimizer, 0.5, 0.5), [0.7984, 0.855])

    def test_nesterov(self):
        optimizer = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.2)
        # weight: g = v = 0.7, p = 1 - 0.1 (0.7 + 0.63); then g = 0.5 + 0.2 * 0.867 = 0.6734,
        #         v = 0.63 + 0.6734 = 1.3034, p -= 0.1 (0.6734 + 1.17306)
        # bias:   g = v = 0.5, p = 1 - 0.1 (0.5 + 0.45); v = 0.95, p -= 0.1 (0.5 + 0.855)
        close(self.steps(optimizer, 0.5), [0.867, 0.905])
        close(self.steps(optimizer, 0.5, 0.5), [0.682354, 0.7695])

    def test_adam(self):
        optimizer = Adam(0.3, beta1=0.5, beta2=0.75, epsilon=1, weight_decay=0.5)
        # bias:   a = 0.5 * 2, s = 0.25 * 4; a / 0.5 = 2, sqrt(s / 0.25) = 2; 1 - 0.3 * 2 / 3
        # weight: g = 2 + 0.5 * 1, so a / 0.5 = 2.5 and the root too; 1 - 0.3 * 2.5 / 3.5
        close(self.steps(optimizer, 2.0), [1 - 0.75 / 3.5, 0.8])
        # bias:   a = 0.5 * 1 + 0.5 * 1, s = 0.75 * 1 + 0.25 * 1; a / 0.75, sqrt(s / 0.4375)
        after = 0.8 - 0.3 * (1 / 0.75) / (sqrt(1 / 0.4375) + 1)
        close(self.steps(optimizer, 2.0, 1.0)[1], after)

    def test_adamw(self):
        # as Adam's bias, but 0.3 * 0.5 of the weight goes first: 0.85 - 0.2
        optimizer = AdamW(0.3, beta1=0.5, beta2=0.75, epsilon=1, weight_decay=0.5)
        close(self.steps(optimizer, 2.0), [0.65, 0.8])

    def test_frozen_parameters_stay(self):
        parameters = {"a": np.ones(1), "b": np.ones(1)}
        state = SGD(0.5).initial_state(parameters, ["b"])
        SGD(0.5).step(parameters, {"a": np.ones(1), "b": np.ones(1)}, state, ["b"])
        equal(parameters["a"], [1])
        equal(parameters["b"], [0.5])
