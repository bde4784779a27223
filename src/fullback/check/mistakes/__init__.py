"""The catalogue: what people do wrong in the backward pass of each kind of layer.

A file a kind (``conv_delta`` and ``conv_weight``, ``pool``, ``activation``, ``norm``, ``dense``,
``loss``), and ``common`` and ``gradient`` for what several share. Begin with ``base``, which says
what a mutant is, then read ``dense``.

To add a mistake: its function and its text in the kind's file, a switch in the program by hand
(``tests/support/byhand.py``), its row in ``docs/diagnose.md``. To add a kind of layer: a file with
its ``Rules``, and its line in ``catalogue``. ``backward`` runs a backward pass with mistakes.
"""

from fullback.check.mistakes.backward import BackwardPass, backward, named_arrays, propagate
from fullback.check.mistakes.base import UNKNOWNS, Memo, Mistake, Mutant, Target, compatible
from fullback.check.mistakes.catalogue import MISTAKES, RULES, every_mutant, mutants_of, rules_of
from fullback.check.mistakes.layer_pass import ForwardPass, LayerPass, LossPass
from fullback.check.mistakes.loss import first_delta

__all__ = [
    "MISTAKES",
    "RULES",
    "UNKNOWNS",
    "BackwardPass",
    "ForwardPass",
    "LayerPass",
    "LossPass",
    "Memo",
    "Mistake",
    "Mutant",
    "Target",
    "backward",
    "compatible",
    "every_mutant",
    "first_delta",
    "mutants_of",
    "named_arrays",
    "propagate",
    "rules_of",
]
