"""Which mistake a hand-written backward pass has: ``diagnose``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import ArrayLike

from fullback.check.diagnose.batch import images_of, labels_of
from fullback.check.diagnose.compare import length, precision
from fullback.check.diagnose.conditions import conditions, not_finite
from fullback.check.diagnose.conventions import conventions
from fullback.check.diagnose.ensemble import Ensemble, build_ensemble
from fullback.check.diagnose.findings import explain
from fullback.check.diagnose.forward import check_forward
from fullback.check.diagnose.hypothesis import UNEXPLAINED, Hypothesis
from fullback.check.diagnose.layouts import SubmittedArray
from fullback.check.diagnose.memory_order import order_findings
from fullback.check.diagnose.reader import Given
from fullback.check.diagnose.report import Diagnosis, Finding
from fullback.check.diagnose.search import NARROW, WIDE, Search
from fullback.check.diagnose.settings import other_setting
from fullback.check.diagnose.submission import Submission, Submitted, receive
from fullback.errors import OptionError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import require_number, short
from fullback.passes import Seed, Trace, trace_batch

_SINGLE = 2.0**-23
_BETWEEN = (1e-9, 1e-5)  # relative errors that double precision does not make, and single does
_NAMES = {2.0**-52: "float64", _SINGLE: "float32", 2.0**-10: "float16"}


def diagnose(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    gradients: Any = None,
    deltas: Mapping[str, Any] | None = None,
    activations: Mapping[str, Any] | None = None,
    probabilities: Any = None,
    *,
    weights: Any = None,
    after: Any = None,
    lr: float | None = None,
    reduction: Literal["mean", "sum"] | None = None,
    l2: float = 0.0,
    convolution: Literal["correlation", "true"] = "correlation",
    training: bool = True,
    seed: Seed = 0,
) -> Diagnosis:
    """Say which mistake, if any, a hand-written backward pass has, and where.

    Submit what your own program computed for the same weights, images and labels: any part of
    it. The more deltas there are, the more exactly each layer is judged alone.

    Parameters
    ----------
    net : the network, with the weights that the program had, unless ``weights`` are given
    x, y : images and labels, as for ``Network.trace``, or as the program has them: (N, H, W) or
        (H, W) for one channel, (N, H, W, C), flat; labels may be one-hot
    gradients : dL/dp by parameter: "conv1.weight", or what resembles it: "W1", "fc1.weight", "db2";
        a dict, of dicts too, a list, an object with attributes, or one vector of all
    deltas : dL/d output by layer, and dL/d images as "input", of shape (N, *output_shape)
    activations : outputs by layer
    probabilities : softmax of the logits, of shape (N, classes)
    weights : the program's weights, in its own names and layout, as ``gradients``. The network is
        judged with them, and gradients must have their layout
    after : its weights after one step from these, in place of gradients, which are (weights -
        after) / lr
    lr : the learning rate of that step; None where it is not known
    reduction : whether the loss is the batch's "mean" or "sum"; None where either is right
    l2 : the coefficient a of a penalty a / 2 |w|^2 on the weights that their gradients hold
    convolution : "true" where the program turns its filters on the way forward
    training, seed : as for ``Network.trace``

    Arrays may be of NumPy, PyTorch or JAX, of any float type. Without ``weights``, gradients in
    other orders of axes that programs usually have are recognised.

    Returns
    -------
    a Diagnosis: ``.findings``, the most important first, ``.ok``, ``.right``; ``print`` shows it

    Raises
    ------
    OptionError
        Nothing was submitted, a name is not known, or an option makes no sense.
    ShapeError, InputError
        An array, or x or y, does not fit.
    """
    if lr is not None:
        require_number("diagnose: lr", lr, "(0, inf)")
    require_number("diagnose: l2", l2, "[0, inf)")
    if reduction not in (None, "mean", "sum"):
        raise OptionError(f"diagnose: reduction must be 'mean' or 'sum', got {short(reduction)}")
    if convolution not in ("correlation", "true"):
        raise OptionError(
            f"diagnose: convolution must be 'correlation' or 'true', got {short(convolution)}"
        )
    images, form = images_of(net, x)
    targets = net.loss.targets(labels_of(net, y, len(images)), len(images), net.output_shape[0])
    double, trace, submission = receive(
        net.copy(dtype="float64"),
        len(images),
        Given(
            gradients, deltas, activations, probabilities, weights, after, lr, l2, convolution,
            channels_last=form in ("NHWC", "HWC", "HWCN"),
        ),
        lambda one: trace_batch(one, images, targets, None, training=training, seed=seed),
    )  # fmt: skip
    if form not in ("NCHW", "CHW") and len(net.input_shape) == 3:
        submission.notes.append(f"the images were read as ({', '.join(form)})")
    return _Case(
        double, images, targets, trace, submission,
        training=training, seed=seed, reduction=reduction,
    ).judged()  # fmt: skip


class _Case:
    """What is judged: a float64 network, a checked batch, and what was submitted of them."""

    def __init__(
        self,
        net: Network,
        images: Array,
        targets: Array,
        trace: Trace,
        submission: Submission,
        *,
        training: bool,
        seed: Seed,
        reduction: str | None = None,
    ) -> None:
        self.net, self.images, self.targets, self.trace = net, images, targets, trace
        self.submission, self.training, self.seed = submission, training, seed
        self.usable, self.unusable = submission.finite()
        self.submitted = Submitted(
            {name: m.readings for name, m in submission.gradients.items() if name in self.usable},
            {n: m.readings for n, m in submission.deltas.items() if f"delta of {n}" in self.usable},
        )
        self.activations = {
            name: m.values
            for name, m in submission.activations.items()
            if f"output of {name}" in self.usable
        }
        array = self.usable.get("probabilities")
        self.probabilities = array.values if array else None
        self._plain: dict[float, Search] = {}

    def judged(self) -> Diagnosis:
        """Return the diagnosis."""
        arrays = [m.values.astype(m.dtype) for m in self.usable.values() if m.dtype.kind == "f"]
        eps = precision(arrays)
        return self._other_setting(eps) or self._explained(eps)

    def _plainly(self, eps: float) -> Search:
        """Look for a right backward pass, in a precision."""
        if eps not in self._plain:
            ensemble = build_ensemble(
                self.net, self.images, self.targets, eps, self.activations, self.probabilities,
                training=self.training, seed=self.seed,
                deltas={name: rs[0].values for name, rs in self.submitted.deltas.items()},
            )  # fmt: skip
            self._plain[eps] = self._searched(ensemble, 0)
        return self._plain[eps]

    def _searched(
        self,
        ensemble: Ensemble,
        depth: int,
        margin: float = NARROW,
        settled: Hypothesis | None = None,
    ) -> Search:
        search = Search(ensemble, self.net.names, self.submitted, depth, margin, settled)
        return search.run(conventions(ensemble.exact.loss, self.submitted))

    def _deeper(self, best: Search) -> Search:
        """Search with one new mistake a stretch, then with two, as far as it takes."""
        enough = 0.5
        for depth, margin, next_enough in ((1, NARROW, 1.7), (1, WIDE, 9.0), (2, WIDE, 0.0)):
            if not best.best.open and best.best.cost <= enough:
                break
            settled = best.best if margin == WIDE else None
            search = self._searched(best.ensemble, depth, margin, settled)
            best = search if search.best.cost < best.best.cost else best
            enough = next_enough
        return best

    def _other_setting(self, eps: float) -> Diagnosis | None:
        """Return the diagnosis where all is right in another setting, if there is one."""
        if self.unusable or self.activations or self.probabilities is not None:
            return None
        best = self._plainly(eps).best
        setting = best.open and other_setting(
            self.net, self.images, self.targets, self.submitted, eps,
            training=self.training, seed=self.seed,
        )  # fmt: skip
        if not setting:
            return None
        return Diagnosis(
            findings=[setting, *conditions(self.net, self.images, self.trace)],
            right=[match.name for match in best.matches],
            wrong=list(best.open),
            layers=[*reversed(self.net.names), "input"],
            notes=_layout_notes(self.submission, best, self.usable),
            precision=_NAMES[eps],
        )

    def _explained(self, eps: float) -> Diagnosis:
        """Return the diagnosis of the mistakes that explain the arrays."""
        search, forward, right = self._best(eps)
        more = bool(self.unusable or forward)
        summary = explain(search, self.trace, self.submitted, more=more)
        wrong = [*self.unusable, *(finding.evidence.array for finding in forward), *summary.wrong]
        notes = _layout_notes(self.submission, search.best, self.usable)
        notes += _search_notes(search, eps)
        zeros = all(not array.values.any() for array in self.usable.values())
        unnamed = not any(finding.mistake for finding in summary.findings)
        much = len(forward) > 1 or 2 * len(wrong) >= max(len(self.usable), 3)
        if not zeros and unnamed and much:
            notes.append(
                "so much is wrong by itself that the two may not have had the same layers, "
                "weights, images or labels: net.parameters must hold the weights that the program "
                "had"
            )
        return Diagnosis(
            findings=[
                *(not_finite(name, m.values) for name, m in self.unusable.items()),
                *forward,
                *summary.findings,
                *order_findings(search.best.read),
                *conditions(self.net, self.images, self.trace),
            ],
            right=right + summary.right,
            inherited=summary.inherited,
            wrong=wrong,
            layers=[*reversed(self.net.names), "input"],
            notes=notes + summary.notes,
            precision=_NAMES[search.ensemble.eps],
        )

    def _best(self, eps: float) -> tuple[Search, list[Finding], list[str]]:
        """Return the best search of all precisions, and what is wrong and right in forward."""
        best: tuple[Search, list[Finding], list[str]] | None = None
        least = math.inf
        for attempt in _precisions(eps, self.submitted, self.trace):
            plain = self._plainly(attempt)
            forward, right = check_forward(
                plain.ensemble, self.net.names, self.activations, self.probabilities
            )
            search = self._deeper(plain)
            cost = search.best.cost + UNEXPLAINED * len(forward)
            if best is None or cost < least - 0.5:
                best, least = (search, forward, right), cost
            if not forward and not search.best.open:
                break
        assert best is not None  # noqa: S101 -- the loop ran
        return best


def _precisions(eps: float, submitted: Submitted, trace: Trace) -> tuple[float, ...]:
    """Return the precisions to judge in, one after the other, until everything is explained.

    Doubles that are nearly right, but not as nearly as doubles are, come from single precision.
    """
    if eps >= _SINGLE:
        return (eps,)
    pairs = [(r.values, trace.gradients[k]) for k, rs in submitted.gradients.items() for r in rs]
    pairs += [(r.values, trace.deltas[k]) for k, rs in submitted.deltas.items() for r in rs]
    errors = [length(array - right) / (length(right) or 1.0) for array, right in pairs]
    low, high = _BETWEEN
    return (_SINGLE,) if any(low < error < high for error in errors) else (eps, _SINGLE)


def _search_notes(search: Search, eps: float) -> list[str]:
    """Say what limits the answer: the precision, the search, kinks."""
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
    if ensemble.kinks:
        where = ", ".join(f"{count} in {name}" for name, count in ensemble.kinks.items())
        notes.append(
            f"rounding alone decides about some units ({where}): a ReLU's input that is next to 0, "
            "or a tie in a pooling window. Either answer was accepted there"
        )
    return notes


def _layout_notes(
    submission: Submission, best: Hypothesis, usable: dict[str, SubmittedArray]
) -> list[str]:
    """Say how names and shapes were read, where that is not plain."""
    chosen = dict(best.read)
    notes, turned = list(submission.notes), []
    for name, array in usable.items():
        layout = chosen.get(name, array.readings[0]).layout
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
