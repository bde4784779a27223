"""What the loop says in LLVM, and how the operands of a kernel are read by their names."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import models, register_model

from fullback.engine import simd
from fullback.engine.operands import Declaration, Field
from fullback.engine.words.kinds import (
    F32,
    I8,
    I32,
    I64,
    integer,
    memory,
    wholes,
    word,
)
from fullback.engine.words.vectors import (
    const,
    intrinsic,
)

# Operands ----------------------------------------------------------------------------------------


class OperandsType(types.Type):
    """A row of integers, read by the names that a kernel has declared."""

    def __init__(self, kernel: str, declaration: Declaration) -> None:
        self.fields = declaration.fields
        super().__init__(name=f"Of({kernel})")  # short, as it is in the name of every helper


@register_model(OperandsType)
class _OperandsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.PointerType(I64))


def _operand_type(field: Field) -> Any:
    if field.kind is None:
        return types.int64
    return types.NamedUniTuple(types.int64, field.size, field.kind)


@infer_getattr
class _OperandsAttributes(AttributeTemplate):
    key = OperandsType

    def generic_resolve(self, operands: Any, name: str) -> Any:  # type: ignore[override]
        return _operand_type(operands.fields[name]) if name in operands.fields else None


@lower_getattr_generic(OperandsType)  # type: ignore[untyped-decorator]
def _operand(context: Any, b: Any, kind: Any, row: Any, name: str) -> Any:
    field = kind.fields[name]
    places = range(field.start, field.start + field.size)
    whole = [b.load(b.gep(row, [const(n)], source_etype=I64), typ=I64) for n in places]
    return context.make_tuple(b, _operand_type(field), whole) if field.kind else whole[0]


# The machine -------------------------------------------------------------------------------------

KERNEL = ir.FunctionType(
    ir.VoidType(),
    [ir.PointerType(F32), ir.PointerType(F32), ir.PointerType(I64), ir.PointerType(I64), I64, I64],
)


@word(simd.call, types.void, wholes, integer, memory, memory, wholes, wholes, integer, integer)
def _call(b: Any, table: Any, number: Any, a: Any, s: Any, c: Any, k: Any, i: Any, j: Any) -> None:
    address = b.load(b.gep(table, [number], source_etype=I64), typ=I64)
    b.call(b.inttoptr(address, ir.PointerType(KERNEL)), [a, s, c, k, i, j])


SPINS, SPINS_WITH_PAUSE = 2000, 50
"""Looks at the others, a few microseconds, before a waiting thread yields its core."""


@word(simd.meet, types.void, wholes, integer)
def _meet(b: Any, sync: Any, workers: Any) -> None:
    arrived = sync
    round_ = b.gep(sync, [const(16)], source_etype=I64)  # on a cache line of its own
    now = b.load_atomic(round_, "acquire", 8, typ=I64)
    before = b.atomic_rmw("add", arrived, const(1), "acq_rel")
    with b.if_else(b.icmp_signed("==", b.add(before, const(1)), workers)) as (last, others):
        with last:
            b.store_atomic(const(0), arrived, "monotonic", 8)
            b.store_atomic(b.add(now, const(1)), round_, "release", 8)
        with others:
            spins = cgutils.alloca_once_value(b, const(0))
            look, done = b.append_basic_block("look"), b.append_basic_block("done")
            b.branch(look)
            b.position_at_end(look)
            same = b.icmp_signed("==", b.load_atomic(round_, "acquire", 8, typ=I64), now)
            wait = b.append_basic_block("wait")
            b.cbranch(same, wait, done)
            b.position_at_end(wait)
            count = b.add(b.load(spins, typ=I64), const(1))
            b.store(count, spins)
            if _is_x86(b):  # the core's other thread, if it has one, gets on faster
                intrinsic(b, "llvm.x86.sse2.pause", ir.VoidType())
            most = SPINS_WITH_PAUSE if _is_x86(b) else SPINS
            with b.if_then(b.icmp_signed(">", count, const(most))):
                kind = ir.FunctionType(I32, [])
                b.call(cgutils.get_or_insert_function(b.module, kind, "fullback_yield"), [])
            b.branch(look)
            b.position_at_end(done)


def _is_x86(b: Any) -> bool:
    return str(b.module.triple).startswith(("x86_64", "i686", "i386"))


@word(simd.flush_denormals, types.int64)
def _flush_denormals(b: Any) -> Any:
    if _is_x86(b):
        place = cgutils.alloca_once(b, I32)
        pointer = b.bitcast(place, I8.as_pointer())
        intrinsic(b, "llvm.x86.sse.stmxcsr", ir.VoidType(), pointer)
        old = b.load(place, typ=I32)
        b.store(b.or_(old, ir.Constant(I32, 0x8040)), place)
        intrinsic(b, "llvm.x86.sse.ldmxcsr", ir.VoidType(), pointer)
        return b.zext(old, I64)
    if str(b.module.triple).startswith(("aarch64", "arm64")):
        old = intrinsic(b, "llvm.aarch64.get.fpcr", I64)
        intrinsic(b, "llvm.aarch64.set.fpcr", ir.VoidType(), b.or_(old, const(1 << 24)))
        return old
    return const(0)


@word(simd.restore_denormals, types.void, integer)
def _restore_denormals(b: Any, mode: Any) -> None:
    if _is_x86(b):
        place = cgutils.alloca_once_value(b, b.trunc(mode, I32))
        intrinsic(b, "llvm.x86.sse.ldmxcsr", ir.VoidType(), b.bitcast(place, I8.as_pointer()))
    elif str(b.module.triple).startswith(("aarch64", "arm64")):
        intrinsic(b, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)
