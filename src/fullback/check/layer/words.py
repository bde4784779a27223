"""The names that people give to the arguments and results of their layers."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DELTA = _words("""
    dy dout grad g gy grad_output grad_out grad_y delta upstream d_out dz da d_y d dl_dy dldy
    dl_dout output_gradient gradient error dh dlogits out_grad doutput d_output dloss dvalues
""")
INPUT = _words("x input inputs inp image images a_prev a data x_in features logits z prev")
CACHE = _words("cache ctx context kept memory saved state cached stash tape")
WEIGHT = _words("w weight weights kernel kernels filter filters gamma f")
BIAS = _words("b bias biases beta")
DICT = _words("params parameters")
OUTPUT = _words("y out output outputs p probs probabilities")
LABELS = _words("labels label t target targets y_true y onehot one_hot y_onehot")

OPTIONS = {
    "pad": "padding",
    "p": "padding",
    "s": "stride",
    "eps": "epsilon",
    "pool_size": "size",
    "k": "size",
}
"""Other names of options."""
