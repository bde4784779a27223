"""A user's layer, examined on one input after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fullback.check.layer.calls import CallInputs
from fullback.check.layer.cases import Case, Cases
from fullback.check.layer.naming import Observed, find_mistakes, plain_mistake
from fullback.check.layer.reference import SAME, off_by
from fullback.check.layer.report import DIFFERENCES, REFERENCE, LayerCheck, LayerFinding
from fullback.check.layer.returned import UserError
from fullback.check.layer.truth import ByReference, Slopes
from fullback.check.layer.user_layer import Instance, UserLayer
from fullback.layers.base import Array

_NOT_LINEAR = "backward is not linear in dy"


class Examination:
    """Collects what is wrong with a layer.

    Attributes
    ----------
    notes : as in ``LayerCheck``
    observed : every gradient on every input, by its name
    found : what else is wrong: mistake, quantity and what it is, and on which inputs, in words
    given : the names of the gradients that backward gives
    """

    def __init__(self, layer: UserLayer, cases: Cases, samples: int, seed: int) -> None:
        self.layer, self.cases = layer, cases
        self.samples, self.seed = samples, seed
        self.rng = np.random.default_rng(seed)
        self.notes: list[str] = []
        self.observed: dict[str, list[Observed]] = {}
        self.found: dict[tuple[str | None, str, str], list[tuple[Case, str]]] = {}
        self.given: dict[str, None] = {}

    @property
    def wrong(self) -> dict[str, list[Observed]]:
        """What is wrong of the gradients, by name."""
        every = {n: [o for o in seen if o.verdict.wrong] for n, seen in self.observed.items()}
        return {name: wrong for name, wrong in every.items() if wrong}

    @property
    def count(self) -> int:
        """How much is wrong so far."""
        return len(self.wrong) + len(self.found)

    def examine(self, case: Case) -> None:
        """Examine the layer on one input."""
        try:
            with np.errstate(all="ignore"):
                self._examine(case)
        except UserError as error:
            kind = str(error).partition(":")[0]
            message = str(error) if str(error).startswith("returned") else f"raises {error}"
            self._find(None, "backward", case, message, kind)
        except KeyError as error:
            message = f"backward gives {error} in some calls and not in others"
            self._find(None, "backward", case, message)

    def examine_beside_kinks(self) -> None:
        """Examine what has no derivative on some inputs, like ties, on inputs next to these."""
        every = [one for seen in self.observed.values() for one in seen]
        for case in dict.fromkeys(one.case for one in every if one.verdict.kinks):
            x = case.inputs.x
            move = 0.05 * float(np.sqrt((x**2).mean()) or 1.0) * self.rng.uniform(-1, 1, x.shape)
            beside = replace(case.inputs, x=x + move)
            self.examine(Case(f"{case.name}, each cell moved a little", beside, case.setting))

    def _examine(self, case: Case) -> None:
        inputs, layer = case.inputs, self.layer
        y = layer.output(inputs)
        if not np.isfinite(y).all():
            self._find(None, "y", case, "forward returns values that are not finite")
            return
        if not np.array_equal(y, layer.output(inputs)):
            message = "forward gives something else for the same input; fix its random draws"
            self._find(None, "y", case, message)
            return
        if case.differs:
            self._find(None, "y", case, case.differs, "differs")
        loss = inputs.labels is not None
        if case.reference is not None:
            dy = case.reference.delta(self.rng, y, ties=case.ties)
        else:
            dy = np.ones_like(y) if loss else self.rng.normal(size=y.shape).astype(y.dtype)
        found = self._gradients(case, dy)
        self.given |= dict.fromkeys(found)
        shapes = {"dx": inputs.x.shape} | {f"d{n}": a.shape for n, a in inputs.parameters.items()}
        right = True
        truth: Slopes | ByReference
        if case.reference is not None:
            truth = ByReference(case.reference, dy, case.ties)
        else:
            truth = Slopes(layer, inputs, dy, self.samples, self.seed)
        for name in [name for name in shapes if name in found]:
            value = self._shaped(case, name, found[name], shapes[name])
            if value is None:
                right = False
                continue
            found[name] = value
            verdict = truth.judge(name, value, layer.blur.get(name, 0.0))
            right &= verdict.wrong is None
            observed = Observed(name, value, case, dy, truth, verdict)
            self.observed.setdefault(name, []).append(observed)
        if right and not loss:
            self._linear(case, dy, found)

    # Calling ----------------------------------------------------------------------------------

    def _gradients(self, case: Case, dy: Array) -> dict[str, Array]:
        """Run backward, and look at what it does to its surroundings."""
        layer, inputs, on = self.layer, case.inputs, self.layer.instance()
        handed, handed_dy = inputs.copy(), dy.copy()
        ran = layer.run(handed, on)
        self._untouched(case, "forward", handed)
        y, handed = ran.y.copy(), inputs.copy() if _changed(inputs, handed) else handed
        first = layer.back(handed, ran, handed_dy, on)
        if not layer.updates:
            self._untouched(case, "backward", handed)
        if not np.array_equal(handed_dy, dy):
            self.notes.append("backward writes to the dy that it is given: others may need it")
        if not np.array_equal(ran.y, y):
            message = "backward writes to the y that forward returned"
            self._find("cache-overwritten", "y", case, message)
        second, third = self._again(case, dy, on), self._again(case, dy, on)
        settled = True
        for name in first:
            if off_by(second[name], first[name]) <= SAME or not np.isfinite(first[name]).all():
                continue
            steps = second[name] - first[name], third[name] - second[name]
            settled = False
            if off_by(*steps) <= SAME and np.abs(steps[0]).max() > 0:
                message = (
                    "every call of backward adds to what the calls before left; set the gradient "
                    "to zero first"
                )
                self._find("gradients-not-cleared", name, case, message)
                first[name] = steps[0]
            elif name in layer.blur:
                self.notes.append(f"{name} depends on earlier steps, as with momentum")
            else:
                message = "backward gives something else when forward and backward run again"
                self._find(None, name, case, message)
        if settled:
            self._interleaved(case, dy, first, on)
        return first

    def _again(self, case: Case, dy: Array, on: Instance) -> dict[str, Array]:
        handed = case.inputs.copy()
        return self.layer.back(handed, self.layer.run(handed, on), dy.copy(), on)

    def _interleaved(
        self, case: Case, dy: Array, expected: Mapping[str, Array], on: Instance
    ) -> None:
        """See whether another forward pass disturbs what a layer keeps of an input."""
        other = replace(case.inputs, x=1 - 2 * case.inputs.x).copy()
        takes_cache = {"cache", "*cache"} & self.layer.backward_signature.takes
        handed = case.inputs.copy()
        on = on if takes_cache else self.layer.instance()
        try:
            ran = self.layer.run(handed, on) if takes_cache else None
            self.layer.run(other, on)
            if ran is None:
                ran = self.layer.run(handed, on)
            found = self.layer.back(handed, ran, dy.copy(), on)
        except UserError:
            return
        for name, value in found.items():
            if name in expected and off_by(value, expected[name]) > SAME:
                words = "what forward kept is changed by the next forward pass; keep a copy of it"
                if not takes_cache:
                    words = "backward uses what an earlier input left, not that of the last forward"
                self._find("cache-overwritten", name, case, words)
                return

    def _untouched(self, case: Case, what: str, handed: CallInputs) -> None:
        for name in _changed(case.inputs, handed):
            message = f"{what} writes to the {name} that it is given; work on a copy"
            self._find("cache-overwritten", name, case, message)

    # Comparing --------------------------------------------------------------------------------

    def _shaped(self, case: Case, name: str, value: Array, shape: tuple[int, ...]) -> Array | None:
        """Return a gradient in the shape of what it is a gradient of."""
        if value.shape != shape:
            message = f"{name} has shape {value.shape}, where {shape} is expected"
            if [n for n in value.shape if n > 1] != [n for n in shape if n > 1]:
                message += "; it is transposed" * (value.shape == shape[::-1])
                message += "; a slice like [p:-p] is empty where p is 0" * (not value.size)
                self._find(None, name, case, message, "shape")
                return None
            users = name[1:] in self.layer.parameters
            if name == "dx" or (users and np.broadcast_shapes(value.shape, shape) != shape):
                self._find(None, name, case, message, "shape")
            else:
                self.notes.append(message)
        if not np.isfinite(value).all():
            self._find(None, name, case, f"{name} holds values that are not finite")
            return None
        return value.reshape(shape)

    def _linear(self, case: Case, dy: Array, found: Mapping[str, Array]) -> None:
        """See whether backward is linear in dy, as every derivative is."""
        other = self.rng.normal(size=dy.shape)
        mixed = self.layer.gradients(case.inputs, 100 * dy - 3 * other)
        alone = self.layer.gradients(case.inputs, other)
        for name, value in found.items():
            expected = 100 * value - 3 * alone[name].reshape(value.shape)
            size = 100 * np.abs(value).max() + np.abs(alone[name]).max()
            off = np.abs(mixed[name].reshape(value.shape) - expected).max()
            if off > 1e-5 * size + 200 * self.layer.blur.get(name, 0.0):
                self._find(None, name, case, _NOT_LINEAR)

    def fails_on_batches(self) -> str:
        """Return why backward fails, or gives impossible shapes, on several images; else ""."""
        batch, failed, why = self.cases.batch, set(), ""
        for (_, quantity, what), found in self.found.items():
            if quantity == "backward" or what == "shape":
                failed |= {id(case) for case, _ in found}
                why = why or found[0][1]
        if batch is None:
            return ""
        several = [case for case in self.cases.cases if case.inputs.x.shape[batch] > 1]
        return why if all(id(case) in failed for case in several) else ""

    def result(self) -> LayerCheck:
        """Return all that was found."""
        findings, cases = self.findings(), self.cases
        rows = [
            replace(one.verdict, probe=one.case.title)
            for seen in self.observed.values()
            for one in seen
        ]
        judged = {row.quantity for row in rows if row.sure}
        names = ["dx", *(f"d{name}" for name in cases.cases[0].inputs.parameters)]
        unsure = [name for name in names if name in self.observed and name not in judged]
        missing = [f"{name} (backward gives none)" for name in names if name not in self.given]
        missing += [f"{name} (it has no derivative on these inputs)" for name in unsure]
        called = f"called as {self.layer.forward_signature} and {self.layer.backward_signature}"
        return LayerCheck(
            tuple(findings),
            tuple(rows),
            tuple(dict.fromkeys((called, *cases.notes, *self.layer.notes, *self.notes))),
            tuple(name for name in names if name in judged),
            (*missing, *cases.refused),
            not unsure and bool(judged),
            REFERENCE if cases.cases[0].reference is not None else DIFFERENCES,
        )

    # Naming -----------------------------------------------------------------------------------

    def findings(self) -> list[LayerFinding]:
        """Return what is wrong, with the mistake's name where it is known."""
        self._take_convention()
        findings = []
        for (mistake, quantity, what), found in self.found.items():
            if what == _NOT_LINEAR and quantity in self.wrong:
                continue
            (first, message), cases = found[0], [case for case, _ in found]
            message += self._on_more(cases)
            findings.append(LayerFinding(mistake, quantity, first.title, 0.0, message))
        for text, settings in self.cases.crashes.items():
            at = " and at ".join(settings)
            message = f"raises {text}, at {at}"
            findings.append(LayerFinding(None, "forward", "every input", 0.0, message))
        for name, wrong in self.wrong.items():
            findings += self._named(name, wrong)
        return findings

    def _take_convention(self) -> None:
        """Note parameter gradients that are all divided by N: in a program they may be right."""
        names, batch = [name for name in self.given if name != "dx"], self.cases.batch
        if batch is None or not names or set(self.wrong) != set(names):
            return
        times_n = {}
        for name in names:
            times_n[name] = [
                replace(
                    one,
                    verdict=one.truth.judge(name, one.gradient * one.case.inputs.x.shape[batch]),
                )
                for one in self.observed[name]
            ]
        if not any(one.verdict.wrong for every in times_n.values() for one in every):
            self.observed |= times_n
            self.notes.append(
                f"{', '.join(names)}: divided by the number of images N, which is right where the "
                "delta that comes in was not"
            )

    def _named(self, name: str, wrong: list[Observed]) -> list[LayerFinding]:
        """Return a wrong gradient as the catalogue's mistakes, or as one of any layer's."""
        title, verdict, more = wrong[0].case.title, wrong[0].verdict, [one.case for one in wrong]
        where = f"({verdict.wrong}){self._on_more(more)}"
        message = f"{verdict.wrong}{self._on_more(more)}"
        finding = LayerFinding(None, name, title, verdict.error, message)
        if (reference := wrong[0].case.reference) is not None:
            mutants = find_mistakes(self.observed[name])
            mistakes = [reference.mistake(mutant) for mutant in mutants]
            words = [f"{m.description[0].upper()}{m.description[1:]} {where}" for m in mutants]
            if mutants:
                return [
                    replace(finding, mistake=m.id, message=text, mend=m.mend, hint=m.hint)
                    for m, text in zip(mistakes, words, strict=True)
                ]
        for one in wrong:
            plain = plain_mistake(self.layer, one, self.cases.batch)
            if plain is not None:
                return [replace(finding, mistake=plain[0], message=f"{plain[1]} {where}")]
        return [finding]

    def _on_more(self, cases: list[Case]) -> str:
        """Return on how many more inputs it shows, and in which settings, if not in all."""
        others = len({case.title for case in cases}) - 1
        settings = list(dict.fromkeys(case.setting for case in cases))
        words = f", and on {others} more input{'s' * (others > 1)}" if others else ""
        if len(settings) < len({case.setting for case in self.cases.cases}):
            words += f"; at {' and '.join(settings)}"
        return words

    def _find(
        self, mistake: str | None, quantity: str, case: Case, message: str, what: str = ""
    ) -> None:
        self.found.setdefault((mistake, quantity, what or message), []).append((case, message))


def _changed(before: CallInputs, after: CallInputs) -> list[str]:
    """Return the names of the arrays, x and parameters, that are not what they were."""
    arrays, others = ({"x": one.x, **one.parameters} for one in (before, after))
    return [name for name in arrays if not np.array_equal(arrays[name], others[name])]
