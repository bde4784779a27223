"""Other mistakes that explain the arrays as well, and what would distinguish them."""

from __future__ import annotations

from fullback.check.diagnose.chain import Chain
from fullback.check.diagnose.compare import length
from fullback.check.diagnose.hypothesis import Hypothesis
from fullback.check.diagnose.report import Alternative
from fullback.layers.base import Array


def alternatives(
    mistake: str, best: Hypothesis, others: list[Hypothesis]
) -> tuple[Alternative, ...]:
    """Return what else a mistake could be: other mistakes, or the same one in another layer."""
    places = {(one.mutant.mistake, one.layer) for one in best.assumed}
    found: dict[tuple[str | None, str], Alternative] = {}
    for other in others:
        others_places = {(one.mutant.mistake, one.layer) for one in other.assumed}
        if not any(m == mistake for m, _ in places - others_places):
            continue
        for one in other.assumed:
            key = one.mutant.mistake, one.layer
            if key in places or key in found or one.mutant.mistake is None:
                continue
            if (mistake, one.mutant.mistake) == ("bias-averaged", "batch-scale"):
                continue  # of a bias alone, the two are one
            where = "the loss" if one.layer == "loss" else one.layer
            found[key] = Alternative(
                one.mutant.mistake,
                one.layer,
                f"{one.mutant.mistake} at {where}: {one.mutant.description}.",
                separator(best, other),
            )
    return tuple(found.values())


def separator(one: Hypothesis, other: Hypothesis) -> str:
    """Say which further input would distinguish two hypotheses."""
    deltas = _deltas(one.chain)
    rest = _deltas(other.chain)
    for name, delta in deltas.items():
        if name in rest and length(delta - rest[name]) > 1e-4 * max(length(delta), 1e-300):
            return f"The delta of {name} would distinguish them."
    return "Another batch would distinguish them: fullback.probe(net) makes one."


def _deltas(chain: Chain) -> dict[str, Array]:
    """Return the deltas of a chain by the layer whose output they belong to, from the top."""
    found: dict[str, Array] = {}
    for link in reversed(chain.links()):
        if link.submitted is None:
            name = link.through
            if link.parent is not None:
                name = link.ensemble.exact.layers[link.through].before
            else:
                name = next(reversed(link.ensemble.exact.layers))
            found[name] = link.at(0)
    return found
