"""The CPU that kernels are compiled for, and how large the tiles are that suit its registers.

``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` choose another one than this machine's, as they do for
Numba; a name without features means none but those that every CPU of the kind has.
"""

from __future__ import annotations

import os

import llvmlite.binding as llvm


def cpu() -> tuple[str, str]:
    """Return the CPU's name and features, in LLVM's words, as Numba would."""
    name = os.environ.get("NUMBA_CPU_NAME", "")
    if name == "host":
        name = ""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if name else llvm.get_host_cpu_features().flatten()
    return "" if name == "generic" else name or llvm.get_host_cpu_name(), features


WIDE = "+avx512f" in cpu()[1].split(",")
"""Whether there are 32 registers of sixteen floats each.

Elsewhere a vector takes two or four of 16 or 32 smaller registers, and only tiles with a quarter of
the vectors stay in them: one filter of a 3 x 3 convolution, not four, at a time.
"""

FILTERS = 4 if WIDE else 1  # of a tile in convolutions; packed weights lie by as many
UNITS = 8 if WIDE else 4  # outputs of a tile in dense layers
