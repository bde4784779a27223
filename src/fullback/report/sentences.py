"""What each instruction does, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fullback.engine.listing import Line
    from fullback.network import Network

# {x} is what comes into the instruction's layers, {y} the last of them, {layers} all of them,
# {one} the first, {w} what is written.
_FORWARD = {
    "pack": "The filters of {one} are laid out in the order in which the convolution reads them.",
    "pack turned": "The filters of {one} are turned by 180 degrees, ready for the full convolution "
    "on the way back.",
    "running": "{one} takes the running mean and variance.",
    "gather": "The image is read; bytes become numbers on the scale that the network takes.",
    "conv2d": "Each filter of {one} slides over {x}: at every place, the products of its weights "
    "and the cells under them are added up, with the bias{then}.",
    "conv3x3": "Each filter of {one} slides over {x}: at every place, nine weights times the nine "
    "cells under them, added up over the channels, with the bias{then}.",
    "conv3x3_pool": "Each filter of {one} slides over {x}, {relu} cuts off what is negative, and "
    "{y} keeps the largest cell of every 2 x 2 window and remembers which one it was. All three in "
    "one instruction: the maps between them are never stored.",
    "dense": "Each unit of {one} adds up all its inputs times its weights, and its bias{then}.",
    "relu": "{y} cuts off what is negative.",
    "leaky_relu": "{y} makes what is negative small.",
    "tanh_of": "{y} squeezes every number to between -1 and 1.",
    "sigmoid": "{y} squeezes every number to between 0 and 1.",
    "maxpool": "{y} keeps the largest cell of every window and remembers which one it was.",
    "avgpool": "{y} takes the mean of every window.",
    "dropout": "{y} leaves features out at random and scales up those that stay.",
    "moments": "{one} adds up each channel's values and squares.",
    "merge_moments": "{one} makes each channel's mean and variance of them.",
    "batchnorm": "{one} brings each channel to mean 0 and variance 1, then scales and shifts "
    "it{then}.",
    "batchnorm_pool": "{one} brings each channel to mean 0 and variance 1, scales and shifts it, "
    "{relu} cuts off what is negative, and {y} keeps the largest cell of every window.",
    "normalize": "{y} subtracts the training images' mean and divides by their deviation.",
    "softmax_cross_entropy": "Softmax turns the logits into probabilities p; the loss is -log of "
    "the label's. Here the backward pass begins: the first delta is p - y, with y 1 for the label "
    "and 0 elsewhere.",
    "mean_squared_error": "The loss is the mean squared difference from the target. Here the "
    "backward pass begins: the first delta is twice the difference, divided by the outputs.",
}

_BACKWARD = {
    "keep": "The delta of {y} is kept for the weights' gradient, which is a sum over all images.",
    "rows": "The input of {one}, {x}, is kept for the weights' gradient.",
    "dense": "The next delta: each input of {one} collects the deltas of all units, through the "
    "weights by which it went to them.",
    "dense_dw": "The gradient of each weight of {one} is the delta of its unit times its input.",
    "dense_db": "The gradient of each bias of {one} is the delta of its unit.",
    "relu_dx": "{y} lets a delta pass where its output was positive, and stops it elsewhere.",
    "leaky_relu_dx": "{y} lets a delta pass where its output was positive, and shrinks it "
    "elsewhere.",
    "tanh_dx": "Each delta is multiplied by the slope of {y} there, 1 - y^2.",
    "sigmoid_dx": "Each delta is multiplied by the slope of {y} there, y (1 - y).",
    "maxpool_dx": "{y} hands each delta to the cell that won its window; the others get 0.",
    "avgpool_dx": "{y} shares each delta out evenly over its window.",
    "unpool2x2": "{y} hands each delta to the cell that won its window; {one} lets it pass where "
    "that cell was positive. All other cells of the delta are 0.",
    "conv_dw": "The gradient of each weight of {one}: the delta slides over {x} as the filter did, "
    "and input times delta is added up over all places.",
    "conv3x3_dw": "The gradient of each of the 3 x 3 weights of {one}: the delta slides over {x} "
    "as the filter did, and input times delta is added up over all places.",
    "conv3x3_pool_dw": "The delta of {y} goes to the winners of its windows, through {relu} where "
    "they were positive, and meets the part of {x} that lay under the filter there: input times "
    "delta, added up over all places, is the gradient of the filters of {one}, and the deltas "
    "alone that of their biases. The deltas between are never stored.",
    "conv_db": "The gradient of each bias of {one} is the sum of the delta over all places.",
    "spread": "The delta of {one} is spread out with zeros, as the stride had left cells out.",
    "conv2d": "The next delta: the full convolution of the delta of {one} with its filters, which "
    "are turned by 180 degrees, and with zeros around the delta.",
    "conv3x3": "The next delta: the full convolution of the delta of {one} with its filters, which "
    "are turned by 180 degrees, and with zeros around the delta.",
    "dropout": "{y} hands on the deltas of what stayed, scaled the same; the others get 0.",
    "batchnorm_sums": "{one} adds up each channel's deltas, and deltas times normalised values.",
    "batchnorm_pool_sums": "Each delta of {y} goes to its window's winner, through {relu}; {one} "
    "adds up each channel's deltas, and deltas times normalised values.",
    "merge_sums": "These sums are the gradients of the scale and the shift of {one}.",
    "batchnorm_dx": "The next delta: the delta of {one}, less the part of it that mean and "
    "variance took back, times the scale.",
    "batchnorm_pool_dx": "The next delta: the delta of {one}, less the part of it that mean and "
    "variance took back, times the scale.",
    "sgd": "{w} moves a step against its gradient. (The picture shows it before the step.)",
}


def sentence(net: Network, line: Line, *, backward: bool) -> str:
    """Return what an instruction does, with the names of its layers."""
    name = line.name
    if name == "pack" and line.writes[0].endswith(" turned"):
        name = "pack turned"
    text = (_BACKWARD if backward else _FORWARD).get(name)
    if text is None:
        return f"{line.name} computes {', '.join(line.writes) or 'nothing that is kept'}."
    first = line.layers[0]
    place = net.names.index(first) if first in net.names else 0
    relu = line.layers[1] if len(line.layers) > 1 else ""
    return text.format(
        x=("input", *net.names)[place],
        y=line.layers[-1],
        one=first,
        relu=relu,
        then=f"; then {relu} cuts off what is negative" if relu else "",
        w=", ".join(line.writes),
    )
