"""check_layer on losses."""

import numpy as np

from fullback.check.layer import check_layer
from layer_styles.functions import loss


def test_the_loss_s_mistakes():
    def jacobian(delta, p):
        return p * (delta - (delta * p).sum(axis=1, keepdims=True))

    def backward(cache, change):
        p, labels = cache
        t = np.eye(p.shape[1])[labels]
        return change(p, t) / len(p)

    for mistake, change in {
        "softmax-twice": lambda p, t: jacobian(p - t, p),
        "softmax-diagonal": lambda p, t: (p - t) * p * (1 - p),
        "sign-flipped": lambda p, t: t - p,
        "labels-shifted": lambda p, t: p - np.roll(t, 1, axis=1),
    }.items():
        result = check_layer(
            loss,
            lambda cache, change=change: backward(cache, change),
            kind="softmax_cross_entropy",
        )
        assert {own.mistake for own in result.findings} == {mistake}, str(result)


def test_a_loss_that_is_another_one():
    def squares(x, labels):
        difference = x - np.eye(x.shape[1])[labels]
        return (difference**2).sum(), (difference, labels)

    result = check_layer(squares, lambda cache: 2 * cache[0], kind="softmax_cross_entropy")
    assert {own.quantity for own in result.findings} == {"y"}
    assert "but SoftmaxCrossEntropy" in str(result)
