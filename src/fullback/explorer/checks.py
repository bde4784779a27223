"""Which check catches a mistake: each is made on the wrong pass, and says what it saw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fullback.check.diagnose import diagnose, probe
from fullback.check.diagnose.report import Diagnosis
from fullback.check.gradients import check_gradients
from fullback.check.mistakes import BackwardPass
from fullback.explorer.lab import Batch, Choice, backward, chosen, require_possible

_SAMPLES = 8  # entries of each array that finite differences are taken of


def checks(batch: Batch, choice: Choice) -> Iterator[dict[str, Any]]:
    """Make every check on the wrong pass; yield what each was, whether it caught the mistake."""
    mutants = require_possible(batch, choice)
    wrong = backward(batch.forward_pass, mutants)
    with threadpool_limits(1, "blas"):
        fits = all(
            array.shape == batch.net.parameters[name].shape
            for name, array in wrong.gradients.items()
        )
        yield _verdict(
            "shapes", "Every gradient has the shape of its parameter", not fits, "all shapes fit"
        )
        yield _row_sums(batch, wrong)
        yield _differences(
            "one image", "Finite differences, with the image on the page alone",
            Batch(batch.net, batch.x[:1], batch.y[:1]), choice,
        )  # fmt: skip
        yield _differences(
            "noise", "Finite differences, with a batch of random noise", _noise(batch), choice
        )
        yield _differences(
            "batch", f"Finite differences, with these {len(batch.x)} images", batch, choice
        )
        probed = Batch.of(batch.net, *probe(batch.net))
        mistaken = backward(probed.forward_pass, chosen(probed.forward_pass, choice))
        for deltas, title in (
            (False, "fullback diagnose, from the gradients alone"),
            (True, "fullback diagnose, from gradients and deltas"),
        ):
            found = diagnose(
                probed.net, probed.x, probed.y, gradients=mistaken.gradients,
                deltas=mistaken.deltas if deltas else None, reduction="mean",
            )  # fmt: skip
            yield _named(title, found, choice)


def _verdict(name: str, title: str, caught: bool, description: str) -> dict[str, Any]:
    return {"check": name, "title": title, "caught": bool(caught), "description": description}


def _row_sums(batch: Batch, wrong: BackwardPass) -> dict[str, Any]:
    delta = wrong.deltas[batch.net.names[-1]]
    sums = abs(delta.sum(axis=1)) / np.maximum(abs(delta).sum(axis=1), 1e-300)
    worst = float(sums.max())
    return _verdict(
        "row sums",
        "The deltas of an image's logits add up to 0",
        worst > 1e-6,
        "they do" if worst <= 1e-6 else f"they do not: off by {worst:.2g} of their size",
    )


def _noise(batch: Batch) -> Batch:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *batch.net.input_shape))
    return Batch(batch.net, x, np.resize(batch.y, 3))


def _differences(name: str, title: str, batch: Batch, choice: Choice) -> dict[str, Any]:
    forward = batch.forward_pass
    wrong = backward(forward, chosen(forward, choice))
    report = check_gradients(
        batch.net, batch.x, batch.y, gradients=wrong.gradients, samples=_SAMPLES, directions=1
    )
    bad = [row.name for row in report.rows if not row.ok]
    caught = bool(bad) or not all(row.ok for row in report.directional)
    description = "every gradient passes"
    if bad:
        description = f"wrong: {', '.join(bad[:3])}" + (
            f" and {len(bad) - 3} more" * (len(bad) > 3)
        )
    return _verdict(name, title, caught, description)


def _named(title: str, found: Diagnosis, choice: Choice) -> dict[str, Any]:
    named = [finding for finding in found.findings if finding.mistake is not None]
    name = "diagnose with deltas" if "deltas" in title else "diagnose"
    if named:
        description = "; ".join(f"{f.layer}: {f.mistake}" for f in named[:2])
    elif found.findings:
        description = "wrong, but it has no name"
    elif found.not_judged:
        description = "nothing is wrong in what could be judged"
    else:
        description = "nothing is wrong"
    if found.not_judged:
        some = ", ".join(found.not_judged[:3]) + ", ..." * (len(found.not_judged) > 3)
        description += f"; not judged: {some}"
    for condition in found.conditions:
        description += f"; {condition.message}"
    verdict = _verdict(name, title, bool(found.findings), description)
    if named:
        verdict["names_it"] = any(finding.mistake == choice.mistake for finding in named)
    return verdict
