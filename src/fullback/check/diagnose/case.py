"""One case: what was submitted of a batch, and the diagnosis of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.diagnose.compare import FAINT, length, precision
from fullback.check.diagnose.conditions import conditions, not_finite
from fullback.check.diagnose.conventions import Ties, conventions, tie_rules
from fullback.check.diagnose.ensemble import Ensemble, build_ensemble
from fullback.check.diagnose.findings import explain
from fullback.check.diagnose.forward import ForwardVerdict, check_forward
from fullback.check.diagnose.hypothesis import Hypothesis
from fullback.check.diagnose.layouts import SubmittedArray
from fullback.check.diagnose.memory_order import order_findings
from fullback.check.diagnose.reader import Given
from fullback.check.diagnose.report import Diagnosis, Finding
from fullback.check.diagnose.search import NARROW, WIDE, Search
from fullback.check.diagnose.settings import Setting, other_settings
from fullback.check.diagnose.submission import Submission, Submitted
from fullback.check.mistakes import named_arrays
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Trace

_SINGLE = 2.0**-23
_DOUBLE = 1e-11  # relative error that most cells in double precision have, at most
_NAMES = {2.0**-52: "float64", _SINGLE: "float32", 2.0**-10: "float16"}
_OWN_FORWARD = (
    "the backward pass is right for the network's own forward pass, and was judged by that: it was "
    "not computed from what was given of the forward pass"
)
_ENOUGH = 0.5  # a cost below which nothing is left to explain: conventions, and no mistake


@dataclass(eq=False)
class Case:
    """What is judged.

    Attributes
    ----------
    net : the float64 network
    images, targets : the checked batch
    trace : the right pass
    submission : what was submitted of it
    given : what the user gave
    """

    net: Network
    images: Array
    targets: Array
    trace: Trace
    submission: Submission
    given: Given

    def __post_init__(self) -> None:
        self.usable, self.unusable = self.submission.finite()
        scale = 1 / len(self.images) if self.given.reduction == "sum" else 1.0
        self.submitted: Submitted = {
            name: tuple(r if scale == 1 else r.times(scale) for r in array.readings)
            for name, array in self.usable.items()
            if not name.startswith(("output of ", "probabilities"))
        }
        self.activations = {
            name: m.values
            for name, m in self.submission.activations.items()
            if f"output of {name}" in self.usable
        }
        array = self.usable.get("probabilities")
        self.probabilities = array.values if array else None
        self._plain: dict[float, tuple[Search, ForwardVerdict]] = {}

    @np.errstate(all="ignore")  # what a mistake makes of a delta may overflow
    def diagnosis(self) -> Diagnosis:
        """Return the diagnosis, of another setting where all is right in it."""
        arrays = [m.values.astype(m.dtype) for m in self.usable.values() if m.dtype.kind == "f"]
        eps = precision(arrays)
        return self._other_setting(eps) or self._explained(eps)

    # Searches -----------------------------------------------------------------------------------

    def _plainly(self, eps: float) -> tuple[Search, ForwardVerdict]:
        """Look for a right backward pass, in a precision, and judge the forward pass."""
        if eps not in self._plain:
            ensemble = self._ensemble(eps, self.activations, self.probabilities)
            verdict = check_forward(
                ensemble, self.net.names, self.activations, self.probabilities,
                lambda: self._ensemble(eps, {}, None),
            )  # fmt: skip
            if verdict.assumed:  # so that what follows from a wrong output is not wrong again
                outputs = self.activations | verdict.assumed
                ensemble = self._ensemble(eps, outputs, self.probabilities)
            plain = self._right(ensemble)
            if verdict.findings and plain.best.open:
                other = self._right(self._ensemble(eps, {}, None))
                if not other.best.open:
                    plain, verdict = other, replace(verdict, notes=[_OWN_FORWARD])
            self._plain[eps] = plain, verdict
        return self._plain[eps]

    def _ensemble(
        self, eps: float, outputs: Mapping[str, Array], probabilities: Array | None
    ) -> Ensemble:
        """Return the forward passes that go on with these outputs and probabilities."""
        return build_ensemble(
            self.net, self.images, self.targets, eps, outputs, probabilities,
            training=self.given.training, seed=self.given.seed,
        )  # fmt: skip

    def _right(self, ensemble: Ensemble) -> Search:
        """Search without mistakes: as fullback computes, then with one rule for all ties."""
        best = self._searched(ensemble, 0)
        if best.best.cost <= _ENOUGH or not ensemble.undecided:
            return best
        tied = ensemble.tied()
        ways = [(tied, ties) for ties in tie_rules(tied)]
        ways += [(ensemble, ties) for ties in tie_rules(ensemble)[1:]]
        for one, ties in ways:
            search = self._searched(one, 0, ties=ties)
            if search.best.cost < best.best.cost:
                best = search
            if best.best.cost <= _ENOUGH:
                break
        return best

    def _searched(
        self,
        ensemble: Ensemble,
        depth: int,
        margin: float = NARROW,
        settled: Hypothesis | None = None,
        *,
        ties: Ties | None = None,
    ) -> Search:
        search = Search(
            ensemble, self.net.names, self.submitted, depth, margin, settled, ties or {}
        )
        scale_free = self.submission.scale_free
        return search.run(
            conventions(
                ensemble, self.submitted, self.trace, self.given.reduction, scale_free=scale_free
            )
        )

    def _deeper(self, best: Search) -> Search:
        """Search with one new mistake a stretch, then with two, as far as it takes."""
        enough, ties = _ENOUGH, best.ties
        for depth, margin, next_enough in ((1, NARROW, 1.7), (1, WIDE, 9.0), (2, WIDE, 0.0)):
            if best.complete and (not best.depth or best.best.cost <= enough):
                break
            settled = best.best if margin == WIDE else None
            search = self._searched(best.ensemble, depth, margin, settled, ties=ties)
            best = search if search.best.cost < best.best.cost else best
            enough = next_enough
        return best

    def _best(self, eps: float) -> tuple[Search, ForwardVerdict]:
        """Return the best search, in single precision where that shows, and what forward shows."""
        search, forward = self._plainly(eps)
        if eps < _SINGLE and (search.best.open or forward.findings):
            wide, of_wide = self._plainly(_SINGLE)
            fewer = len(wide.best.open) + len(of_wide.findings)
            if fewer < len(search.best.open) + len(forward.findings) and self._single(search, wide):
                search, forward = wide, of_wide
        return self._deeper(search), forward

    def _single(self, search: Search, wide: Search) -> bool:
        """Whether what only single precision explains was computed in it.

        Where other arrays are right to double precision, it is that only if it is very nearly right
        and most of its cells are a little off: what is off in some cells is a mistake.
        """
        exact = [
            m for m in search.best.matches if m.fit.judged and m.fit.size > FAINT * m.fit.tolerance
        ]
        right = named_arrays(self.trace)
        for match in wide.best.matches if exact else ():
            if match.name in search.best.open:
                array = (wide.best.read.get(match.name) or self.submitted[match.name][0]).values
                there = right[match.name] != 0
                ratios = array[there] / right[match.name][there]
                off = abs(ratios / np.median(ratios) - 1) > _DOUBLE
                if not match.fit.near or off.mean() < 0.5:
                    return False
        return True

    # Diagnoses ----------------------------------------------------------------------------------

    def _other_setting(self, eps: float) -> Diagnosis | None:
        """Return the diagnosis where all is right in another setting, if there is one."""
        if self.unusable or self.activations or self.probabilities is not None:
            return None
        plain = self._plainly(eps)[0]
        best = plain.best
        if not any(self.usable[name].values.any() for name in best.open):
            return None  # nothing is wrong, or zeros alone, which a dead layer explains
        for setting in other_settings(self.net, self.submitted, training=self.given.training):
            given = replace(self.given, training=setting.training)
            other = replace(self, net=setting.net, given=given)
            other.submitted = setting.submitted
            ensemble = other._ensemble(eps, {}, None)
            logits, usual = ensemble.exact.loss.logits, plain.ensemble.exact.loss.logits
            same = np.allclose(logits, usual, rtol=1e-6, atol=1e-12 * length(usual))
            if same and not setting.finding:
                continue  # nothing shows that the program is in it: no turn changes an output
            found = other._searched(ensemble, 0).best
            if not found.open and all(match.fit.judged for match in found.matches):
                return self._in_setting(setting, best, found, eps)
        return None

    def _in_setting(
        self, setting: Setting, best: Hypothesis, found: Hypothesis, eps: float
    ) -> Diagnosis:
        right = best if setting.finding else found
        notes = [] if setting.finding else [setting.note]
        return Diagnosis(
            findings=[setting.finding] if setting.finding else [],
            right=[match.name for match in right.matches],
            wrong=list(right.open),
            layers=[*reversed(self.net.names), "input"],
            conditions=conditions(self.net, self.images, self.trace),
            notes=notes + _layout_notes(self.submission, right, self.usable),
            precision=_NAMES[eps],
        )

    def _explained(self, eps: float) -> Diagnosis:
        """Return the diagnosis of the mistakes that explain the arrays."""
        search, forward = self._best(eps)
        widened = search.ensemble.eps > eps
        found = explain(search, widened=widened, more=bool(self.unusable or forward.findings))
        of_forward = [finding.evidence.array for finding in forward.findings]
        wrong = [*self.unusable, *of_forward, *found.wrong]
        notes = _layout_notes(self.submission, search.best, self.usable)
        notes += _search_notes(search, eps, found.not_judged)
        if not any(finding.mistake for finding in found.findings):
            notes += self._advice(wrong, forward.findings)
        return replace(
            found,
            findings=[
                *not_finite({n: m.values for n, m in self.unusable.items()}, self.net.names),
                *forward.findings,
                *order_findings(search.best.read),
                *found.findings,
            ],
            right=forward.right + found.right,
            wrong=wrong,
            layers=[*reversed(self.net.names), "input"],
            conditions=conditions(self.net, self.images, self.trace),
            notes=notes + forward.notes + found.notes,
            precision=_NAMES[search.ensemble.eps],
        )

    def _advice(self, wrong: list[str], forward: list[Finding]) -> list[str]:
        """Say what to submit next where something is wrong that has no name."""
        if not wrong or all(not array.values.any() for array in self.usable.values()):
            return []
        advice: list[str] = []
        layers = zip(self.net.names, self.net.layers, strict=True)
        dropouts = [name for name, layer in layers if layer.kind == "dropout"]
        if dropouts and self.given.training:
            advice.append(
                f"{' and '.join(dropouts)} must leave out the units that fullback leaves out, "
                "net.trace(x, y).kept, or have rate 0 in both"
            )
        if self.probabilities is None and not self.activations:
            advice.append(
                "give fb.diagnose the probabilities next, then the activations: whether the "
                "forward pass is the network's decides what the rest is judged by"
            )
        elif not any(name.startswith("delta of ") for name in self.submitted):
            advice.append(
                "give fb.diagnose the deltas next: with them each layer is judged by itself"
            )
        much = len(forward) > 1 or 2 * len(wrong) >= max(len(self.usable), 3)
        if much and not dropouts:
            advice.append(
                "so much is wrong by itself that the two may not have had the same layers, "
                "weights, images or labels: net.parameters must hold the weights that the program "
                "had (weights= takes them)"
            )
        return advice


def _search_notes(search: Search, eps: float, not_judged: list[str]) -> list[str]:
    """Say what limits the answer: the precision, the search, undecided units."""
    notes, ensemble = [], search.ensemble
    if ensemble.eps > eps:
        notes.append(
            f"the arrays are {_NAMES[eps]}, but agree no better than {_NAMES[ensemble.eps]} does: "
            "somewhere they were computed in it"
        )
    if search.pruned and search.best.open:
        notes.append(
            "there were too many possible pairs of mistakes to try them all; fewer images, or more "
            "deltas, make the search complete"
        )
    notes += list(dict.fromkeys(m.description for m in search.ties.values()))
    if search.matcher.saturated and not_judged:
        notes.append(
            "the loss is saturated: its delta is smaller than what rounding leaves of it, so that "
            f"nothing below can be judged in {_NAMES[ensemble.eps]}: smaller weights help"
        )
    elif ensemble.undecided and (not_judged or search.best.shares):
        notes.append(_undecided(search, not_judged))
    return notes


def _undecided(search: Search, not_judged: list[str]) -> str:
    """Say about how many units rounding or a tie decides, and what follows."""
    counts = {
        name: int(units.any(axis=-1).sum() if units.ndim == 5 else units.sum())
        for name, units in search.ensemble.undecided.items()
    }
    said = (
        f"What cannot be judged here ({', '.join(not_judged)}) follows from how they are decided: "
        "other images, as of fb.probe(net), or biases that are not 0 leave fewer of them, and the "
        "deltas below these layers show how they were decided"
        if not_judged
        else "Either answer was accepted there, the same one in every array"
    )
    where = ", ".join(f"{count} in {name}" for name, count in counts.items())
    return (
        f"rounding or a tie decides about some units ({where}): a ReLU's input next to 0, or "
        f"equal cells in a pooling window. {said}"
    )


def _layout_notes(
    submission: Submission, best: Hypothesis, usable: dict[str, SubmittedArray]
) -> list[str]:
    """Say how names and shapes were read, where that is not plain."""
    notes, turned = list(submission.notes), []
    for name, array in usable.items():
        layout = best.read.get(name, array.readings[0]).layout
        if layout == "transposed":
            turned.append(array.user_name)
        elif layout:
            notes.append(f"{array.user_name} was read as {name} {layout}")
    if turned:
        notes.append(
            f"{', '.join(turned)} came as (inputs, outputs) and was read transposed: a convention"
        )
    if submission.guessed:
        notes.append(f"matched by shape alone: {', '.join(submission.guessed)}")
    return notes
