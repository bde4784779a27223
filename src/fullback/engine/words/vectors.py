"""The words for vectors, in LLVM."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fullback.engine import simd
from fullback.engine.simd import LANES
from fullback.engine.words.kinds import (
    F32,
    F64,
    FLAGS,
    I32,
    I64,
    MaskType,
    V,
    VectorType,
    at_once,
    integer,
    mask,
    memory,
    real,
    typed,
    vector,
    wholes,
    word,
)
from fullback.layers.dropout import GOLDEN


def const(value: int) -> Any:
    """Return an integer of 64 bits."""
    return ir.Constant(I64, value)


def pointer_to(b: Any, a: Any, i: Any) -> Any:
    """Return the address of the float at place i of memory."""
    return b.gep(a, [i], source_etype=F32)


def load_at(b: Any, a: Any, i: Any, kind: Any = V, align: int = 4) -> Any:
    """Return the vector at place i of memory."""
    pointer = b.bitcast(pointer_to(b, a, i), ir.PointerType(kind))
    return b.load(pointer, align=align, typ=kind)


def store_at(b: Any, a: Any, i: Any, value: Any) -> None:
    """Write a vector to place i of memory."""
    b.store(value, b.bitcast(pointer_to(b, a, i), ir.PointerType(value.type)), align=4)


def splat_value(b: Any, value: Any, lanes: int = LANES) -> Any:
    """Return a number in every lane."""
    kind = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return b.shuffle_vector(first, undefined, zeros)


def broadcast_at(b: Any, a: Any, i: Any, kind: Any = V) -> Any:
    """Return the float at place i of memory in every lane."""
    return splat_value(b, b.load(pointer_to(b, a, i), typ=F32), kind.count)


def intrinsic(b: Any, name: str, result: Any, *values: Any) -> Any:
    """Call one of LLVM's functions, by its name."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), values)


def multiply_add(b: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x y + z, rounded once where the CPU can do that in one instruction."""
    return intrinsic(b, f"llvm.fmuladd.v{x.type.count}f32", x.type, x, y, z)


def vector_of(kind: Any, values: Any) -> Any:
    """Return a vector of constants."""
    return ir.Constant(ir.VectorType(kind, LANES), values)


def shuffled(b: Any, x: Any, y: Any, places: list[int]) -> Any:
    """Return lanes of x, and, from 16 on, of y."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(places)), places))


def zero_of(kind: Any) -> Any:
    """Return a vector of zeros."""
    return ir.Constant(kind, [0.0] * kind.count)


def _some_lanes(*_: Any) -> Any:
    return VectorType(at_once())


def _same(first: Any, *others: Any) -> Any:
    """Return the type of what is computed lane by lane, of vectors of the same lanes."""
    return first if all(own.lanes == first.lanes for own in others) else None


def _mask_of(first: Any, *others: Any) -> Any:
    return MaskType(first.lanes) if _same(first, *others) else None


# Memory ------------------------------------------------------------------------------------------

word(simd.at, memory, memory, integer)(pointer_to)


@word(simd.row, wholes, wholes, integer)
def _row(b: Any, table: Any, i: Any) -> Any:
    return b.gep(table, [i], source_etype=I64)


@word(simd.load, _some_lanes, memory, integer)
@typed
def _load(b: Any, signature: Any, a: Any, i: Any) -> Any:
    return load_at(b, a, i, ir.VectorType(F32, signature.return_type.lanes))


word(simd.store, types.void, memory, integer, VectorType)(store_at)
word(simd.broadcast, vector, memory, integer)(broadcast_at)


@word(simd.splat, _some_lanes, real)
@typed
def _splat(b: Any, signature: Any, number: Any) -> Any:
    return splat_value(b, number, signature.return_type.lanes)


@word(simd.splat, _some_lanes, integer)
@typed
def _splat_integer(b: Any, signature: Any, number: Any) -> Any:
    return splat_value(b, b.sitofp(number, F32), signature.return_type.lanes)


@word(simd.store_part, types.void, memory, integer, vector, integer)
def _store_part(b: Any, a: Any, i: Any, v: Any, count: Any) -> None:
    pointer = b.bitcast(pointer_to(b, a, i), ir.PointerType(V))
    below = _lanes_below(b, count, LANES)
    kind = ir.FunctionType(ir.VoidType(), [V, pointer.type, I32, below.type])
    name = f"llvm.masked.store.v{LANES}f32.p0"
    function = cgutils.get_or_insert_function(b.module, kind, name)
    b.call(function, [v, pointer, ir.Constant(I32, 4), below])


for _function, _kind, _element in (
    (simd.integers, types.int64, I64),
    (simd.doubles, types.float64, F64),
    (simd.floats, types.float32, F32),
):

    def _pointer(b: Any, address: Any, element: Any = _element) -> Any:
        return b.inttoptr(address, ir.PointerType(element))

    word(_function, types.CPointer(_kind), integer)(_pointer)

# Integers ----------------------------------------------------------------------------------------


@word(simd.smaller, types.int64, integer, integer)
def _smaller(b: Any, i: Any, j: Any) -> Any:
    return b.select(b.icmp_signed("<", i, j), i, j)


@word(simd.larger, types.int64, integer, integer)
def _larger(b: Any, i: Any, j: Any) -> Any:
    return b.select(b.icmp_signed(">", i, j), i, j)


# Arithmetic --------------------------------------------------------------------------------------

for _operator, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):

    def _binary(b: Any, x: Any, y: Any, name: str = _name) -> Any:
        return getattr(b, name)(x, y, flags=FLAGS)

    word(_operator, _same, VectorType, VectorType)(_binary)

for _operator, _name in (
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.eq, "=="),
):

    def _compare(b: Any, x: Any, y: Any, name: str = _name) -> Any:
        return b.fcmp_ordered(name, x, y)

    word(_operator, _mask_of, VectorType, VectorType)(_compare)

word(operator.and_, _same, MaskType, MaskType)(lambda b, x, y: b.and_(x, y))
word(operator.or_, _same, MaskType, MaskType)(lambda b, x, y: b.or_(x, y))
word(operator.invert, _same, MaskType)(lambda b, x: b.not_(x))
word(simd.fma, _same, VectorType, VectorType, VectorType)(multiply_add)
word(simd.either_nan, _mask_of, VectorType, VectorType)(
    lambda b, x, y: b.fcmp_unordered("uno", x, y)
)


@word(simd.select, lambda m, x, y: _same(x, y, m), MaskType, VectorType, VectorType)
def _select(b: Any, m: Any, x: Any, y: Any) -> Any:
    return b.select(m, x, y)


@word(simd.rectify, _same, VectorType)
def rectified(b: Any, v: Any) -> Any:
    """Return max(v, 0), and NaN where v is NaN."""
    zero = zero_of(v.type)
    return b.select(b.fcmp_ordered("<", v, zero), zero, v)


@word(simd.first_lanes, lambda _: MaskType(at_once()), integer)
@typed
def _first_lanes(b: Any, signature: Any, count: Any) -> Any:
    return _lanes_below(b, count, signature.return_type.lanes)


def _lanes_below(b: Any, count: Any, lanes: int) -> Any:
    numbers = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    return b.icmp_signed("<", numbers, splat_value(b, count, lanes))


@word(simd.lane, types.float32, vector, integer)
def _lane(b: Any, v: Any, i: Any) -> Any:
    return b.extract_element(v, i)


@word(simd.sum_lanes, types.float32, VectorType)
def lane_sum(b: Any, v: Any) -> Any:
    """Return the sum of all lanes, added up in pairs."""
    n = v.type.count
    while n > 1:
        n //= 2
        v = b.fadd(shuffled(b, v, v, list(range(n))), shuffled(b, v, v, list(range(n, 2 * n))))
    return b.extract_element(v, ir.Constant(I32, 0))


word(simd.root, vector, vector)(lambda b, v: intrinsic(b, f"llvm.sqrt.v{LANES}f32", V, v))


@word(simd.nearest, vector, vector)
def _nearest(b: Any, v: Any) -> Any:
    """Push what follows the point out of the mantissa; not every CPU has an instruction for it.

    Numba gives FLAGS to what has no flag, and ``reassoc`` would take the two steps for none.
    """
    shift = vector_of(F32, [1.5 * 2**23] * LANES)
    return b.fsub(b.fadd(v, shift, flags=("nsz",)), shift, flags=("nsz",))


@word(simd.whole, vector, vector)
def _whole(b: Any, v: Any) -> Any:
    """Cut off what follows the point; below zero, that can be one too many."""
    cut = b.sitofp(b.fptosi(v, ir.VectorType(I32, LANES)), V)
    one = vector_of(F32, [1.0] * LANES)
    return b.select(b.fcmp_ordered(">", cut, v), b.fsub(cut, one, flags=FLAGS), cut)


@word(simd.times_power, vector, vector, vector)
def _times_power(b: Any, v: Any, n: Any) -> Any:
    kind = ir.VectorType(I32, LANES)
    shifted = b.shl(b.fptosi(n, kind), vector_of(I32, [23] * LANES))
    return b.bitcast(b.add(b.bitcast(v, kind), shifted), V)


@word(simd.exponent, vector, vector)
def _exponent(b: Any, v: Any) -> Any:
    bits = b.bitcast(v, ir.VectorType(I32, LANES))
    biased = b.ashr(bits, vector_of(I32, [23] * LANES))
    return b.sitofp(b.sub(biased, vector_of(I32, [127] * LANES)), V)


@word(simd.mantissa, vector, vector)
def _mantissa(b: Any, v: Any) -> Any:
    bits = b.bitcast(v, ir.VectorType(I32, LANES))
    fraction = b.and_(bits, vector_of(I32, [0x7FFFFF] * LANES))
    return b.bitcast(b.or_(fraction, vector_of(I32, [0x3F800000] * LANES)), V)


def _eachwise(value: Any) -> Any:
    return vector_of(I64, [int(value)] * LANES)


def _split_mix(b: Any, z: Any) -> Any:
    """See ``layers/dropout.py``."""
    z = b.mul(b.xor(z, b.lshr(z, _eachwise(30))), _eachwise(0xBF58476D1CE4E5B9))
    z = b.mul(b.xor(z, b.lshr(z, _eachwise(27))), _eachwise(0x94D049BB133111EB))
    return b.xor(z, b.lshr(z, _eachwise(31)))


@word(simd.stays, mask, integer, integer, integer, integer)
def _stays(b: Any, key: Any, first: Any, step: Any, threshold: Any) -> Any:
    lanes = b.mul(splat_value(b, step), vector_of(I64, list(range(LANES))))
    number = b.add(splat_value(b, b.add(first, const(1))), lanes)
    z = _split_mix(b, b.add(b.mul(number, _eachwise(GOLDEN)), splat_value(b, key)))
    return b.icmp_unsigned(">=", b.lshr(z, _eachwise(11)), splat_value(b, threshold))


@word(simd.draw, vector, wholes, integer)
def _draw(b: Any, keys: Any, number: Any) -> Any:
    kind = ir.VectorType(I64, LANES)
    own = b.load(b.bitcast(keys, ir.PointerType(kind)), align=8, typ=kind)
    added = b.mul(b.add(number, const(1)), const(int(GOLDEN)))
    z = _split_mix(b, b.add(own, splat_value(b, added)))
    upper = b.trunc(b.lshr(z, _eachwise(40)), ir.VectorType(I32, LANES))
    return b.fmul(b.sitofp(upper, V), vector_of(F32, [2.0**-24] * LANES))


# Across lanes ------------------------------------------------------------------------------------


@word(simd.pick, vector, memory, integer, vector, vector, integer)
def _pick(b: Any, a: Any, i: Any, rows: Any, columns: Any, pitch: Any) -> Any:
    kind = ir.VectorType(I32, LANES)
    down = b.mul(b.fptosi(rows, kind), splat_value(b, b.trunc(pitch, I32)))
    right = b.mul(b.fptosi(columns, kind), vector_of(I32, [LANES] * LANES))
    places = b.add(b.add(down, right), vector_of(I32, list(range(LANES))))
    start, made = pointer_to(b, a, i), ir.Constant(V, ir.Undefined)
    for n in range(LANES):
        lane = ir.Constant(I32, n)
        place = b.sext(b.extract_element(places, lane), I64)
        made = b.insert_element(made, b.load(pointer_to(b, start, place), typ=F32), lane)
    return made


@word(simd.turned, vector, vector)
def _turned(b: Any, v: Any) -> Any:
    return shuffled(b, v, v, [(n + 1) % LANES for n in range(LANES)])


# What the program for one image needs, and what it has in common with that for sixteen ------------


@word(simd.load_bytes, vector, integer, integer)
def _load_bytes(b: Any, address: Any, i: Any) -> Any:
    wide = ir.VectorType(ir.IntType(8), LANES)
    pointer = b.inttoptr(b.add(address, i), ir.PointerType(wide))
    return b.uitofp(b.load(pointer, align=1, typ=wide), V)


word(simd.plus, vector, vector, vector)(lambda b, x, y: b.fadd(x, y, flags=("nsz",)))
word(simd.over, vector, vector, vector)(lambda b, x, y: b.fdiv(x, y, flags=("nsz",)))
