"""Tiles, and what turns images in rows into images in lanes: the words of ``simd.py`` in LLVM."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from fullback.engine import simd
from fullback.engine.simd import LANES
from fullback.engine.words.kinds import (
    F32,
    F64,
    I8,
    I64,
    MaskType,
    V,
    VectorType,
    at_once,
    integer,
    memory,
    typed,
    wholes,
    word,
)
from fullback.engine.words.vectors import (
    broadcast_at,
    const,
    lane_sum,
    load_at,
    multiply_add,
    pointer_to,
    rectified,
    shuffled,
    splat_value,
    store_at,
    zero_of,
)


class TileType(types.Type):
    """F x P vectors: to LLVM an array of vectors, which it keeps in registers."""

    def __init__(self, f: int, p: int, lanes: int) -> None:
        self.f, self.p, self.lanes = f, p, lanes
        super().__init__(name=f"Tile({f}, {p}, {lanes})")

    @property
    def cell(self) -> Any:
        """Its vectors, to LLVM."""
        return ir.VectorType(F32, self.lanes)


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(kind.cell, kind.f * kind.p))


def _shape(index_f: int, index_p: int) -> Callable[..., Any]:
    """Return a typer that reads a tile's shape from two literal arguments."""

    def result(*given: Any) -> Any:
        f, p = given[index_f], given[index_p]
        if isinstance(f, types.IntegerLiteral) and isinstance(p, types.IntegerLiteral):
            return TileType(f.literal_value, p.literal_value, at_once())
        return None

    return result


# Tiles -------------------------------------------------------------------------------------------


def _cells(b: Any, tile: Any) -> list[Any]:
    return [b.extract_value(tile, n) for n in range(tile.type.count)]


def _tile(b: Any, cells: list[Any]) -> Any:
    made = ir.Constant(ir.ArrayType(cells[0].type, len(cells)), ir.Undefined)
    for n, value in enumerate(cells):
        made = b.insert_value(made, value, n)
    return made


def stepped(b: Any, start: Any, count: int, step: Any) -> Any:
    """Return ``start + count * step``."""
    return b.add(start, b.mul(const(count), step)) if count else start


@word(simd.zeros, _shape(0, 1), integer, integer)
@typed
def _zeros(b: Any, signature: Any, f: Any, p: Any) -> Any:
    kind = signature.return_type
    return _tile(b, [zero_of(kind.cell)] * (kind.f * kind.p))


def _same(tile: Any, *_: Any) -> Any:
    return tile


@word(simd.biases, _same, TileType, memory, integer)
@typed
def _biases(b: Any, signature: Any, tile: Any, a: Any, i: Any) -> Any:
    kind, outside = signature.return_type, b.block
    with b.if_then(b.icmp_signed(">=", i, const(0))):
        there = [
            b.load(pointer_to(b, a, stepped(b, i, n, const(1))), typ=F32) for n in range(kind.f)
        ]
        inside = b.block
    rows = []
    for value in there:
        number = b.phi(F32)
        number.add_incoming(value, inside)
        number.add_incoming(ir.Constant(F32, 0.0), outside)
        rows.append(number)
    vectors = [splat_value(b, number, kind.lanes) for number in rows]
    return _tile(b, [v for v in vectors for _ in range(kind.p)])


@word(simd.rows_of, types.int64, TileType)
@typed
def _rows_of(b: Any, signature: Any, tile: Any) -> Any:
    return const(signature.args[0].f)


def _products(left: Callable[..., Any]) -> Any:
    """Return what adds products to a tile, of what ``left`` loads for a row, and P vectors."""

    @typed
    def code(b: Any, signature: Any, tile: Any, *places: Any) -> Any:
        w, i, w_step, x, j, x_step = places
        kind, made = signature.return_type, _cells(b, tile)
        vectors = [load_at(b, x, stepped(b, j, p, x_step), kind.cell) for p in range(kind.p)]
        for f in range(kind.f):
            own = left(b, w, stepped(b, i, f, w_step), kind.cell)
            for p, v in enumerate(vectors):
                made[f * kind.p + p] = multiply_add(b, own, v, made[f * kind.p + p])
        return _tile(b, made)

    return code


_TWO_ROWS = (TileType, memory, integer, integer, memory, integer, integer)
word(simd.outer, _same, *_TWO_ROWS)(_products(broadcast_at))
word(simd.pairs, _same, *_TWO_ROWS)(_products(load_at))


@word(simd.slide, _same, TileType, memory, integer, memory, integer, integer)
@typed
def _slide(b: Any, signature: Any, tile: Any, w: Any, i: Any, x: Any, j: Any, pitch: Any) -> Any:
    kind, cells = signature.return_type, _cells(b, tile)
    patch = []
    for r in range(4):
        start = stepped(b, j, r, pitch)
        patch.append([load_at(b, x, b.add(start, const(s * LANES)), kind.cell) for s in range(4)])
    for r in range(3):
        for s in range(3):
            for f in range(kind.f):
                place = b.add(i, const((3 * r + s) * kind.f + f))
                weight = broadcast_at(b, w, place, kind.cell)
                for p in range(2):
                    for q in range(2):
                        n = 4 * f + 2 * p + q
                        cells[n] = multiply_add(b, weight, patch[p + r][q + s], cells[n])
    return _tile(b, cells)


@word(simd.slide_back, _same, TileType, types.UniTuple, memory, integer, integer)
@typed
def _slide_back(b: Any, signature: Any, tile: Any, v: Any, x: Any, j: Any, pitch: Any) -> Any:
    kind, cells = signature.return_type, _cells(b, tile)
    deltas = [b.extract_value(v, n) for n in range(4)]
    for row, column in product(range(4), repeat=2):
        place = b.add(stepped(b, j, row, pitch), const(column * LANES))
        met = load_at(b, x, place, kind.cell)  # by all four places, and then no more
        for n, delta in enumerate(deltas):
            r, s = row - n // 2, column - n % 2
            if 0 <= r < 3 and 0 <= s < 3:
                cells[3 * r + s] = multiply_add(b, delta, met, cells[3 * r + s])
    return _tile(b, cells)


@word(simd.rectify_tile, _same, TileType)
def _rectify_tile(b: Any, tile: Any) -> Any:
    return _tile(b, [rectified(b, v) for v in _cells(b, tile)])


def _cells_type(tile: Any, f: Any) -> Any:
    return (
        types.UniTuple(VectorType(tile.lanes), tile.p)
        if isinstance(f, types.IntegerLiteral)
        else None
    )


@word(simd.cells, _cells_type, TileType, integer)
@typed
def _cells_of_row(b: Any, signature: Any, tile: Any, _f: Any) -> Any:
    kind, row = signature.args
    return _tile(b, _cells(b, tile)[row.literal_value * kind.p :][: kind.p])


@word(simd.load_tile, _shape(0, 1), integer, integer, memory, integer, integer, integer)
@typed
def _load_tile(
    b: Any, signature: Any, f: Any, p: Any, a: Any, i: Any, f_step: Any, p_step: Any
) -> Any:
    kind = signature.return_type
    return _tile(
        b,
        [
            load_at(b, a, stepped(b, stepped(b, i, f, f_step), p, p_step), kind.cell)
            for f in range(kind.f)
            for p in range(kind.p)
        ],
    )


@word(simd.store_tile, types.void, memory, integer, integer, integer, TileType)
@typed
def _store_tile(b: Any, signature: Any, a: Any, i: Any, f_step: Any, p_step: Any, tile: Any) -> Any:
    kind = signature.args[4]
    for n, v in enumerate(_cells(b, tile)):
        f, p = divmod(n, kind.p)
        store_at(b, a, stepped(b, stepped(b, i, f, f_step), p, p_step), v)
    return ir.Constant(I8.as_pointer(), None)


@word(simd.store_squares, types.void, memory, integer, integer, integer, TileType)
@typed
def _store_squares(
    b: Any, signature: Any, a: Any, i: Any, f_step: Any, pitch: Any, tile: Any
) -> Any:
    for n, v in enumerate(_cells(b, tile)):
        place = stepped(b, stepped(b, i, n // 4, f_step), n % 4 // 2, pitch)
        store_at(b, a, b.add(place, const(n % 2 * LANES)), v)
    return ir.Constant(I8.as_pointer(), None)


@word(
    simd.store_lane_sums,
    types.void,
    memory,
    integer,
    integer,
    integer,
    TileType,
    MaskType,
    types.Boolean,
)
@typed
def _store_lane_sums(
    b: Any, signature: Any, a: Any, i: Any, f_step: Any, p_step: Any, tile: Any, used: Any, add: Any
) -> Any:
    kind = signature.args[4]
    for n, v in enumerate(_cells(b, tile)):
        f, p = divmod(n, kind.p)
        place = pointer_to(b, a, stepped(b, stepped(b, i, f, f_step), p, p_step))
        total = lane_sum(b, b.select(used, v, zero_of(v.type)))
        sum_ = b.fadd(b.load(place, typ=F32), total)
        b.store(b.select(add, sum_, total), place)
    return ir.Constant(I8.as_pointer(), None)


# Between images in rows and images in lanes ------------------------------------------------------


def _transposed(b: Any, rows: list[Any]) -> list[Any]:
    """Transpose 16 vectors of 16 by four rounds of interleaving halves."""
    half = LANES // 2
    low = [n // 2 + (n % 2) * LANES for n in range(LANES)]
    high = [place + half for place in low]
    for _ in range(4):
        rows = [
            shuffled(b, rows[n], rows[n + half], places)
            for n in range(half)
            for places in (low, high)
        ]
    return rows


def _pixels_type(rows: Any, i: Any, kind: Any) -> Any:
    return TileType(1, LANES, LANES) if isinstance(kind, types.IntegerLiteral) else None


@word(simd.pixels, _pixels_type, wholes, integer, integer)
@typed
def _pixels(b: Any, signature: Any, rows: Any, i: Any, kind: Any) -> Any:
    element = (I8, F32, F64)[signature.args[2].literal_value]
    images = []
    for n in range(LANES):
        address = b.load(b.gep(rows, [const(n)], source_etype=I64), typ=I64)
        base = b.inttoptr(address, ir.PointerType(element))
        place = b.gep(base, [i], source_etype=element)
        wide = ir.VectorType(element, LANES)
        loaded = b.load(b.bitcast(place, ir.PointerType(wide)), align=1, typ=wide)
        images.append(b.fptrunc(loaded, V) if element is F64 else loaded)
    turned = _transposed(b, images)
    return _tile(b, [b.uitofp(v, V) for v in turned] if element is I8 else turned)


@word(simd.transpose, types.void, memory, integer, integer, memory, integer, integer)
def _transpose(b: Any, a: Any, i: Any, step: Any, to: Any, j: Any, to_step: Any) -> None:
    rows = [load_at(b, a, stepped(b, i, n, step)) for n in range(LANES)]
    for n, v in enumerate(_transposed(b, rows)):
        store_at(b, to, stepped(b, j, n, to_step), v)
