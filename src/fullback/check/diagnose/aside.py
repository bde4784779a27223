"""Wrong deltas that a program did not go on with: all else is right without them."""

from __future__ import annotations

from collections.abc import Mapping

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.findings import explain
from fullback.check.diagnose.report import Diagnosis
from fullback.check.diagnose.search import Search
from fullback.check.diagnose.submission import Submitted
from fullback.layers.base import Array

_FAR = 1e-3  # relative error that no rounding makes


def without_far_deltas(submitted: Submitted, own: Mapping[str, Array]) -> Submitted:
    """Return what is submitted without the deltas that are far from the network's own."""
    return {
        name: readings
        for name, readings in submitted.items()
        if not name.startswith("delta of ")
        or min(length(r.values - own[name]) for r in readings) <= _FAR * length(own[name])
    }


def judged_aside(rest: Search, submitted: Submitted) -> Diagnosis | None:
    """Judge the deltas that are not in ``rest``, each by what was submitted above it.

    Parameters
    ----------
    rest : a search without mistakes in all else
    submitted : all that was submitted

    Returns
    -------
    a Diagnosis, or None where the rest is not all right, or a delta is right by a convention
    """
    right = explain(rest, widened=False, more=True)
    if rest.best.open or rest.best.assumed or right.not_judged:
        return None
    above: dict[str, Submitted] = {}  # the last right delta, and wrong ones below it
    group: Submitted = {}
    for layer in (*reversed(rest.names), "input"):
        name = f"delta of {layer}"
        if name in rest.submitted:
            group = {name: submitted[name]}
        elif name in submitted:
            group = {**group, name: submitted[name]}
            above[next(iter(group))] = group
    merged = Diagnosis(right=right.right, notes=right.notes)
    for deltas in above.values():
        search = Search(rest.ensemble, rest.names, deltas, 1, ties=rest.ties).run()
        found = explain(search, widened=False, more=True)
        far = [name for name in deltas if name not in rest.submitted]
        if found.not_judged or {*far} & {*found.right}:
            return None
        merged.findings.extend(found.findings)
        merged.wrong.extend(name for name in found.wrong if name in far)
        merged.inherited.extend(name for name in found.inherited if name in far)
    return merged
