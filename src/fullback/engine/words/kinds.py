"""How words are registered with Numba: types of vectors, and ``word``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, models, register_model, type_callable

from fullback.engine.simd import LANES

F32, F64 = ir.FloatType(), ir.DoubleType()
I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
V = ir.VectorType(F32, LANES)
FLAGS = ("nsz", "arcp", "contract", "afn", "reassoc")
"""Of fast mathematics, what leaves NaN and infinity alone."""

memory = types.CPointer(types.float32)
wholes = types.CPointer(types.int64)


class VectorType(types.Type):
    """Floats of some lanes: of all, or of as many as a register holds."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes})")


class MaskType(types.Type):
    """Bits of some lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Mask({lanes})")


vector, mask = VectorType(LANES), MaskType(LANES)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(F32, kind.lanes))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(I1, kind.lanes))


_at_once = [LANES]


@contextlib.contextmanager
def lanes_at_once(count: int) -> Iterator[None]:
    """Compile what is compiled meanwhile for vectors of fewer lanes."""
    _at_once.append(count)
    try:
        yield
    finally:
        _at_once.pop()


def at_once() -> int:
    """Return the lanes of a vector in what is being compiled."""
    return _at_once[-1]


# How a word is given its type and its code --------------------------------------------------------

integer, real = types.Integer, types.Float
_PROMOTED = {types.Integer: types.int64, types.Float: types.float32, types.Boolean: types.boolean}


def word(function: Any, result: Any, *arguments: Any) -> Callable[[Any], Any]:
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


def typed(code: Any) -> Any:
    """Mark code that wants to see the types: ``code(builder, signature, *arguments)``."""
    code.typed = True
    return code
