"""The kernels, one file beside each of ``layers/``.

A kernel has one signature, ``kernel(a, s, c, k, i, j)``: ``a`` is the memory of the block it works
on, ``s`` is shared by all blocks and workers, ``c`` is the run's context, ``k`` its operands, which
are places in ``a`` or ``s`` and sizes. A kernel for blocks gets the block's number ``i`` and its
chunk's ``j``; where they are the same, the block is the first of its chunk, and gradients are
written, not added. A kernel for all workers gets the worker's number ``i`` and how many there are,
``j``, and does its part.

In maps, a plane is the step from one channel to the next and a pitch that from one row to the next,
in floats; an operand that is a map is the place of its first cell that is not padding.
"""

from fullback.engine.kernels import (
    activation,
    augment,
    conv,
    dense,
    dropout,
    functions,
    images,
    loss,
    maps,
    norm,
    optimizer,
    pool,
)

MODULES = (
    images, augment, conv, pool, dense, activation, dropout, norm, loss, optimizer, functions, maps
)  # fmt: skip

KERNELS = tuple(kernel for module in MODULES for kernel in module.KERNELS)
"""Every kernel; its place is the number by which programs call it."""

HELPERS = tuple(helper for module in MODULES for helper in module.HELPERS)
"""Functions that kernels call."""
