"""``fullback diagnose``."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fullback.cli import options
from fullback.cli.output import FAILURE, Output, one_line_errors
from fullback.errors import OptionError

if TYPE_CHECKING:
    from fullback.check.diagnose.report import Diagnosis
    from fullback.network import Network

# A name in an .npz file says what an array is: deltas/conv1, delta_conv1, grad.conv1.weight.
# Those of weights have a slash, as many names begin with the word.
_KIND = re.compile(r"(gradient|grad|delta|activation)s?[/_. :]|(weights|after)[/:]", re.IGNORECASE)
_PROBABILITIES = re.compile(r"prob(s|abilit(y|ies))?|softmax", re.IGNORECASE)


@one_line_errors
def diagnose(
    model: Annotated[
        Path,
        typer.Argument(
            help="The network with the weights that your program had, .safetensors.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="Images x and labels y of the batch, .npz.",
            metavar="DATA",
            show_default=False,
        ),
    ],
    computed: Annotated[
        Path | None,
        typer.Argument(
            help="What it computed of them, .npz.", metavar="COMPUTED", show_default=False
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Write DATA, and read nothing: a few images and labels on which mistakes do not "
            "hide, for your program to be run on.",
        ),
    ] = False,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="The learning rate of the step from weights/ to after/."),
    ] = None,
    reduction: Annotated[
        Literal["mean", "sum"] | None,
        typer.Option(help="What the loss is of the batch; without it, either is right."),
    ] = None,
    l2: Annotated[
        float,
        typer.Option("--l2", help="The coefficient a of a penalty a / 2 |w|² in the gradients."),
    ] = 0.0,
    convolution: Annotated[
        Literal["correlation", "true"],
        typer.Option(help="Whether your program turns its filters on the way forward."),
    ] = "correlation",
    training: options.TrainingOption = True,
    seed: Annotated[
        int, typer.Option(min=0, help="Fixes dropout, or what --probe draws.", metavar="N")
    ] = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Say which mistake a hand-written backward pass has.

    COMPUTED holds parameter gradients under the network's names, or under names like them:
    conv1.weight, dW1, fc2_b. With deltas, the gradients of activations, each layer is judged by
    itself: delta_conv1, or deltas/conv1. There may be activations/conv1 and probabilities too.
    With weights/W1 the network is judged with these, and after/W1, the weights after one step from
    them, take the place of gradients.

        np.savez("computed.npz", W1=dW1, b1=db1, delta_conv1=dZ1)

    The exit code is 1 where something is wrong, or could not be judged.
    """
    from fullback.network import load

    output = Output(as_json=as_json)
    if probe == (computed is not None):
        raise OptionError(
            "--probe writes DATA for your program, and takes no COMPUTED"
            if probe
            else "COMPUTED is missing: an .npz file of what your program computed; --probe writes "
            "images and labels for it to compute on"
        )
    network = load(model)
    if computed is None:
        _write_probe(network, data, seed, output)
    else:
        result = _judge(
            network, data, computed, output, lr=lr, reduction=reduction, l2=l2,
            convolution=convolution, training=training, seed=seed,
        )  # fmt: skip
        output.fact("network", str(model))
        output.fact("computed", f"{computed}, of {data}")
        output.show("", result.render())
        if not result.ok:
            raise typer.Exit(FAILURE)


def _write_probe(network: Network, path: Path, seed: int, output: Output) -> None:
    import numpy as np

    from fullback.atomic import write_atomically
    from fullback.check.diagnose import probe

    batch = probe(network, seed)
    x, y = batch
    file = io.BytesIO()
    np.savez(file, x=x, y=y)
    write_atomically(path, file.getvalue())
    output.event("probe", data=str(path), images=len(x), hidden=batch.hidden)
    output.fact("written", f"{path}: x {' x '.join(map(str, x.shape))}, {x.dtype}, and y")
    for remark in batch.hidden:
        output.fact("cannot show", remark)


def _judge(
    network: Network, data: Path, computed: Path, output: Output, **settings: Any
) -> Diagnosis:
    from fullback.check.diagnose import diagnose as find
    from fullback.data.arrays.npz import read_npz

    batch = read_npz(data, ("x", "y"))
    result = find(network, batch["x"], batch["y"], **_by_kind(read_npz(computed)), **settings)
    for finding in result.findings:
        output.event("finding", **dataclasses.asdict(finding))
    output.event(
        "result",
        ok=result.ok,
        right=result.right,
        inherited=result.inherited,
        wrong=result.wrong,
        judged=result.judged,
        not_judged=result.not_judged,
        conditions=[dataclasses.asdict(one) for one in result.conditions],
        notes=result.notes,
        precision=result.precision,
    )
    return result


def _by_kind(arrays: dict[str, Any]) -> dict[str, Any]:
    """Sort arrays by the kind that their names begin with; without one they are gradients."""
    kinds: dict[str, Any] = {}
    for name, array in arrays.items():
        kind = _KIND.match(name)
        if kind:
            word = (kind[1] or kind[2]).lower()
            word = {"grad": "gradients", "weights": "weights", "after": "after"}.get(
                word, f"{word}s"
            )
            kinds.setdefault(word, {})[name[kind.end() :]] = array
        elif _PROBABILITIES.fullmatch(name):
            kinds["probabilities"] = array
        else:
            kinds.setdefault("gradients", {})[name] = array
    return kinds
