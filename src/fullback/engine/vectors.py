"""The words of ``simd.py`` in LLVM, for Numba. Imported only where kernels are compiled."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import lower_builtin, models, register_model, type_callable

from fullback.engine import simd
from fullback.engine.operands import Declaration, Field
from fullback.engine.simd import LANES
from fullback.layers.dropout import GOLDEN

F32, F64 = ir.FloatType(), ir.DoubleType()
I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
V = ir.VectorType(F32, LANES)
FLAGS = ("nsz", "arcp", "contract", "afn", "reassoc")
"""Of fast mathematics, what leaves NaN and infinity alone."""

memory = types.CPointer(types.float32)
wholes = types.CPointer(types.int64)


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Vector")


class _MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Mask")


class TileType(types.Type):
    """F x P vectors: to LLVM an array of vectors, which it keeps in registers."""

    def __init__(self, f: int, p: int) -> None:
        self.f, self.p = f, p
        super().__init__(name=f"Tile({f}, {p})")


vector, mask = _VectorType(), _MaskType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, V)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(I1, LANES))


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(V, kind.f * kind.p))


# How a word is given its type and its code --------------------------------------------------------

integer, real = types.Integer, types.Float
_PROMOTED = {types.Integer: types.int64, types.Float: types.float32, types.Boolean: types.boolean}


def _word(function: Any, result: Any, *arguments: Any) -> Callable[[Any], Any]:
    """Register the code of a word: ``code(builder, *arguments)``, given as LLVM values.

    ``result`` is a type, or a function from the argument types to it. Integers come as i64.
    """

    def register(code: Any) -> Any:
        def typing(_context: Any) -> Any:
            def typer(*given: Any) -> Any:
                if len(given) != len(arguments):
                    return None
                for own, wanted in zip(given, arguments, strict=True):
                    if not (isinstance(own, wanted) if isinstance(wanted, type) else own == wanted):
                        return None
                return result(*given) if callable(result) else result

            return _with_arity(typer, len(arguments))

        type_callable(function)(typing)

        def lowering(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            cast = []
            for value, own, wanted in zip(values, signature.args, arguments, strict=True):
                to = _PROMOTED.get(wanted)
                cast.append(value if to is None else context.cast(builder, value, own, to))
            if getattr(code, "typed", False):
                return code(builder, signature, *cast)
            made = code(builder, *cast)
            return context.get_dummy_value() if made is None else made

        lower_builtin(function, *arguments)(lowering)
        return code

    return register


def _with_arity(function: Any, count: int) -> Any:
    """Give a function of *arguments a plain signature, which Numba reads."""
    names = ", ".join(f"x{n}" for n in range(count))
    scope = {"function": function}
    exec(f"def typer({names}):\n    return function({names})", scope)  # noqa: S102
    return scope["typer"]


def _typed(code: Any) -> Any:
    """Mark code that wants to see the types: ``code(builder, signature, *arguments)``."""
    code.typed = True
    return code


def _shape(index_f: int, index_p: int) -> Callable[..., Any]:
    """Return a typer that reads a tile's shape from two literal arguments."""

    def result(*given: Any) -> Any:
        f, p = given[index_f], given[index_p]
        if isinstance(f, types.IntegerLiteral) and isinstance(p, types.IntegerLiteral):
            return TileType(f.literal_value, p.literal_value)
        return None

    return result


def _const(value: int) -> Any:
    return ir.Constant(I64, value)


def _place(b: Any, a: Any, i: Any) -> Any:
    return b.gep(a, [i], source_etype=F32)


def _load(b: Any, a: Any, i: Any, kind: Any = V, align: int = 4) -> Any:
    pointer = b.bitcast(_place(b, a, i), ir.PointerType(kind))
    return b.load(pointer, align=align, typ=kind)


def _store(b: Any, a: Any, i: Any, value: Any) -> None:
    b.store(value, b.bitcast(_place(b, a, i), ir.PointerType(value.type)), align=4)


def _splat(b: Any, value: Any) -> Any:
    kind = ir.VectorType(value.type, LANES)
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    return b.shuffle_vector(first, undefined, zeros)


def _broadcast(b: Any, a: Any, i: Any) -> Any:
    return _splat(b, b.load(_place(b, a, i), typ=F32))


def _intrinsic(b: Any, name: str, result: Any, *values: Any) -> Any:
    kind = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), values)


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x y + z, rounded once where the CPU can do that in one instruction."""
    return _intrinsic(b, f"llvm.fmuladd.v{LANES}f32", V, x, y, z)


def _vector_of(kind: Any, values: Any) -> Any:
    return ir.Constant(ir.VectorType(kind, LANES), values)


def _shuffle(b: Any, x: Any, y: Any, places: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(places)), places))


ZERO = ir.Constant(V, [0.0] * LANES)

# Memory ------------------------------------------------------------------------------------------

_word(simd.at, memory, memory, integer)(_place)


@_word(simd.row, wholes, wholes, integer)
def _row(b: Any, table: Any, i: Any) -> Any:
    return b.gep(table, [i], source_etype=I64)


_word(simd.load, vector, memory, integer)(_load)
_word(simd.store, types.void, memory, integer, vector)(_store)
_word(simd.broadcast, vector, memory, integer)(_broadcast)
_word(simd.splat, vector, real)(_splat)
_word(simd.splat, vector, integer)(lambda b, n: _splat(b, b.sitofp(n, F32)))


@_word(simd.store_part, types.void, memory, integer, vector, integer)
def _store_part(b: Any, a: Any, i: Any, v: Any, count: Any) -> None:
    pointer = b.bitcast(_place(b, a, i), ir.PointerType(V))
    below = _first_lanes(b, count)
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

    _word(_function, types.CPointer(_kind), integer)(_pointer)

# Integers ----------------------------------------------------------------------------------------


@_word(simd.smaller, types.int64, integer, integer)
def _smaller(b: Any, i: Any, j: Any) -> Any:
    return b.select(b.icmp_signed("<", i, j), i, j)


@_word(simd.larger, types.int64, integer, integer)
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

    _word(_operator, vector, vector, vector)(_binary)

for _operator, _name in (
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.eq, "=="),
):

    def _compare(b: Any, x: Any, y: Any, name: str = _name) -> Any:
        return b.fcmp_ordered(name, x, y)

    _word(_operator, mask, vector, vector)(_compare)

_word(operator.and_, mask, mask, mask)(lambda b, x, y: b.and_(x, y))
_word(operator.or_, mask, mask, mask)(lambda b, x, y: b.or_(x, y))
_word(operator.invert, mask, mask)(lambda b, x: b.not_(x))
_word(simd.fma, vector, vector, vector, vector)(_fma)
_word(simd.select, vector, mask, vector, vector)(lambda b, m, x, y: b.select(m, x, y))
_word(simd.either_nan, mask, vector, vector)(lambda b, x, y: b.fcmp_unordered("uno", x, y))


@_word(simd.rectify, vector, vector)
def _rectify(b: Any, v: Any) -> Any:
    return b.select(b.fcmp_ordered("<", v, ZERO), ZERO, v)


@_word(simd.first_lanes, mask, integer)
def _first_lanes(b: Any, count: Any) -> Any:
    return b.icmp_signed("<", _vector_of(I64, list(range(LANES))), _splat(b, count))


@_word(simd.lane, types.float32, vector, integer)
def _lane(b: Any, v: Any, i: Any) -> Any:
    return b.extract_element(v, i)


@_word(simd.sum_lanes, types.float32, vector)
def _sum_lanes(b: Any, v: Any) -> Any:
    n = LANES
    while n > 1:
        n //= 2
        v = b.fadd(_shuffle(b, v, v, list(range(n))), _shuffle(b, v, v, list(range(n, 2 * n))))
    return b.extract_element(v, ir.Constant(I32, 0))


_word(simd.root, vector, vector)(lambda b, v: _intrinsic(b, f"llvm.sqrt.v{LANES}f32", V, v))


@_word(simd.nearest, vector, vector)
def _nearest(b: Any, v: Any) -> Any:
    """Push what follows the point out of the mantissa; not every CPU has an instruction for it.

    Numba gives FLAGS to what has no flag, and ``reassoc`` would take the two steps for none.
    """
    shift = _vector_of(F32, [1.5 * 2**23] * LANES)
    return b.fsub(b.fadd(v, shift, flags=("nsz",)), shift, flags=("nsz",))


@_word(simd.whole, vector, vector)
def _whole(b: Any, v: Any) -> Any:
    """Cut off what follows the point; below zero, that can be one too many."""
    cut = b.sitofp(b.fptosi(v, ir.VectorType(I32, LANES)), V)
    one = _vector_of(F32, [1.0] * LANES)
    return b.select(b.fcmp_ordered(">", cut, v), b.fsub(cut, one, flags=FLAGS), cut)


@_word(simd.times_power, vector, vector, vector)
def _times_power(b: Any, v: Any, n: Any) -> Any:
    kind = ir.VectorType(I32, LANES)
    shifted = b.shl(b.fptosi(n, kind), _vector_of(I32, [23] * LANES))
    return b.bitcast(b.add(b.bitcast(v, kind), shifted), V)


@_word(simd.exponent, vector, vector)
def _exponent(b: Any, v: Any) -> Any:
    bits = b.bitcast(v, ir.VectorType(I32, LANES))
    biased = b.ashr(bits, _vector_of(I32, [23] * LANES))
    return b.sitofp(b.sub(biased, _vector_of(I32, [127] * LANES)), V)


@_word(simd.mantissa, vector, vector)
def _mantissa(b: Any, v: Any) -> Any:
    bits = b.bitcast(v, ir.VectorType(I32, LANES))
    fraction = b.and_(bits, _vector_of(I32, [0x7FFFFF] * LANES))
    return b.bitcast(b.or_(fraction, _vector_of(I32, [0x3F800000] * LANES)), V)


def _eachwise(value: Any) -> Any:
    return _vector_of(I64, [int(value)] * LANES)


def _split_mix(b: Any, z: Any) -> Any:
    """See ``layers/dropout.py``."""
    z = b.mul(b.xor(z, b.lshr(z, _eachwise(30))), _eachwise(0xBF58476D1CE4E5B9))
    z = b.mul(b.xor(z, b.lshr(z, _eachwise(27))), _eachwise(0x94D049BB133111EB))
    return b.xor(z, b.lshr(z, _eachwise(31)))


@_word(simd.stays, mask, integer, integer, integer, integer)
def _stays(b: Any, key: Any, first: Any, step: Any, threshold: Any) -> Any:
    lanes = b.mul(_splat(b, step), _vector_of(I64, list(range(LANES))))
    number = b.add(_splat(b, b.add(first, _const(1))), lanes)
    z = _split_mix(b, b.add(b.mul(number, _eachwise(GOLDEN)), _splat(b, key)))
    return b.icmp_unsigned(">=", b.lshr(z, _eachwise(11)), _splat(b, threshold))


@_word(simd.draw, vector, wholes, integer)
def _draw(b: Any, keys: Any, number: Any) -> Any:
    kind = ir.VectorType(I64, LANES)
    own = b.load(b.bitcast(keys, ir.PointerType(kind)), align=8, typ=kind)
    added = b.mul(b.add(number, _const(1)), _const(int(GOLDEN)))
    z = _split_mix(b, b.add(own, _splat(b, added)))
    upper = b.trunc(b.lshr(z, _eachwise(40)), ir.VectorType(I32, LANES))
    return b.fmul(b.sitofp(upper, V), _vector_of(F32, [2.0**-24] * LANES))


# Across lanes ------------------------------------------------------------------------------------


@_word(simd.pick, vector, memory, integer, vector, vector, integer)
def _pick(b: Any, a: Any, i: Any, rows: Any, columns: Any, pitch: Any) -> Any:
    kind = ir.VectorType(I32, LANES)
    down = b.mul(b.fptosi(rows, kind), _splat(b, b.trunc(pitch, I32)))
    right = b.mul(b.fptosi(columns, kind), _vector_of(I32, [LANES] * LANES))
    places = b.add(b.add(down, right), _vector_of(I32, list(range(LANES))))
    start, made = _place(b, a, i), ir.Constant(V, ir.Undefined)
    for n in range(LANES):
        lane = ir.Constant(I32, n)
        place = b.sext(b.extract_element(places, lane), I64)
        made = b.insert_element(made, b.load(_place(b, start, place), typ=F32), lane)
    return made


@_word(simd.turned, vector, vector)
def _turned(b: Any, v: Any) -> Any:
    return _shuffle(b, v, v, [(n + 1) % LANES for n in range(LANES)])


# Tiles -------------------------------------------------------------------------------------------


def _cells(b: Any, tile: Any) -> list[Any]:
    return [b.extract_value(tile, n) for n in range(tile.type.count)]


def _tile(b: Any, cells: list[Any]) -> Any:
    made = ir.Constant(ir.ArrayType(V, len(cells)), ir.Undefined)
    for n, value in enumerate(cells):
        made = b.insert_value(made, value, n)
    return made


def _step(b: Any, start: Any, count: int, step: Any) -> Any:
    """Return ``start + count * step``."""
    return b.add(start, b.mul(_const(count), step)) if count else start


@_word(simd.zeros, _shape(0, 1), integer, integer)
@_typed
def _zeros(b: Any, signature: Any, f: Any, p: Any) -> Any:
    kind = signature.return_type
    return _tile(b, [ZERO] * (kind.f * kind.p))


def _same(tile: Any, *_: Any) -> Any:
    return tile


@_word(simd.biases, _same, TileType, memory, integer)
@_typed
def _biases(b: Any, signature: Any, tile: Any, a: Any, i: Any) -> Any:
    kind, outside = signature.return_type, b.block
    with b.if_then(b.icmp_signed(">=", i, _const(0))):
        there = [b.load(_place(b, a, _step(b, i, n, _const(1))), typ=F32) for n in range(kind.f)]
        inside = b.block
    rows = []
    for value in there:
        number = b.phi(F32)
        number.add_incoming(value, inside)
        number.add_incoming(ir.Constant(F32, 0.0), outside)
        rows.append(number)
    vectors = [_splat(b, number) for number in rows]
    return _tile(b, [v for v in vectors for _ in range(kind.p)])


@_word(simd.rows_of, types.int64, TileType)
@_typed
def _rows_of(b: Any, signature: Any, tile: Any) -> Any:
    return _const(signature.args[0].f)


for _products_of, _left in ((simd.outer, _broadcast), (simd.pairs, _load)):

    @_word(_products_of, _same, TileType, memory, integer, integer, memory, integer, integer)
    @_typed
    def _products(
        b: Any,
        signature: Any,
        tile: Any,
        w: Any,
        i: Any,
        w_step: Any,
        x: Any,
        j: Any,
        x_step: Any,
        left: Any = _left,
    ) -> Any:
        kind, made = signature.return_type, _cells(b, tile)
        vectors = [_load(b, x, _step(b, j, p, x_step)) for p in range(kind.p)]
        for f in range(kind.f):
            own = left(b, w, _step(b, i, f, w_step))
            for p, v in enumerate(vectors):
                made[f * kind.p + p] = _fma(b, own, v, made[f * kind.p + p])
        return _tile(b, made)


@_word(simd.slide, _same, TileType, memory, integer, memory, integer, integer)
@_typed
def _slide(b: Any, signature: Any, tile: Any, w: Any, i: Any, x: Any, j: Any, pitch: Any) -> Any:
    filters, cells = signature.return_type.f, _cells(b, tile)
    patch = []
    for r in range(4):
        start = _step(b, j, r, pitch)
        patch.append([_load(b, x, b.add(start, _const(s * LANES))) for s in range(4)])
    for r in range(3):
        for s in range(3):
            for f in range(filters):
                weight = _broadcast(b, w, b.add(i, _const((3 * r + s) * filters + f)))
                for p in range(2):
                    for q in range(2):
                        n = 4 * f + 2 * p + q
                        cells[n] = _fma(b, weight, patch[p + r][q + s], cells[n])
    return _tile(b, cells)


@_word(simd.slide_back, _same, TileType, types.UniTuple(vector, 4), memory, integer, integer)
@_typed
def _slide_back(b: Any, signature: Any, tile: Any, v: Any, x: Any, j: Any, pitch: Any) -> Any:
    cells = _cells(b, tile)
    deltas = [b.extract_value(v, n) for n in range(4)]
    patch = []
    for r in range(4):
        start = _step(b, j, r, pitch)
        patch.append([_load(b, x, b.add(start, _const(s * LANES))) for s in range(4)])
    for n, delta in enumerate(deltas):
        for r in range(3):
            for s in range(3):
                met = patch[n // 2 + r][n % 2 + s]
                cells[3 * r + s] = _fma(b, delta, met, cells[3 * r + s])
    return _tile(b, cells)


@_word(simd.rectify_tile, _same, TileType)
def _rectify_tile(b: Any, tile: Any) -> Any:
    return _tile(b, [_rectify(b, v) for v in _cells(b, tile)])


def _cells_type(tile: Any, f: Any) -> Any:
    return types.UniTuple(vector, tile.p) if isinstance(f, types.IntegerLiteral) else None


@_word(simd.cells, _cells_type, TileType, integer)
@_typed
def _cells_of_row(b: Any, signature: Any, tile: Any, _f: Any) -> Any:
    kind, row = signature.args
    return _tile(b, _cells(b, tile)[row.literal_value * kind.p :][: kind.p])


@_word(simd.load_tile, _shape(0, 1), integer, integer, memory, integer, integer, integer)
@_typed
def _load_tile(
    b: Any, signature: Any, f: Any, p: Any, a: Any, i: Any, f_step: Any, p_step: Any
) -> Any:
    kind = signature.return_type
    return _tile(
        b,
        [
            _load(b, a, _step(b, _step(b, i, f, f_step), p, p_step))
            for f in range(kind.f)
            for p in range(kind.p)
        ],
    )


@_word(simd.store_tile, types.void, memory, integer, integer, integer, TileType)
@_typed
def _store_tile(b: Any, signature: Any, a: Any, i: Any, f_step: Any, p_step: Any, tile: Any) -> Any:
    kind = signature.args[4]
    for n, v in enumerate(_cells(b, tile)):
        f, p = divmod(n, kind.p)
        _store(b, a, _step(b, _step(b, i, f, f_step), p, p_step), v)
    return ir.Constant(I8.as_pointer(), None)


@_word(simd.store_squares, types.void, memory, integer, integer, integer, TileType)
@_typed
def _store_squares(
    b: Any, signature: Any, a: Any, i: Any, f_step: Any, pitch: Any, tile: Any
) -> Any:
    for n, v in enumerate(_cells(b, tile)):
        place = _step(b, _step(b, i, n // 4, f_step), n % 4 // 2, pitch)
        _store(b, a, b.add(place, _const(n % 2 * LANES)), v)
    return ir.Constant(I8.as_pointer(), None)


@_word(
    simd.store_lane_sums,
    types.void,
    memory,
    integer,
    integer,
    integer,
    TileType,
    mask,
    types.Boolean,
)
@_typed
def _store_lane_sums(
    b: Any, signature: Any, a: Any, i: Any, f_step: Any, p_step: Any, tile: Any, used: Any, add: Any
) -> Any:
    kind = signature.args[4]
    for n, v in enumerate(_cells(b, tile)):
        f, p = divmod(n, kind.p)
        place = _place(b, a, _step(b, _step(b, i, f, f_step), p, p_step))
        total = _sum_lanes(b, b.select(used, v, ZERO))
        with b.if_else(add) as (then, otherwise):
            with then:
                b.store(b.fadd(b.load(place, typ=F32), total), place)
            with otherwise:
                b.store(total, place)
    return ir.Constant(I8.as_pointer(), None)


# Between images in rows and images in lanes ------------------------------------------------------


def _transposed(b: Any, rows: list[Any]) -> list[Any]:
    """Transpose 16 vectors of 16 by four rounds of interleaving halves."""
    half = LANES // 2
    low = [n // 2 + (n % 2) * LANES for n in range(LANES)]
    high = [place + half for place in low]
    for _ in range(4):
        rows = [
            _shuffle(b, rows[n], rows[n + half], places)
            for n in range(half)
            for places in (low, high)
        ]
    return rows


def _pixels_type(rows: Any, i: Any, kind: Any) -> Any:
    return TileType(1, LANES) if isinstance(kind, types.IntegerLiteral) else None


@_word(simd.pixels, _pixels_type, wholes, integer, integer)
@_typed
def _pixels(b: Any, signature: Any, rows: Any, i: Any, kind: Any) -> Any:
    element = (I8, F32, F64)[signature.args[2].literal_value]
    images = []
    for n in range(LANES):
        address = b.load(b.gep(rows, [_const(n)], source_etype=I64), typ=I64)
        base = b.inttoptr(address, ir.PointerType(element))
        place = b.gep(base, [i], source_etype=element)
        wide = ir.VectorType(element, LANES)
        loaded = b.load(b.bitcast(place, ir.PointerType(wide)), align=1, typ=wide)
        images.append(b.fptrunc(loaded, V) if element is F64 else loaded)
    turned = _transposed(b, images)
    return _tile(b, [b.uitofp(v, V) for v in turned] if element is I8 else turned)


@_word(simd.transpose, types.void, memory, integer, integer, memory, integer, integer)
def _transpose(b: Any, a: Any, i: Any, step: Any, to: Any, j: Any, to_step: Any) -> None:
    rows = [_load(b, a, _step(b, i, n, step)) for n in range(LANES)]
    for n, v in enumerate(_transposed(b, rows)):
        _store(b, to, _step(b, j, n, to_step), v)


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
    whole = [b.load(b.gep(row, [_const(n)], source_etype=I64), typ=I64) for n in places]
    return context.make_tuple(b, _operand_type(field), whole) if field.kind else whole[0]


# The machine -------------------------------------------------------------------------------------

KERNEL = ir.FunctionType(
    ir.VoidType(),
    [ir.PointerType(F32), ir.PointerType(F32), ir.PointerType(I64), ir.PointerType(I64), I64, I64],
)


@_word(simd.call, types.void, wholes, integer, memory, memory, wholes, wholes, integer, integer)
def _call(b: Any, table: Any, number: Any, a: Any, s: Any, c: Any, k: Any, i: Any, j: Any) -> None:
    address = b.load(b.gep(table, [number], source_etype=I64), typ=I64)
    b.call(b.inttoptr(address, ir.PointerType(KERNEL)), [a, s, c, k, i, j])


SPINS, SPINS_WITH_PAUSE = 2000, 50
"""Looks at the others, a few microseconds, before a waiting thread yields its core."""


@_word(simd.meet, types.void, wholes, integer)
def _meet(b: Any, sync: Any, workers: Any) -> None:
    arrived = sync
    round_ = b.gep(sync, [_const(16)], source_etype=I64)  # on a cache line of its own
    now = b.load_atomic(round_, "acquire", 8, typ=I64)
    before = b.atomic_rmw("add", arrived, _const(1), "acq_rel")
    with b.if_else(b.icmp_signed("==", b.add(before, _const(1)), workers)) as (last, others):
        with last:
            b.store_atomic(_const(0), arrived, "monotonic", 8)
            b.store_atomic(b.add(now, _const(1)), round_, "release", 8)
        with others:
            spins = cgutils.alloca_once_value(b, _const(0))
            look, done = b.append_basic_block("look"), b.append_basic_block("done")
            b.branch(look)
            b.position_at_end(look)
            same = b.icmp_signed("==", b.load_atomic(round_, "acquire", 8, typ=I64), now)
            wait = b.append_basic_block("wait")
            b.cbranch(same, wait, done)
            b.position_at_end(wait)
            count = b.add(b.load(spins, typ=I64), _const(1))
            b.store(count, spins)
            if _is_x86(b):  # the core's other thread, if it has one, gets on faster
                _intrinsic(b, "llvm.x86.sse2.pause", ir.VoidType())
            most = SPINS_WITH_PAUSE if _is_x86(b) else SPINS
            with b.if_then(b.icmp_signed(">", count, _const(most))):
                kind = ir.FunctionType(I32, [])
                b.call(cgutils.get_or_insert_function(b.module, kind, "fullback_yield"), [])
            b.branch(look)
            b.position_at_end(done)


def _is_x86(b: Any) -> bool:
    return str(b.module.triple).startswith(("x86_64", "i686", "i386"))


@_word(simd.flush_denormals, types.int64)
def _flush_denormals(b: Any) -> Any:
    if _is_x86(b):
        place = cgutils.alloca_once(b, I32)
        pointer = b.bitcast(place, I8.as_pointer())
        _intrinsic(b, "llvm.x86.sse.stmxcsr", ir.VoidType(), pointer)
        old = b.load(place, typ=I32)
        b.store(b.or_(old, ir.Constant(I32, 0x8040)), place)
        _intrinsic(b, "llvm.x86.sse.ldmxcsr", ir.VoidType(), pointer)
        return b.zext(old, I64)
    if str(b.module.triple).startswith(("aarch64", "arm64")):
        old = _intrinsic(b, "llvm.aarch64.get.fpcr", I64)
        _intrinsic(b, "llvm.aarch64.set.fpcr", ir.VoidType(), b.or_(old, _const(1 << 24)))
        return old
    return _const(0)


@_word(simd.restore_denormals, types.void, integer)
def _restore_denormals(b: Any, mode: Any) -> None:
    if _is_x86(b):
        place = cgutils.alloca_once_value(b, b.trunc(mode, I32))
        _intrinsic(b, "llvm.x86.sse.ldmxcsr", ir.VoidType(), b.bitcast(place, I8.as_pointer()))
    elif str(b.module.triple).startswith(("aarch64", "arm64")):
        _intrinsic(b, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)
