"""What an instruction reads and computes, in the names of a trace, by which pictures show arrays.

- ``"a:conv1"`` the activation of conv1, ``"d:conv1"`` its delta, ``"a:input"``, ``"d:input"``,
- ``"p:conv1.weight"`` a parameter, ``"g:conv1.weight"`` its gradient, ``"probabilities"``.

In memory, an activation may lie in the place of the one before it; a trace has every array by
itself. So names follow from an instruction's layers and from the names of its operands: ``x`` comes
into the first layer and ``y`` out of the last, ``dy`` and ``dx`` are their deltas, and ``w`` are
the first layer's weights. On the way back, kernels of the forward pass have deltas for x and y.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from fullback.model import Model


def before(net: Model, name: str) -> str:
    """Return the name of the layer before one, or "input"."""
    return ("input", *net.names)[net.names.index(name)] if name in net.names else "input"


def sources(
    net: Model,
    parameters: Collection[str],
    layers: Sequence[str],
    operands: Iterable[str],
    reads: Sequence[tuple[str, str]],
    *,
    backward: bool,
    early: bool,
) -> tuple[str, ...]:
    """Return what an instruction reads, in the names of a trace.

    Parameters
    ----------
    net : the network
    parameters : their names
    layers : names of the instruction's layers
    operands : names of its operands
    reads : of those that are read, the names and the names of what lies there in memory
    backward, early : whether it belongs to the backward pass; whether it comes before the batch
    """
    if layers == ("input",):
        return ()
    if layers == ("loss",):
        return (f"a:{net.names[-1]}",)
    first, last = layers[0], layers[-1]
    read = [f"p:{name}" for _, name in reads if name in parameters]
    gradients = [f"g:{name[2:]}" for _, name in reads if name[2:] in parameters]
    if early or gradients:
        return (*read, *gradients)
    if not backward:
        own = [f"p:{name}" for name in parameters if name.split(".")[0] in layers]
        return (f"a:{before(net, first)}", *own)
    operand_names = {name for name, _ in reads}
    deltas = "dy" in operand_names or any(
        name == "x" and array.startswith("d ") for name, array in reads
    )
    names = [f"d:{last}"] if deltas else []
    if "y" in operand_names:
        names.append(f"a:{last}")
    if any(name == "x" and not array.startswith("d ") for name, array in reads):
        names.append(f"a:{before(net, first)}")
    if "w" in operands and f"{first}.weight" in parameters:
        names.append(f"p:{first}.weight")
    return tuple(names)


def results(
    net: Model,
    parameters: Collection[str],
    layers: Sequence[str],
    writes: Sequence[tuple[str, str]],
    *,
    backward: bool,
    early: bool,
) -> tuple[str, ...]:
    """Return what an instruction computes; ``writes`` as the reads of ``sources``."""
    operand_names = {name for name, _ in writes}
    if layers == ("loss",):
        delta = f"d:{net.names[-1]}"
        return ("probabilities", delta) if net.loss.classifies else (delta,)
    if early:
        return ()
    if not backward:
        return _activations(net, list(layers)) if "y" in operand_names else ()
    deltas = list(layers[:-1])  # layers that are computed together hand theirs on inside
    if operand_names & {"y", "dx"}:
        deltas.insert(0, before(net, layers[0]))
    gradients = [f"g:{name[2:]}" for _, name in writes if name[2:] in parameters]
    return (*_deltas(net, deltas), *gradients)


def _activations(net: Model, names: list[str]) -> tuple[str, ...]:
    """Add the Flatten layers behind: they move nothing, so no instruction is theirs."""
    place = (-1 if names[-1] == "input" else net.names.index(names[-1])) + 1
    while place < len(net.names) and net.layers[place].kind == "flatten":
        names.append(net.names[place])
        place += 1
    return tuple(f"a:{name}" for name in names)


def _deltas(net: Model, names: list[str]) -> tuple[str, ...]:
    """Add what lies before a Flatten: its delta is the same numbers in another shape."""
    while names and names[0] != "input" and net.layers[net.names.index(names[0])].kind == "flatten":
        names.insert(0, before(net, names[0]))
    return tuple(f"d:{name}" for name in names)
