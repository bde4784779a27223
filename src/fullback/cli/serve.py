"""``fullback serve``."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options
from fullback.cli.interrupt import raise_on_ctrl_c
from fullback.cli.output import Output, one_line_errors

if TYPE_CHECKING:
    from fullback.serve.service import Service

ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Saved models, .safetensors. A model is asked for by its NAME, which is that of its "
        "file where none is given.",
        metavar="[NAME=]MODEL...",
        show_default=False,
    ),
]
PortOption = Annotated[
    int,
    typer.Option(
        min=0, max=65535, help="The port to listen at; 0 for any that is free.", metavar="N"
    ),
]
HostOption = Annotated[
    str,
    typer.Option(
        help="The address to listen at. Only this machine reaches 127.0.0.1; others reach 0.0.0.0, "
        "and whoever does may ask.",
        metavar="ADDRESS",
    ),
]


@one_line_errors
def serve(
    models: ModelsArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8018,
    as_json: options.JsonOption = False,
) -> None:
    """Answer requests for predictions over HTTP.

    `POST /predict` takes an image file, or numbers as JSON, and answers as `fullback predict`
    does; `/openapi.json` describes the rest. Requests that arrive together are computed together.
    Ctrl-C, or SIGTERM, ends it when what was begun is answered.
    """
    from fullback.serve.launch import service

    output = Output(as_json=as_json)
    named = [_split(text) for text in models]
    server = service(named, host=host, port=port)
    raise_on_ctrl_c()
    signal.signal(signal.SIGTERM, _end)
    with server, contextlib.suppress(KeyboardInterrupt):
        _show(output, server, named)
        server.wait()
    output.event("end")


def _split(text: str) -> tuple[str, str]:
    """Return a model's name and its path."""
    name, sign, path = text.partition("=")
    if sign and path and not Path(text).is_file():
        return name, path
    return Path(text).stem, text


def _show(output: Output, server: Service, named: list[tuple[str, str]]) -> None:
    from fullback.server.address import is_loopback

    output.event("address", address=server.address, models=dict(named))
    for name, path in named:
        only = "" if len(named) > 1 else ", /predict"
        shape = " x ".join(map(str, server.models[name].network.input_shape))
        output.fact("model", f"/predict/{name}{only}: {path}, for images of {shape}")
    if not is_loopback(server.host):
        output.fact("careful", ("whoever reaches this address can ask", "yellow"))
    output.fact("address", (server.address, "bold cyan"), "  (Ctrl-C ends it)")


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- a handler's signature
    raise KeyboardInterrupt
