"""What tests of the explorer show: digits, and networks that were trained on them."""

import warnings

import fullback as fb


def some_digits():
    whole = fb.load_data("digits")
    return fb.Dataset(
        "digits", whole.x_train[:640], whole.y_train[:640], whole.x_test[:200], whole.y_test[:200]
    )


def trained(net, data, epochs):
    """Train a network in place, and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fb.DeadUnitWarning)
        fb.fit(net, data.x_train, data.y_train, epochs=epochs, verbose=False)
    return net
