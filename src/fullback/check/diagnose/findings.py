"""From the hypotheses that a search leaves to findings in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fullback.check.diagnose.chain import Chain, gradient_in
from fullback.check.diagnose.compare import FAINT, Fit, fit, length
from fullback.check.diagnose.describe import difference, off_by, percent, share
from fullback.check.diagnose.hypothesis import Assumed, Hypothesis, Match
from fullback.check.diagnose.layouts import Reading
from fullback.check.diagnose.report import Alternative, Diagnosis, Evidence, Finding, place_of
from fullback.check.diagnose.search import Search
from fullback.check.mistakes import MISTAKES, UNKNOWNS, Mutant, backward, named_arrays, propagate
from fullback.layers.base import Array

_SAME_COST = 0.03
_FOLLOWS = 30.0  # times what rounding explains, from where on an array is not the right one
_TARGETS = {"delta": "next delta", "weight": "weight gradient", "bias": "bias gradient"}


def explain(search: Search, *, widened: bool, more: bool) -> Diagnosis:
    """Put the best hypothesis into words, with those that explain as much for as little.

    ``widened`` says that the arrays are held to a wider precision than they have: what is no larger
    than its rounding, or is far off because a sum cancels in it, is not judged then. ``more`` says
    that there are findings of another kind, which stay. The diagnosis has findings, the arrays by
    verdict, and notes.
    """
    best = search.best
    others = [
        h
        for h in search.found[1:]
        if h.cost <= best.cost + _SAME_COST and len(h.open) == len(best.open) and h.assumed
    ]
    found, right = Diagnosis(), _right_arrays(search)
    for one in best.assumed:
        if one.mutant.mistake is None and one.mutant.description not in found.notes:
            found.notes.append(one.mutant.description)
    befores = {match.name: _before(search, match) for match in best.matches}
    for match in best.matches:
        before, reading = befores[match.name], _reading(search, match.name)
        faint = match.fit.size < FAINT * match.fit.tolerance or not match.fit.near
        if not match.fit.judged or (widened and faint):
            found.not_judged.append(match.name)
        elif match.mistakes or reading.mistake:
            found.wrong.append(match.name)
        elif not _mistaken(match, best):
            found.right.append(match.name)
        elif match.fit.undecided or not before.matched:
            itself = _computed_here(match, best)
            (found.wrong if itself else found.inherited).append(match.name)
        elif length(reading.values - right[match.name]) > _FOLLOWS * before.tolerance:
            found.inherited.append(match.name)
        else:
            found.right.append(match.name)
    found.wrong.extend(best.open)
    groups: dict[str, list[Assumed]] = {}
    for one in best.assumed:
        if one.mutant.mistake is not None:
            groups.setdefault(one.mutant.mistake, []).append(one)
    for mistake, places in groups.items():
        finding = _finding(mistake, places, best, others, befores)
        alone = len(groups) == 1 and not best.open and not more
        fixed = found.wrong + found.inherited if alone else _fixed(mistake, best, befores)
        found.findings.append(replace(finding, expect=_expect(fixed, alone=alone)))
    if best.open:
        found.findings.append(_unexplained(search, right))
    order = ("loss", *reversed(search.names))
    found.findings.sort(key=lambda f: order.index(f.layer))
    return found


def _reading(search: Search, name: str) -> Reading:
    """Return how the best hypothesis reads a submitted array."""
    return search.best.read.get(name) or search.submitted[name][0]


def _right_arrays(search: Search) -> dict[str, Array]:
    """Return what a right backward pass gives under the best hypothesis' conventions."""
    best = search.best
    conventions: dict[str, list[Mutant]] = {name: [m] for name, m in search.ties.items()}
    conventions["loss"] = [
        o.mutant for o in best.assumed if o.layer == "loss" and not o.mutant.mistake
    ]
    right = backward(search.ensemble.exact, conventions, rate=0.0, decay=0.0)
    factor = abs(best.share)  # -1 goes with a sign that is flipped at the loss
    gradients = {name: gradient * factor for name, gradient in right.gradients.items()}
    return named_arrays(replace(right, gradients=gradients))


def _before(search: Search, match: Match) -> Fit:
    """Compare an array with what a right backward pass computes from the last submitted delta."""
    plain, reading = match.chain.without_mistakes(), _reading(search, match.name)
    computed: Callable[[int], Array] = plain.at
    name, target = place_of(match.name)
    if target != "delta":
        computed = gradient_in(plain, name, target, (), search.best.share, 0.0)  # type: ignore[arg-type]
    return fit(reading.values, computed, search.ensemble.eps, blur=reading.blur, patient=True)


def _mistaken(match: Match, h: Hypothesis) -> bool:
    """Whether a mistake that reaches the array is assumed above it."""
    return any(
        one.mutant.mistake and one.mutant.target == "delta" for one in h.assumed[: match.assumed]
    )


def _computed_here(match: Match, h: Hypothesis) -> bool:
    """Whether a delta comes straight out of a step that has a mistake."""
    return match.name.startswith("delta of ") and any(
        one.layer == match.chain.through and one.mutant.mistake and one.mutant.target == "delta"
        for one in h.assumed
    )


def _shows(one: Assumed, index: int, best: Hypothesis, befores: dict[str, Fit]) -> Match | None:
    """Return the first array in which a mistake shows."""
    for match in best.matches:
        if any(m.mutant is one.mutant and m.layer == one.layer for m in match.mistakes):
            return match
    if one.mutant.target != "delta":
        return None
    for match in best.matches:
        if match.assumed > index and not befores[match.name].matched:
            return match
    return None


def _finding(
    mistake: str,
    places: list[Assumed],
    best: Hypothesis,
    others: list[Hypothesis],
    befores: dict[str, Fit],
) -> Finding:
    entry, first = MISTAKES[mistake], places[0]
    shown = next(
        (s for one in places if (s := _shows(one, best.assumed.index(one), best, befores))), None
    )
    if shown is None:
        evidence = Evidence("", float("nan"), None, "")
    else:
        before, after = befores[shown.name], shown.fit.relative
        gives = f"{percent(after)} off" if after else "exactly"
        evidence = Evidence(
            shown.name,
            share(before.error, before.size),
            after,
            f"{shown.name} is {off_by(before.error, before.size)}, and {gives} what this mistake "
            "gives",
        )
    quantity = "first delta" if first.layer == "loss" else _TARGETS[first.mutant.target]
    description = first.mutant.description
    where = (
        f"At the loss, {description}"
        if first.layer == "loss"
        else f"{first.layer}, {quantity}: {description}"
    )
    if first.number is not None and first.mutant.unknown is not None:
        where += f" (the {UNKNOWNS[first.mutant.unknown]} is {first.number:.6g})"
    message = f"{entry.sentence} {where}."
    more = list(dict.fromkeys(f"{p.layer} ({_TARGETS[p.mutant.target]})" for p in places[1:]))
    if more:
        message += f" The same again in {', '.join(more)}."
    return Finding(
        mistake,
        first.layer,
        quantity,
        exact=shown is not None,
        evidence=evidence,
        message=message,
        mend=entry.mend,
        hint=entry.hint,
        alternatives=_alternatives(mistake, best, others),
    )


def _fixed(mistake: str, best: Hypothesis, befores: dict[str, Fit]) -> list[str]:
    """Return the arrays that are wrong because of this mistake alone."""
    fixed: list[str] = []
    for match in best.matches:
        if befores[match.name].matched:
            continue
        ids = {one.mutant.mistake for one in match.mistakes}
        # mistakes in the formulas of other gradients do not reach this one
        ids |= {
            m.mutant.mistake for m in best.assumed[: match.assumed] if m.mutant.target == "delta"
        }
        if ids - {None} == {mistake}:
            fixed.append(match.name)
    return fixed


def _expect(fixed: list[str], *, alone: bool) -> str:
    if alone:
        return f"Everything is right: {_listed(fixed)} too."
    if not fixed:
        return "The other findings remain, and what follows from them."
    return f"{_listed(fixed)} should be right; the other findings remain."


def _listed(names: list[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


# Other mistakes that explain as much ------------------------------------------------------------


def _alternatives(
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
                _separator(best, other),
            )
    return tuple(found.values())


def _separator(one: Hypothesis, other: Hypothesis) -> str:
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
            layers = link.ensemble.exact.layers
            first = link.parent is None
            found[next(reversed(layers)) if first else layers[link.through].before] = link.at(0)
    return found


# No match ---------------------------------------------------------------------------------------


def _unexplained(search: Search, right: Mapping[str, Array]) -> Finding:
    """Narrow down what no mistake of the catalogue explains, and describe it."""
    best = search.best
    name, *rest = best.open
    array = _reading(search, name).values
    layer, target = place_of(name)
    if target == "delta":
        layer, quantity, expected, where = _open_delta(search, layer, right[name])
    else:
        quantity, expected = _TARGETS[target], right[name]
        where = _open_gradient(search, layer)
        above = best.read.get(f"delta of {layer}")
        if above is not None:
            p = search.ensemble.exact.layers[layer]
            expected = propagate(p, target, above.values) * best.share  # type: ignore[arg-type]
    relative = share(length(array - expected), length(expected))
    words = difference(array, expected, parameter=target != "delta")
    message = (
        f"{name} is wrong, and no mistake of the catalogue, nor two at once, explains it. {where}"
    )
    if rest:
        message += f" Not explained either: {_listed(rest)}."
    return Finding(
        None,
        layer,
        quantity,
        exact=False,
        evidence=Evidence(name, relative, None, words),
        message=message,
        expect="",
    )


def _open_delta(search: Search, of: str, expected: Array) -> tuple[str, str, Array, str]:
    """Return the layer whose backward pass a layer's wrong delta comes from, and the right delta.

    ``expected`` is the right one of a pass that is right from the loss on.
    """
    chain = ("input", *search.names)
    above = chain[chain.index(of) + 1 :]
    between: list[str] = []
    for n in above:
        between.append(n)
        if f"delta of {n}" in search.submitted:
            break
    else:
        between.append("loss")
    if between == ["loss"]:
        return "loss", "first delta", expected, "It is computed at the loss."
    if between[-1] != "loss":
        expected = _reading(search, f"delta of {between[-1]}").values
        for n in reversed(between):
            expected = propagate(search.ensemble.exact.layers[n], "delta", expected)
    if len(between) == 1:
        where = (
            f"The delta of {between[0]}, from which it is computed, was submitted: it is "
            f"{between[0]}'s own backward pass."
        )
        return between[0], "next delta", expected, where
    where = (
        f"It lies between {between[-1]} and {of}; the deltas in between would show where: "
        f"{_listed(between[:-1])}."
    )
    return between[-1] if between[-1] != "loss" else between[-2], "next delta", expected, where


def _open_gradient(search: Search, layer: str) -> str:
    if f"delta of {layer}" in search.submitted:
        return f"The delta of {layer} was submitted: it is the gradient's own formula."
    names, matches = search.names, search.best.matches
    here = names.index(layer)
    shown = {place_of(key)[0] for key in search.submitted}
    above = [n for n in names[here + 1 :] if n in shown]
    below = [match for match in matches if match.name.split(".")[0] in names[: here + 1]]
    if any(match in below for match in matches[-len(below) :]):
        return "Others that depend on the same delta are right, so it is this formula alone."
    upper = above[0] if above else "the loss"
    between = names[here : names.index(above[0]) if above else None]
    return (
        f"The mistake lies between {upper} and {layer}, or in this formula; the deltas of "
        f"{_listed(list(reversed(between)))} would show where."
    )
