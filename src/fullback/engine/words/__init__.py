"""The words of ``simd.py`` in LLVM, for Numba. Imported only where kernels are compiled.

Begin with ``word`` in ``kinds.py``, which registers the code of a word, and with the short words in
``vectors.py``. ``tiles.py`` has the words for tiles; ``calls.py`` what the loop says, and how a
kernel's operands are read. A new word is a function in ``simd.py``, its code here, and a line in
``tests/test_engine_words.py``, which compares the two bit for bit.
"""

from fullback.engine.words.calls import OperandsType
from fullback.engine.words.kinds import (
    FLAGS,
    lanes_at_once,
    memory,
    wholes,
)
from fullback.engine.words.tiles import TileType

__all__ = ["FLAGS", "OperandsType", "TileType", "lanes_at_once", "memory", "wholes"]
