"""Compiles the kernels and the machine to one object file. Needs Numba, which nothing else does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types
from numba.extending import register_jitable

from fullback.engine import loop
from fullback.engine.kernels import HELPERS, KERNELS
from fullback.engine.library import ENTRY, symbol
from fullback.engine.vectors import FLAGS, memory, wholes

_OPTIONS: dict[str, Any] = {"fastmath": set(FLAGS), "error_model": "numpy", "boundscheck": False}
_KERNEL = types.void(memory, memory, wholes, wholes, types.int64, types.int64)
_RUN = types.void(
    wholes, wholes, wholes, memory, memory, wholes, types.int64, types.int64
)  # kernels, code, phases, a, s, c, worker, workers

KNOWN_SYMBOLS = {"fullback_yield", "memset", "memcpy", "memmove"}
"""What compiled code may call from outside."""


def compile_object(
    target: llvm.TargetMachine, progress: Callable[[str], None] = lambda _: None
) -> bytes:
    """Compile everything, calling ``progress`` with the name of what comes next."""
    for helper in (*HELPERS, loop.finite_loss):
        register_jitable(forceinline=True, **_OPTIONS)(helper)
    module = llvm.parse_assembly("")
    module.triple = llvm.get_process_triple()
    functions = [(kernel, _KERNEL, symbol(kernel)) for kernel in KERNELS]
    for function, signature, name in (*functions, (loop.run, _RUN, ENTRY)):
        progress(function.__name__)
        module.link_in(_compiled(function, signature, name))
    module.verify()
    code: bytes = target.emit_object(module)
    return code


def _compiled(function: Callable[..., Any], signature: Any, name: str) -> llvm.ModuleRef:
    with warnings.catch_warnings():
        warnings.simplefilter("error", numba.NumbaWarning)
        compiled = numba.cfunc(signature, **_OPTIONS)(function)
    module = llvm.parse_assembly(compiled.inspect_llvm())
    for entry in module.functions:
        if entry.name == compiled.native_name:
            entry.name = name
        elif not entry.is_declaration:
            entry.linkage = llvm.Linkage.internal
    return module
