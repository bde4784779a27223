"""Where serving begins: what is needed for it, and the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fullback.server.asgi import require_installed

if TYPE_CHECKING:
    from fullback.serve.service import Service

PORT = 8018

_PACKAGES = {
    "httptools": "httptools",
    "orjson": "orjson",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}


def require_serving() -> None:
    """Raise OptionError where the packages of the extra ``serve`` are not installed."""
    require_installed("fullback serve", "serve", _PACKAGES)


def service(
    named: Sequence[tuple[str, str]], *, host: str = "127.0.0.1", port: int = PORT
) -> Service:
    """Load models and return their server, which ``with`` starts.

    Parameters
    ----------
    named : a name and a path each
    host, port : where to listen

    Raises
    ------
    OptionError
        The packages of the extra ``serve`` are not installed, a name will not do, or the server
        cannot listen.
    ModelFileError, InputError
        A model cannot be read, or what it computes is not finite.
    """
    require_serving()
    from fullback.serve.models import load_models
    from fullback.serve.service import Service

    models = load_models(named)
    for model in models.values():
        model.warm_up()
    return Service(models, host=host, port=port)
