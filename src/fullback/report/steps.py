"""The program of one image, instruction by instruction, as the picture walks through it.

The lane engine names what lies in memory, where an activation may lie in the place of the layer
before it. A picture has a place for every array; so what an instruction takes and gives is read off
its layers here, and named as in a trace:

- ``"a:conv1"`` the activation of conv1, ``"d:conv1"`` its delta, ``"a:input"``, ``"d:input"``,
- ``"p:conv1.weight"`` a parameter, ``"g:conv1.weight"`` its gradient, ``"probabilities"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fullback.report.sentences import sentence

if TYPE_CHECKING:
    from fullback.engine.listing import Line
    from fullback.network import Network

_PREPARING = {"pack", "running"}
_BETWEEN = {"moments", "merge_moments", "merge_sums", "keep", "rows", "spread"}
_NEXT_DELTA = {"dense", "conv2d", "conv3x3", "unpool2x2", "dropout"}
_BY_OUTPUT = {"relu_dx", "leaky_relu_dx", "tanh_dx", "sigmoid_dx"}


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
        shows = [name for name in _results(net, line, backward=backward) if name not in known]
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
                "from": _sources(net, line, backward=backward),
                "shows": shows,
                "sentence": sentence(net, line, backward=backward),
            }
        )
        backward = backward or line.layers == ("loss",)
    return steps


def before(net: Network, name: str) -> str:
    """Return the name of the layer before one, or "input"."""
    return ("input", *net.names)[net.names.index(name)]


def _sources(net: Network, line: Line, *, backward: bool) -> list[str]:
    if line.layers == ("input",):
        return []
    if line.layers == ("loss",):
        return [f"a:{net.names[-1]}"]
    gradients = [f"g:{name[2:]}" for name in line.reads if name[2:] in net.parameters]
    parameters = [f"p:{name}" for name in line.reads if name in net.parameters]
    if line.name in _PREPARING or gradients:
        return [*parameters, *gradients]
    first, last = line.layers[0], line.layers[-1]
    if not backward:
        weights = [f"p:{name}" for name in net.parameters if name.split(".")[0] in line.layers]
        return [f"a:{before(net, first)}", *weights]
    if line.name == "rows":
        return [f"a:{before(net, first)}"]
    sources = [f"d:{last}"]
    if line.name in _BY_OUTPUT:
        sources.append(f"a:{last}")
    elif line.name.endswith(("_dw", "_sums")) or line.name == "batchnorm_dx":
        sources.append(f"a:{before(net, first)}")
    elif line.name in _NEXT_DELTA and f"{first}.weight" in net.parameters:
        parameters = [f"p:{first}.weight"]
    elif line.name in ("maxpool_dx", "unpool2x2"):
        sources.append(f"a:{before(net, last)}")  # whose largest cells won
    return [*sources, *parameters]


def _results(net: Network, line: Line, *, backward: bool) -> list[str]:
    if line.layers == ("loss",):
        last = net.names[-1]
        return ["probabilities", f"d:{last}"] if net.loss.classifies else [f"d:{last}"]
    if not backward:
        if line.name in _PREPARING | _BETWEEN:
            return []
        return [f"a:{name}" for name in _with_flatten(net, list(line.layers))]
    gradients = [f"g:{name[2:]}" for name in line.writes if name[2:] in net.parameters]
    deltas = list(line.layers[:-1])  # layers that are computed together hand theirs on inside
    if line.name.endswith("_dx") or line.name in _NEXT_DELTA:
        deltas.insert(0, before(net, line.layers[0]))
    return [*[f"d:{name}" for name in _with_flattened(net, deltas)], *gradients]


def _with_flatten(net: Network, names: list[str]) -> list[str]:
    """Add the Flatten layers behind: they move nothing, so no instruction is theirs."""
    place = (-1 if names[-1] == "input" else net.names.index(names[-1])) + 1
    while place < len(net.names) and net.layers[place].kind == "flatten":
        names.append(net.names[place])
        place += 1
    return names


def _with_flattened(net: Network, names: list[str]) -> list[str]:
    """Add what lies before a Flatten: its delta is the same numbers in another shape."""
    while names and names[0] != "input" and net.layers[net.names.index(names[0])].kind == "flatten":
        names.insert(0, before(net, names[0]))
    return names
