"""From the hypotheses that a search leaves to findings in words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fullback.check.diagnose.chain import Chain, gradient_in
from fullback.check.diagnose.compare import Fit, fit, length
from fullback.check.diagnose.describe import describe
from fullback.check.diagnose.report import Alternative, Evidence, Finding
from fullback.check.diagnose.search import Hypothesis, Made, Search, Seen
from fullback.check.diagnose.submission import Given
from fullback.check.mistakes import MISTAKES, next_delta
from fullback.layers.base import Array
from fullback.passes import Trace

_SAME_COST = 0.03
_FOLLOWS = 30.0  # times what rounding explains, from where on an array is not the right one
_TARGETS = {"delta": "next delta", "weight": "weight gradient", "bias": "bias gradient"}


@dataclass
class Told:
    """What a search has to say."""

    findings: list[Finding] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    inherited: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def explain(
    search: Search, found: list[Hypothesis], trace: Trace, given: Given, *, more: bool
) -> Told:
    """Put the best hypothesis into words, with those that explain as much for as little.

    ``more`` says that there are findings of another kind, which stay.
    """
    best = found[0]
    others = [
        h
        for h in found[1:]
        if h.cost <= best.cost + _SAME_COST and len(h.open) == len(best.open) and h.made
    ]
    told = Told()
    for one in best.made:
        if one.mutant.mistake is None and one.mutant.said not in told.notes:
            told.notes.append(one.mutant.said)
    befores = {seen.name: _before(search, seen, best, given) for seen in best.seen}
    for seen in best.seen:
        before = befores[seen.name]
        if not before.matched:
            (told.wrong if seen.own or _made_here(seen, best) else told.inherited).append(seen.name)
        elif best.made and _differs(seen, best, trace, given, before.tolerance):
            told.inherited.append(seen.name)
        else:
            told.right.append(seen.name)
    told.wrong += best.open
    groups: dict[str, list[Made]] = {}
    for one in best.made:
        if one.mutant.mistake is not None:
            groups.setdefault(one.mutant.mistake, []).append(one)
    for mistake, places in groups.items():
        finding = _finding(mistake, places, best, others, befores)
        alone = len(groups) == 1 and not best.open and not more
        mended = told.wrong + told.inherited if alone else _mended(mistake, best, befores)
        told.findings.append(replace(finding, expect=_expect(mended, alone=alone)))
    if best.open:
        told.findings.append(_unexplained(search, best, trace, given))
    told.findings.sort(key=lambda f: _depth(search, f.layer))
    return told


def _depth(search: Search, layer: str) -> int:
    """Layers from the loss down."""
    return 0 if layer == "loss" else len(search.names) - search.names.index(layer)


def _theirs(given: Given, name: str, h: Hypothesis) -> Array:
    """Return one of their arrays as the hypothesis reads it."""
    chosen = dict(h.read)
    if name in chosen:
        return chosen[name].values
    if name.startswith("delta of "):
        return given.deltas[name.removeprefix("delta of ")][0].values
    return given.gradients[name][0].values


def _before(search: Search, seen: Seen, h: Hypothesis, given: Given) -> Fit:
    """Compare an array with what a right backward pass makes of what it was given last."""
    plain = seen.chain.without_mistakes()
    theirs = _theirs(given, seen.name, h)
    if seen.name.startswith("delta of "):
        return fit(theirs, plain.at, search.worlds.eps, kinks=search.kinks, patient=True)
    name, target = seen.name.split(".")
    computed = gradient_in(plain, name, target, (), h.share, 0.0)  # type: ignore[arg-type]
    return fit(theirs, computed, search.worlds.eps, kinks=search.kinks, patient=True)


def _made_here(seen: Seen, h: Hypothesis) -> bool:
    """Whether a delta comes straight out of a step that has a mistake."""
    return seen.name.startswith("delta of ") and any(
        one.layer == seen.chain.through and one.mutant.mistake and one.mutant.target == "delta"
        for one in h.made
    )


def _differs(seen: Seen, h: Hypothesis, trace: Trace, given: Given, tolerance: float) -> bool:
    """Whether an array that follows from the ones above it is not the right one all the same."""
    if seen.name.startswith("delta of "):
        right = trace.deltas[seen.name.removeprefix("delta of ")] / h.share
    else:
        right = trace.gradients[seen.name]
    return length(_theirs(given, seen.name, h) - right) > _FOLLOWS * tolerance


def _shows(one: Made, index: int, best: Hypothesis, befores: dict[str, Fit]) -> Seen | None:
    """Return the first array in which a mistake shows."""
    for seen in best.seen:
        if any(own.mutant is one.mutant and own.layer == one.layer for own in seen.own):
            return seen
    if one.mutant.target != "delta":
        return None
    for seen in best.seen:
        if seen.made > index and not befores[seen.name].matched:
            return seen
    return None


def _finding(
    mistake: str,
    places: list[Made],
    best: Hypothesis,
    others: list[Hypothesis],
    befores: dict[str, Fit],
) -> Finding:
    entry, first = MISTAKES[mistake], places[0]
    shown = next(
        (s for one in places if (s := _shows(one, best.made.index(one), best, befores))), None
    )
    if shown is None:
        evidence = Evidence("", float("nan"), None, "")
    else:
        before, after = befores[shown.name].relative, shown.fit.relative
        gives = f"{_relative(after)} off" if after else "exactly"
        evidence = Evidence(
            shown.name,
            before,
            after,
            f"{shown.name} is {_relative(before)} off the right values, and {gives} what this "
            "mistake gives",
        )
    quantity = "first delta" if first.layer == "loss" else _TARGETS[first.mutant.target]
    said = first.mutant.said
    where = (
        f"At the loss, {said}" if first.layer == "loss" else f"{first.layer}, {quantity}: {said}"
    )
    if first.number is not None:
        unknown = "learning rate" if first.mutant.unknown == "rate" else "coefficient"
        where += f" (the {unknown} is {first.number:.6g})"
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


def _relative(error: float) -> str:
    return f"{100 * error:.3g} %" if error >= 1e-5 else f"{error:.0e}"


def _mended(mistake: str, best: Hypothesis, befores: dict[str, Fit]) -> list[str]:
    """Return the arrays that are wrong because of this mistake alone."""
    mended: list[str] = []
    for seen in best.seen:
        if befores[seen.name].matched:
            continue
        own = {one.mutant.mistake for one in seen.own}
        # own mistakes of other gradients do not reach this one
        ids = own | {m.mutant.mistake for m in best.made[: seen.made] if m.mutant.target == "delta"}
        if ids - {None} == {mistake}:
            mended.append(seen.name)
    return mended


def _expect(mended: list[str], *, alone: bool) -> str:
    if alone:
        return f"Everything is right: {_listed(mended)} too."
    if not mended:
        return "The other findings still stand, and what follows from them."
    return f"{_listed(mended)} should be right; the other findings stay."


def _listed(names: list[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def _alternatives(
    mistake: str, best: Hypothesis, others: list[Hypothesis]
) -> tuple[Alternative, ...]:
    """Return what else a mistake could be: other mistakes, or the same one in another layer."""
    mine = {(one.mutant.mistake, one.layer) for one in best.made}
    found: dict[tuple[str | None, str], Alternative] = {}
    for other in others:
        theirs = {(one.mutant.mistake, one.layer) for one in other.made}
        if not any(m == mistake for m, _ in mine - theirs):
            continue
        for one in other.made:
            key = one.mutant.mistake, one.layer
            if key in mine or key in found or one.mutant.mistake is None:
                continue
            if (mistake, one.mutant.mistake) == ("bias-averaged", "batch-scale"):
                continue  # of a bias alone, the two are one
            where = "the loss" if one.layer == "loss" else one.layer
            found[key] = Alternative(
                one.mutant.mistake,
                one.layer,
                f"{one.mutant.mistake} at {where}: {one.mutant.said}.",
                separator(best, other),
            )
    return tuple(found.values())


def separator(one: Hypothesis, other: Hypothesis) -> str:
    """Say which further input would tell two hypotheses apart."""
    deltas = _deltas(one.chain)
    rest = _deltas(other.chain)
    for name, delta in deltas.items():
        if name in rest and length(delta - rest[name]) > 1e-4 * max(length(delta), 1e-300):
            return f"The delta of {name} would tell."
    return "Another batch would tell: fullback.probe(net) makes one."


def _deltas(chain: Chain) -> dict[str, Array]:
    """Return the deltas of a chain by the layer whose output they belong to, from the top."""
    found: dict[str, Array] = {}
    for link in reversed(chain.links()):
        if link.given is None:
            name = link.through
            if link.parent is not None:
                name = link.worlds.true.scenes[link.through].before
            else:
                name = next(reversed(link.worlds.true.scenes))
            found[name] = link.at(0)
    return found


# No match ---------------------------------------------------------------------------------------


def _unexplained(search: Search, best: Hypothesis, trace: Trace, given: Given) -> Finding:
    """Narrow down what no mistake of the catalogue explains, and describe it."""
    name = best.open[0]
    theirs = _theirs(given, name, best)
    if name.startswith("delta of "):
        layer, quantity, right, where = _open_delta(search, name, trace, given, best)
    else:
        layer, target = name.split(".")
        quantity, right = _TARGETS[target], trace.gradients[name]
        where = _open_gradient(search, best, layer, given)
        above = _given_above(layer, best)
        if above is not None:
            right = search.worlds.true.scenes[layer].layer.backward(
                above, search.worlds.true.scenes[layer].kept,
                search.worlds.true.scenes[layer].parameters,
            )[1][target]  # fmt: skip
    relative = length(theirs - right) / max(length(right), 1e-300)
    said = "; ".join(describe(theirs, right, _axes(name, theirs)))
    rest = list(best.open[1:])
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
        evidence=Evidence(
            name, relative, None, f"{_relative(relative)} off the right values: {said}"
        ),
        message=message,
        expect="",
    )


def _axes(name: str, theirs: Array) -> str:
    if name.startswith("delta of "):
        return "images channels rows columns" if theirs.ndim == 4 else "images features"
    return "filters channels rows columns" if theirs.ndim == 4 else "units features"


def _given_above(layer: str, best: Hypothesis) -> Array | None:
    """Return the delta of a layer that they gave."""
    reading = dict(best.read).get(f"delta of {layer}")
    return None if reading is None else reading.values


def _open_delta(
    search: Search, name: str, trace: Trace, given: Given, best: Hypothesis
) -> tuple[str, str, Array, str]:
    """Return the layer whose backward pass a wrong delta comes from, and the right delta."""
    of = name.removeprefix("delta of ")
    chain = ("input", *search.names)
    above = chain[chain.index(of) + 1 :]
    between: list[str] = []
    for n in above:
        between.append(n)
        if n in given.deltas:
            break
    else:
        between.append("loss")
    worlds = search.worlds
    if between == ["loss"]:
        return "loss", "first delta", trace.deltas[of], "It is made at the loss."
    if between[-1] == "loss":
        right = trace.deltas[of]
    else:
        right = _theirs(given, f"delta of {between[-1]}", best)
        for n in reversed(between):
            right = next_delta(worlds.true.scenes[n], right)
    if len(between) == 1:
        where = (
            f"The delta of {between[0]}, from which it is computed, is given: it is {between[0]}'s "
            "own backward pass."
        )
        return between[0], "next delta", right, where
    where = (
        f"It lies between {between[-1]} and {of}; the deltas in between would say where: "
        f"{_listed(between[:-1])}."
    )
    return between[-1] if between[-1] != "loss" else between[-2], "next delta", right, where


def _open_gradient(search: Search, best: Hypothesis, layer: str, given: Given) -> str:
    if layer in given.deltas:
        return f"The delta of {layer} is given: it is the gradient's own formula."
    names = search.names
    above = [
        n
        for n in names[names.index(layer) + 1 :]
        if n in given.deltas or any(key.split(".")[0] == n for key in given.gradients)
    ]
    below = [s for s in best.seen if s.name.split(".")[-2:][0] in names[: names.index(layer) + 1]]
    if any(s.name.split(".")[0] == layer or s in below for s in best.seen[-len(below) :] if below):
        return "Others that depend on the same delta are right, so it is this formula alone."
    upper = above[0] if above else "the loss"
    between = names[names.index(layer) : names.index(above[0]) if above else None]
    return (
        f"The mistake lies between {upper} and {layer}, or in this formula; the deltas of "
        f"{_listed(list(reversed(between)))} would say where."
    )
