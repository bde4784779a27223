"""Lowering: from a network's layers to the instructions of a program.

Begin at ``write`` below. ``grouping.py`` puts layers that are computed together into steps; then
every step plans its maps and writes its forward instructions and, in reverse order, its backward
ones, on the page of its layer. ``plan.py`` is what they write to, ``window.py`` the arithmetic of
windows, and ``trace.py`` says which arrays an instruction reads and computes. A new layer is a page
with a function in its ``LOWER``; a new fusion begins in ``grouping.py``.
"""

from __future__ import annotations

from fullback.augment import Augment
from fullback.engine.loop import CHECK, FOR_WORKERS
from fullback.engine.lowering import activation, conv, dense, norm, pool
from fullback.engine.lowering.images import input_map
from fullback.engine.lowering.plan import GRADIENTS, LowerTable, Plan, Purpose, Sums, Update
from fullback.engine.program import Phase
from fullback.errors import OptionError
from fullback.model import Model

_PAGES = (activation, conv, dense, norm, pool)
_LOWER: LowerTable = {kind: lower for page in _PAGES for kind, lower in page.LOWER.items()}


def lower(
    net: Model,
    purpose: Purpose,
    *,
    blocks: int = 1,
    training: bool = False,
    update: Update = GRADIENTS,
    augment: Augment | None = None,
    mixes: bool = False,
    sums: Sums | None = None,
) -> Plan:
    """Write a network's program.

    Parameters
    ----------
    net : the network
    purpose : "logits" or "probabilities" of images, the means of the "units" of their ReLU layers,
        the "gradients" of a batch, or "training"
    blocks : the most blocks of sixteen images in a batch
    training : whether dropout and batch statistics are in force
    update : the optimizer, for training
    augment : how images are distorted
    mixes : whether every image is mixed with another one
    sums : whether and when several ranks add up their gradients, see `Plan`

    Raises
    ------
    OptionError
        There is no kernel for a layer.
    """
    return write(
        Plan(
            net,
            purpose,
            blocks=blocks,
            training=training,
            update=update,
            augment=augment,
            mixes=mixes,
            sums=sums,
        )
    )


def write(plan: Plan) -> Plan:
    """Write the program of a plan."""
    x = input_map(plan)
    means = pool.UnitMeans(plan) if plan.purpose == "units" else None
    backward = []
    for n, step in enumerate(plan.steps):
        if type(step.layer) not in _LOWER:
            raise OptionError(
                f"the lane engine has no kernel for {step.name}, {step.layer}; give "
                "engine='reference'"
            )
        plan.layers = step.names
        x, back = _LOWER[type(step.layer)](plan, n, step, x)
        backward.append((n, step, back))
        if means and step.rectifies:
            means.write(step, x)
    plan.write_loss(means.all if means else x)
    if plan.backwards:
        for n, step, back in reversed(backward):
            if n >= plan.lowest:
                plan.layers = step.names
                back()
                if plan.sums == "layer":
                    plan.tell_gradients()
        if plan.sums:
            plan.tell_gradients()
        if plan.purpose == "training":
            plan.phases.append(Phase(CHECK, []))
        # Gradients and updates share a phase: every kernel gives a worker the same rows.
        plan.phases.append(Phase(FOR_WORKERS, plan.late))
        plan.write_parameters()
    if plan.early:
        plan.phases.insert(0, Phase(FOR_WORKERS, plan.early))
    return plan
