"""Losses: a block's share of the batch's loss, and the first delta."""

from __future__ import annotations

from fullback.engine.context import (
    COUNT,
    FIGURES,
    MIXTURE,
    MOST_BLOCKS,
    RATES,
    RATES_EACH,
    STEP,
    TARGETS,
    WEIGHTS,
)
from fullback.engine.kernels.augment import mixed
from fullback.engine.kernels.functions import INFINITY, exp, log
from fullback.engine.kernels.images import image_number, lanes_used
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Vector,
    doubles,
    first_lanes,
    fma,
    integers,
    lane,
    load,
    over,
    plus,
    select,
    splat,
    store,
    sum_lanes,
    turned,
)


def shares(a: Memory, room: int, c: Integers, block: int) -> Vector:
    """Return each image's part in the batch's mean; empty lanes have none."""
    used = lanes_used(c, block)
    if c[WEIGHTS] == 0:
        return select(first_lanes(used), splat(1 / c[COUNT]), splat(0.0))
    total = 0.0
    for n in range(c[COUNT]):
        total += doubles(c[WEIGHTS])[image_number(c, 0, n)]
    store(a, room, splat(0.0))
    for n in range(used):
        a[room + n] = doubles(c[WEIGHTS])[image_number(c, block, n)] / total
    return load(a, room)


def own_share(c: Integers, mixes: int) -> Vector:
    """Return the share of its own target that every image keeps where images are mixed."""
    if mixes:
        return splat(doubles(c[RATES])[RATES_EACH * c[STEP] + MIXTURE])
    return splat(1.0)


def report(c: Integers, block: int, loss: float, right: float) -> None:
    """Write down a block's figures."""
    place = (c[STEP] * c[MOST_BLOCKS] + block) * 2
    doubles(c[FIGURES])[place] = loss
    doubles(c[FIGURES])[place + 1] = right


@kernel(reads="x", writes="dx", numbers="classes room smoothing mixes")
def softmax_cross_entropy(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """The loss, and dx = (p - t) times each image's share.

    There is room for a vector; the label smoothing is in shared memory.
    """
    x, dx, classes, room = k.x, k.dx, k.classes, k.room
    smoothing, mixes = s[k.smoothing], k.mixes
    own, count = own_share(c, mixes), lanes_used(c, i)
    for n in range(LANES):
        a[room + n] = integers(c[TARGETS])[image_number(c, i, n)]
    label, share = load(a, room), shares(a, room, c, i)
    largest, answer = load(a, x), splat(0.0)
    for n in range(1, classes):
        v = load(a, x + n * LANES)
        more = v > largest
        answer = select(more, splat(n), answer)
        largest = select(more, v, largest)
    total = splat(0.0)
    for n in range(classes):
        p = exp(load(a, x + n * LANES) - largest)
        store(a, dx + n * LANES, p)
        total = total + p
    log_total, scale = log(total), splat(1.0) / total
    off, on = splat(smoothing / classes), splat(smoothing / classes + (1 - smoothing))
    loss = splat(0.0)
    for n in range(classes):
        t = select(label == splat(n), on, off)
        t = mixed(t, own, count) if mixes else t
        # not two differences, which the compiler may take in the other order: it rounds x first
        log_p = fma(log_total, splat(-1.0), load(a, x + n * LANES) - largest)
        loss = loss - t * log_p
        p = load(a, dx + n * LANES) * scale
        store(a, dx + n * LANES, (p - t) * share)
    used = first_lanes(count)
    right = select(answer == label, splat(1.0), splat(0.0))
    if mixes:  # of both labels
        other = select(first_lanes(count - 1), turned(label), splat(lane(label, 0)))
        right = own * right + select(answer == other, splat(1.0) - own, splat(0.0))
    right = select(used, right, splat(0.0))
    report(c, i, sum_lanes(select(used, loss * share, splat(0.0))), sum_lanes(right))


@kernel(reads="x", writes="dx", numbers="outputs room mixes")
def mean_squared_error(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """The loss, and dx = 2 (x - t) / K times each image's share. There is room for a vector."""
    x, dx, outputs, room, mixes = k.x, k.dx, k.outputs, k.room, k.mixes
    own, count = own_share(c, mixes), lanes_used(c, i)
    share = shares(a, room, c, i)
    loss = splat(0.0)
    for n in range(outputs):
        for image in range(LANES):
            place = image_number(c, i, image) * outputs + n
            a[room + image] = doubles(c[TARGETS])[place]
        t = load(a, room)
        t = mixed(t, own, count) if mixes else t
        difference = load(a, x + n * LANES) - t
        loss = fma(difference * splat(1 / outputs), difference, loss)
        store(a, dx + n * LANES, splat(2 / outputs) * difference * share)
    used = first_lanes(lanes_used(c, i))
    report(c, i, sum_lanes(select(used, loss * share, splat(0.0))), 0.0)


@kernel(reads="x", writes="dx", numbers="outputs room mixes")
def binary_cross_entropy(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """The loss, and dx = (p - t) times each image's share. There is room for a vector.

    How right an image is: the target of the most probable class; of one output, of 1 or 0.
    """
    x, dx, outputs, room, mixes = k.x, k.dx, k.outputs, k.room, k.mixes
    own, count = own_share(c, mixes), lanes_used(c, i)
    share = shares(a, room, c, i)
    zero, one = splat(0.0), splat(1.0)
    loss, largest, right = zero, splat(-INFINITY), zero
    for n in range(outputs):
        for image in range(LANES):
            a[room + image] = doubles(c[TARGETS])[image_number(c, i, image) * outputs + n]
        t = load(a, room)
        t = mixed(t, own, count) if mixes else t
        v = load(a, x + n * LANES)
        positive = v > zero
        small = exp(select(positive, zero - v, v))  # exp(-|v|)
        p = select(positive, one, small) / (one + small)
        loss = loss + (fma(zero - t, v, select(positive, v, zero)) + log(one + small))
        store(a, dx + n * LANES, (p - t) * share)
        more = v > largest
        right = select(more, t, right)
        largest = select(more, v, largest)
    if outputs == 1:
        right = select(largest > zero, right, one - right)
    used = first_lanes(count)
    right = select(used, right, zero)
    report(c, i, sum_lanes(select(used, loss * share, zero)), sum_lanes(right))


@kernel(reads="x", writes="x", numbers="classes")
def softmax(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Logits become probabilities, in place."""
    x, classes = k.x, k.classes
    largest = load(a, x)
    for n in range(1, classes):
        v = load(a, x + n * LANES)
        largest = select(v > largest, v, largest)
    total = splat(0.0)
    for n in range(classes):
        p = exp(load(a, x + n * LANES) - largest)
        store(a, x + n * LANES, p)
        total = plus(total, p)
    for n in range(classes):
        store(a, x + n * LANES, over(load(a, x + n * LANES), total))


KERNELS = (softmax_cross_entropy, binary_cross_entropy, mean_squared_error, softmax)
HELPERS = (shares, own_share, report)
