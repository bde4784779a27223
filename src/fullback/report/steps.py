"""The program of one image, instruction by instruction, as the picture walks through it.

The lane engine names what lies in memory, where an activation may lie in the place of the layer
before it. A picture has a place for every array, named as in a trace; every instruction says which
of these it reads and computes, and what it does, in a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullback.network import Network


def program_steps(net: Network) -> list[dict[str, Any]]:
    """Return the instructions of a training step of one image, in the order of execution.

    Each has ``index``, ``pass`` ("forward", the loss included, or "backward"), ``layer``,
    ``layers``, ``text``, ``reads`` and ``writes`` as the engine names them, ``from`` and ``shows``
    as the picture does, and a ``sentence``. Empty where the engine has no kernel for a layer.
    """
    from fullback.engine.lanes import program_of
    from fullback.errors import OptionError

    try:
        lines = program_of(net, 1, training=True).lines
    except OptionError:  # a layer of the user's own
        return []
    steps: list[dict[str, Any]] = []
    known: set[str] = set()
    backward = False
    for line in lines:
        shows = [name for name in line.results if name not in known]
        known.update(shows)
        steps.append(
            {
                "index": len(steps),
                "pass": "backward" if backward else "forward",
                "layer": line.layers[0],
                "layers": list(line.layers),
                "text": f"{line.name}({', '.join(line.reads)})",
                "reads": list(line.reads),
                "writes": list(line.writes),
                "made": line.made,
                "once": line.once,
                "from": list(line.sources),
                "shows": shows,
                "sentence": line.sentence,
            }
        )
        backward = backward or line.layers == ("loss",)
    return steps
