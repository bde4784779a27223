"""The search: which mistakes, made together, give exactly the arrays that a program computed.

From the loss down, a *hypothesis* is the delta that arrives at a layer in that program, with the
mistakes assumed so far. At every layer it is compared with what was submitted of that layer; at
every layer it branches, into the right next delta and that of each mutant. Fewer mistakes are
better, and the same mistake at several layers, as a function that they share makes it, hardly
counts more than once.

The search is given the hypotheses that it begins with, at the loss (``conventions``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from fullback.check.diagnose.chain import Chain, bounds_in, gradient_in
from fullback.check.diagnose.compare import FAINT, NEARLY, Fit, factor, length
from fullback.check.diagnose.conventions import Convention, Ties
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.hypothesis import Assumed, Hypothesis, Match, cost_of, with_rate
from fullback.check.diagnose.layouts import Reading
from fullback.check.diagnose.matching import Matcher
from fullback.check.diagnose.report import place_of
from fullback.check.diagnose.submission import Submitted
from fullback.check.mistakes import Mutant, Target, compatible, mutants_of

_SOME = 2  # numbers that may agree by chance, or by the symmetry of a sum
NARROW, WIDE = 0.35, 1.2  # what a hypothesis may cost more than the best and be carried on
_BEAM = 1500  # hypotheses carried on between two observations, at most,
_BYTES = 2**31  # and only as many as this memory holds the deltas of
_KEPT = 40  # and beyond one
_WORK = 4e9  # multiplications, at most, to explain one gradient by two mistakes
_LEAST_WORK = 2e6  # what it takes to try one, in multiplications of the same time


@dataclass(eq=False)
class Search:
    """One search.

    Attributes
    ----------
    ensemble, names, submitted : the forward passes, the layers in order, and the arrays to explain
    depth : new mistakes that may lie between two arrays that are explained
    margin : what a hypothesis may cost more than the best one and be carried on
    settled : the best hypothesis of an earlier search, whose upper steps need no more searching
    ties : how ties are decided, by the layer's name, where not as in fullback
    found : the hypotheses that are left, the best ones first
    pruned : whether there were too many hypotheses to carry them all on
    matcher : compares arrays with what hypotheses compute
    """

    ensemble: Ensemble
    names: Sequence[str]
    submitted: Submitted
    depth: int
    margin: float = NARROW
    settled: Hypothesis | None = None
    ties: Ties = field(default_factory=dict)
    found: list[Hypothesis] = field(default_factory=list, init=False)
    pruned: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.matcher = Matcher(self.ensemble, self.ties)
        exact = self.ensemble.exact
        largest = max(a.nbytes for a in exact.activations.values())
        self._beam = int(min(max(_BYTES // largest, 100), _BEAM))
        self._mutants = {
            name: [m for m in mutants_of(p) if m.mistake is not None] if self.depth else []
            for name, p in exact.layers.items()
        }
        self._settled = _settled_steps(self.settled, self.names) if self.settled else {}

    @property
    def best(self) -> Hypothesis:
        """The hypothesis that costs least."""
        return self.found[0]

    @property
    def complete(self) -> bool:
        """Whether every array is explained, and none by undecided units decided in any way."""
        return not self.best.open and not any(match.fit.bounded for match in self.best.matches)

    def run(self, conventions: Iterable[Convention] = (Convention(),)) -> Search:
        """Search, beginning with these conventions; return the search itself."""
        hypotheses = [h for one in conventions for h in self._at_the_loss(one)]
        below = {place_of(key)[0] for key in self.submitted}
        for name in reversed(self.names):
            hypotheses = self._observe_delta(hypotheses, name)
            hypotheses = self._observe_gradients(hypotheses, name)
            below.discard(name)
            if not below:
                break
            hypotheses = self._branch(hypotheses, name)
        hypotheses = self._observe_delta(hypotheses, "input")
        hypotheses = [h for h in hypotheses if not h.chain.unresolved or not h.assumed]
        self.found = sorted(hypotheses, key=lambda h: h.cost)
        return self

    # The loss and the steps between layers ------------------------------------------------------

    def _at_the_loss(self, convention: Convention) -> Iterator[Hypothesis]:
        mutants = mutants_of(self.ensemble.exact.loss) if self.depth else []
        stages = {m.stage for m in convention.mutants}
        free = [m for m in mutants if m.stage not in stages]
        usual = not convention.mutants
        for subset in self._choices(free, "loss") if usual else _subsets(free, self.depth):
            whole = (*convention.mutants, *subset)
            yield Hypothesis(
                Chain(self.ensemble, None, "loss", whole),
                tuple(Assumed(m, "loss") for m in whole),
                new=len(subset),
                share=convention.share,
            )

    def _branch(self, hypotheses: list[Hypothesis], name: str) -> list[Hypothesis]:
        """Carry every hypothesis through a layer, rightly and with each of its mutants."""
        mutants = [m for m in self._mutants[name] if m.target == "delta"]
        found = []
        for h in hypotheses:
            for subset in self._choices(mutants, name):
                known = {one.mutant.key for one in h.assumed}
                new = h.new + sum(m.key not in known for m in subset)
                if new > self.depth:
                    continue
                early = any(m.unknown == "rate" for m in subset)
                steps = subset
                if name in self.ties and compatible((*subset, self.ties[name])):
                    steps = (*subset, self.ties[name])
                chain = Chain(self.ensemble, h.chain, name, steps, rate=h.rate if early else None)
                number = h.rate if early else None
                more = tuple(Assumed(m, name, number if m.unknown else None) for m in subset)
                found.append(replace(h, chain=chain, assumed=h.assumed + more, new=new))
        if len(found) > self._beam:
            self.pruned = True
            found = sorted(found, key=lambda h: (h.cost, h.crowded))[: self._beam]
        return found

    def _choices(self, mutants: list[Mutant], name: str) -> Iterator[tuple[Mutant, ...]]:
        """Yield the sets of mutants to try in a step: where it is settled, that one alone."""
        if name in self._settled:
            yield tuple(m for m in mutants if m.key in self._settled[name])
        else:
            yield from _subsets(mutants, self.depth)

    # Observations -------------------------------------------------------------------------------

    def _observe_delta(self, hypotheses: list[Hypothesis], name: str) -> list[Hypothesis]:
        """Compare the deltas with the submitted one, and go on with that."""
        key = f"delta of {name}"
        if key not in self.submitted:
            return hypotheses
        readings = self.submitted[key]
        met: list[Hypothesis] = []
        for h in sorted(hypotheses, key=lambda h: h.cost):
            alike = [m.cost for m in met if m.share == h.share]
            if alike and h.cost > min(alike) + NARROW:
                continue  # below, all go on with the same delta
            for reading in readings:
                met += self._meet_delta(h, key, reading)
        settled = [h for h in hypotheses if not h.chain.unresolved]
        for share in {h.share for h in settled} - {h.share for h in met}:
            best = min((h for h in settled if h.share == share), key=lambda h: h.cost)
            best = best.read_as(key, replace(readings[0], cost=0.0))
            met.append(replace(best, open=(*best.open, key)))
        found = []
        for h in _best(met, self.margin):
            given = Chain(self.ensemble, None, name, submitted=h.read[key].values, before=h.chain)
            found.append(replace(h, chain=given, new=0))
            if key in h.open or h.chain.without_mistakes() is not h.chain:
                # the program may go on with the right delta, and what was given is a wrong copy
                found.append(replace(h, chain=h.chain.without_mistakes(), new=0))
        return found

    def _meet_delta(self, h: Hypothesis, key: str, reading: Reading) -> list[Hypothesis]:
        array = reading.values
        solved = with_rate(h, array, lambda h: h.chain.at(0))
        if solved is None or (not array.any() and solved.new):
            return []  # zeros are no evidence of a mistake
        found = self.matcher.fit(h, reading, solved.chain.at, patient=h.right, right=h.right)
        if not found.matched and h.right:
            chain = solved.chain
            found = self.matcher.between(h, reading, chain.at, lambda: chain.bounds, chain)
        if not found.matched:
            return []
        if not h.right and self.matcher.blurred(
            h, reading, found, solved.chain.without_mistakes().at
        ):
            return []
        match = Match(key, found, (), solved.chain, len(solved.assumed))
        solved = replace(solved, matches=(*solved.matches, match), shares=h.shares | found.shares)
        return [solved.read_as(key, reading)]

    def _observe_gradients(self, hypotheses: list[Hypothesis], name: str) -> list[Hypothesis]:
        """Compare a layer's own gradients with those submitted, right and with each mutant."""
        keys = set()
        order: tuple[Target, ...] = ("weight", "bias")  # the weights say more
        for target in order:
            if f"{name}.{target}" in self.submitted:
                hypotheses = self._observe_gradient(hypotheses, name, target)
                keys.add(f"{name}.{target}")
        if not keys:
            return hypotheses
        stuck = all(keys <= set(h.open) for h in hypotheses)  # nothing speaks for any mistake above
        margin = NARROW if stuck else self.margin
        if stuck:  # two mistakes at once are looked for down to what they do not explain
            self.depth = min(self.depth, 1)
        return [replace(h, new=0) for h in _best(hypotheses, margin)]

    def _observe_gradient(
        self, hypotheses: list[Hypothesis], name: str, target: Target
    ) -> list[Hypothesis]:
        key = f"{name}.{target}"
        readings = self.submitted[key]
        mutants = [m for m in self._mutants[name] if m.target == target]
        met: list[Hypothesis] = []
        missed: list[Hypothesis] = []
        for h in sorted(hypotheses, key=lambda h: h.cost):
            if h.cost > min((m.cost for m in met), default=np.inf) + self.margin:
                break
            explained = []
            for reading in readings:
                solved = with_rate(
                    h,
                    reading.values,
                    lambda h: gradient_in(h.chain, name, target, (), h.share, 0.0)(0),
                )
                if solved is not None:
                    explained += self._explain(solved, reading, name, target, ())
                    if solved is not h and not explained:  # the rate goes with the reading
                        missed.append(solved)
            met += explained
            sure = any(not e.matches[-1].fit.bounded for e in explained)
            if not sure and not h.chain.unresolved:
                missed.append(h)
        p, work = self.ensemble.exact.layers[name], 0.0
        trial = _LEAST_WORK + float(p.y.size * p.parameters["weight"][0].size)
        for h, subset, cost in self._candidates(missed, mutants, name, target):
            if cost > min((m.cost for m in met), default=np.inf) + self.margin:
                break
            if h.new + len(subset) > 1:
                work += trial
                if work > _WORK:
                    self.pruned = True
                    break
            for reading in readings:
                met += self._explain(h, reading, name, target, subset)
        matched = {id(h.chain) for h in met}
        still = [h for h in missed if id(h.chain) not in matched]
        little = readings[0].values.size <= _SOME
        return met + [replace(h, open=(*h.open, key), little=h.little + little) for h in still]

    def _candidates(
        self, hypotheses: list[Hypothesis], mutants: list[Mutant], name: str, target: Target
    ) -> list[tuple[Hypothesis, tuple[Mutant, ...], float]]:
        """Return every hypothesis with every set of a gradient's own mistakes, and the cost.

        The cheapest come first, and of these the ones that the layer's bias does not speak against.
        """
        found = []
        subsets = [(s, {m.mistake for m in s}) for s in _subsets(mutants, self.depth) if s]
        of_bias = self.submitted.get(f"{name}.bias", ()) if target == "weight" else ()
        for h in hypotheses:
            known = {one.mutant.mistake for one in h.assumed}
            possible = [s for s, ids in subsets if h.new + len(ids - known) <= self.depth]
            if not possible:
                continue
            unlikely = bool(of_bias) and self.matcher.ruled_out(h, of_bias[0], name, "bias")
            for subset in possible:
                assumed = (*h.assumed, *(Assumed(m, name, h.decay) for m in subset))
                cost = cost_of(assumed) + h.unexplained
                found.append((cost, unlikely, h, subset))
        found.sort(key=lambda entry: entry[:2])
        return [(h, subset, cost) for cost, _, h, subset in found]

    def _explain(
        self, h: Hypothesis, reading: Reading, name: str, target: Target, subset: tuple[Mutant, ...]
    ) -> list[Hypothesis]:
        """Return the hypothesis with these mistakes in a gradient, if they explain the array."""
        array = reading.values
        if (subset or h.new) and not array.any():
            return []  # zeros are no evidence of a mistake
        decay = h.decay or 0.0
        fitted = h.decay
        numbered = next((m for m in subset if m.solve), None)
        if numbered is not None and numbered.solve is not None and h.decay is None:
            others = tuple(m for m in subset if m.solve is None)
            base = gradient_in(h.chain, name, target, others, h.share, 0.0)(0)
            if array.size < 2 or base.shape != array.shape:
                return []
            decay = numbered.solve(self.ensemble.exact.layers[name], base, array)
            if not np.isfinite(decay):
                return []
            fitted = decay
        computed = gradient_in(h.chain, name, target, subset, h.share, decay)

        right = h.right and not subset
        if not (subset or right) and self.matcher.ruled_out(h, reading, name, target):
            return []
        cancels = self.matcher.sketches.cancels(h.chain, name, target, reading)
        found = self.matcher.fit(h, reading, computed, patient=cancels and not subset, right=right)
        if not (found.matched or subset or cancels) and self.matcher.sketches.uncertain(
            h.chain, name, target, h.share, reading
        ):
            found = self.matcher.fit(h, reading, computed, patient=True, right=right)
        if right and not found.matched:
            bounds = partial(bounds_in, h.chain, name, target, (), h.share)
            found = self.matcher.between(h, reading, computed, bounds, None)
        if not found.matched:
            return []
        if subset and _needless(h, reading, name, target, found, subset):
            return []
        if not (subset or h.right):
            usual = gradient_in(h.chain.without_mistakes(), name, target, (), h.share, decay)
            if self.matcher.blurred(h, reading, found, usual):
                return []
        if not cancels and found.size < FAINT * found.tolerance:
            found = replace(found, judged=False)
        here = tuple(Assumed(m, name, decay if m.solve else None) for m in subset)
        assumed = h.assumed + here
        match = Match(f"{name}.{target}", found, here, h.chain, len(assumed), array.size)
        h = replace(
            h,
            assumed=assumed,
            matches=(*h.matches, match),
            decay=fitted,
            shares=h.shares | found.shares,
        )
        return [h.read_as(match.name, reading)]


def _needless(
    h: Hypothesis,
    reading: Reading,
    name: str,
    target: Target,
    found: Fit,
    subset: tuple[Mutant, ...],
) -> bool:
    """Whether these mistakes explain what is right, or two of them what is one factor off."""
    array, right = reading.values, h.chain.without_mistakes()
    if len(subset) > 1:
        usual = gradient_in(h.chain, name, target, (), h.share, 0.0)(0)
        if factor(array, usual, NEARLY):
            return True
    if right is h.chain:
        return False
    usual = gradient_in(right, name, target, (), h.share, 0.0)(0)
    return length(array - usual) <= found.tolerance


def _settled_steps(h: Hypothesis, names: Sequence[str]) -> dict[str, set[tuple[str, str]]]:
    """Return the steps that need no more searching, with the mistakes in them.

    A delta that explains a gradient of several numbers, without a mistake in that gradient's own
    formula, need not be that of the program: the layer's input may be zero where the two differ.
    But those from which the one of the next such layer above was computed are.
    """
    met = [
        names.index(match.name.split(".")[0])
        for match in h.matches
        if not match.mistakes and not match.name.startswith("delta of ") and match.values > _SOME
    ]
    above = [place for place in met if place > min(met)]
    if not above:
        return {}
    steps = ["loss", *(name for name in names if names.index(name) > min(above))]
    return {
        step: {o.mutant.key for o in h.assumed if o.layer == step and o.mutant.target == "delta"}
        for step in steps
    }


def _subsets(mutants: Sequence[Mutant], most: int) -> Iterator[tuple[Mutant, ...]]:
    """Yield every set of mutants that can be made at once, the empty one first."""
    for count in range(most + 1):
        for subset in itertools.combinations(mutants, count):
            if compatible(subset):
                yield subset


def _best(hypotheses: list[Hypothesis], margin: float) -> list[Hypothesis]:
    """Return those within the margin of the best one.

    Whether the deltas are those of the batch's sum or of its mean is settled by the gradients
    alone, so each of the two has a best one of its own.
    """
    ordered = sorted(hypotheses, key=lambda h: h.cost)
    least = {h.share: h.cost for h in reversed(ordered)}
    return [h for h in ordered if h.cost <= least[h.share] + margin][:_KEPT]
