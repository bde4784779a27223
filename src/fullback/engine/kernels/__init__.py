"""The kernels, one file beside each of ``layers/``.

A kernel is ``kernel(a, s, c, k, i, j)``: ``a`` is the memory of the block it works on, ``s`` is
shared by all blocks and workers, ``c`` is the run's context (``context.py``), and ``k`` has its
operands, places in ``a`` or ``s`` and sizes, by the names that it declares (``operands.py``). A
kernel for blocks gets the block's number ``i`` and its chunk's ``j``; where they are the same, the
block is the first of its chunk, and gradients are written, not added. A kernel for all workers
gets the worker's number ``i`` and how many there are, ``j``, and does its part.

Begin with ``activation.py``, then ``dense.py``. To add a kernel, write it on its layer's page, add
it to the KERNELS there (and functions that it calls to the HELPERS), and emit it in ``lowering/``.
"""

from fullback.engine.kernels import (
    activation,
    augment,
    conv,
    conv_gradients,
    dense,
    dropout,
    functions,
    images,
    loss,
    maps,
    norm,
    one,
    one_conv,
    optimizer,
    pool,
)

MODULES = (
    images, augment, conv, conv_gradients, pool, dense, activation, dropout, norm, loss, optimizer,
    functions, maps, one, one_conv,
)  # fmt: skip

KERNELS = tuple(kernel for module in MODULES for kernel in module.KERNELS)
"""Every kernel; its place is the number by which programs call it."""

HELPERS = tuple(helper for module in MODULES for helper in module.HELPERS)
"""Functions that kernels call."""
