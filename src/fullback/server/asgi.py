"""The types of an ASGI application, and its answer to what it does not do."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from fullback.errors import OptionError

if TYPE_CHECKING:
    from starlette.responses import Response

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that says why something was not done."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": reason}, status, headers=headers)


def require_installed(what: str, extra: str, packages: Mapping[str, str]) -> None:
    """Raise OptionError where packages of an extra are not installed.

    Parameters
    ----------
    what : what needs them, the subject of the message
    extra : its name
    packages : what pip calls each, by the module that is imported
    """
    missing = [
        name for module, name in packages.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        *first, last = missing
        names = f"{', '.join(first)} and {last}" if first else last
        raise OptionError(f"{what} needs {names}; pip install 'fullback[{extra}]'")
