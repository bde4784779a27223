"""From a function of the engine to LLVM's language. Needs Numba, which nothing else does.

Numba writes the code, and LLVM optimises it for the CPU that it is for, whatever Numba takes the
machine for.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types
from numba.extending import register_jitable

from fullback.engine import loop
from fullback.engine.cpu import REGISTER, target_machine
from fullback.engine.kernels import HELPERS
from fullback.engine.library import FUNCTIONS, symbol
from fullback.engine.operands import DECLARATIONS
from fullback.engine.simd import LANES
from fullback.engine.words import FLAGS, OperandsType, lanes_at_once, memory, wholes

_OPTIONS: dict[str, Any] = {"fastmath": set(FLAGS), "error_model": "numpy", "boundscheck": False}
_RUN = types.void(
    wholes, wholes, wholes, memory, memory, wholes, types.int64, types.int64
)  # kernels, code, phases, a, s, c, worker, workers


def signature(function: Callable[..., None]) -> Any:
    """Return the types of ``loop.run``, or of a kernel with the operands that it has declared."""
    if function is loop.run:
        return _RUN
    declaration = DECLARATIONS.get(function)  # without one, the operands are a row of integers
    k = wholes if declaration is None else OperandsType(function.__name__, declaration)
    return types.void(memory, memory, wholes, k, types.int64, types.int64)


def bitcode(function: Callable[..., None], target: llvm.TargetMachine) -> bytes:
    """Return a kernel, or ``loop.run``, in LLVM's language, optimised for the target."""
    _register_helpers()
    declaration = DECLARATIONS.get(function)
    narrow = declaration is not None and declaration.by_register
    with warnings.catch_warnings(), lanes_at_once(REGISTER if narrow else LANES):
        warnings.simplefilter("error", numba.NumbaWarning)
        compiled = numba.cfunc(signature(function), **_OPTIONS)(function)
    module = llvm.parse_assembly(compiled.inspect_llvm())
    module.data_layout = str(target.target_data)
    for own in (*module.functions, *module.global_variables):
        if own.name == compiled.native_name:
            own.name = symbol(function)
        elif not own.is_declaration:
            own.linkage = llvm.Linkage.internal
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(target, tuning)
    builder.getModulePassManager().run(module, builder)
    code: bytes = module.as_bitcode()
    return code


@functools.cache
def _register_helpers() -> None:
    for helper in (*HELPERS, loop.finite_loss):
        register_jitable(forceinline=True, no_cfunc_wrapper=True, **_OPTIONS)(helper)


def serve() -> None:
    """Answer numbers of functions, a line each, with a line of how many bytes and the bitcode."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # where anything else is printed
    gc.disable()  # most of what is made here is kept
    target = target_machine()
    for line in sys.stdin:
        code = bitcode(FUNCTIONS[int(line)], target)
        answers.write(b"%d\n" % len(code) + code)
        answers.flush()
