"""``diagnose`` on right gradients of random networks, of every kind of layer: no false alarm."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fullback import Network
from fullback.check.diagnose import diagnose
from support.networks import deterministic, losses, texts, unusual


@settings(deterministic, max_examples=300)
@given(
    given=texts(),
    loss=losses,
    images=st.integers(1, 20),
    training=st.booleans(),
    engine=st.sampled_from(["lanes", "float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_right_gradients_are_called_right(given, loss, images, training, engine, seed):
    text, shape = given
    dtype = "float64" if engine == "float64" else "float32"
    net = Network.parse(text, shape, loss=loss, seed=seed, dtype=dtype)
    x, y = unusual(net, images, seed=seed, dtype=dtype)
    deltas = None
    if engine == "lanes":
        _, gradients = net.loss_and_gradients(x, y, engine="lanes", training=training)
    else:
        trace = net.trace(x, y, training=training)
        gradients, deltas = trace.gradients, trace.deltas
    with np.errstate(all="ignore"):
        found = diagnose(net, x, y, gradients, deltas, training=training)
    assert found.findings == [], str(found)
    assert found.wrong == []
