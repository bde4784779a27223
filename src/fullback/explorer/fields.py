"""What a request says, taken out of its JSON and checked: the page is not trusted."""

from __future__ import annotations

import json
from typing import Any

from fullback.errors import InputError
from fullback.options import require_number, require_whole


class Fields:
    """The fields of a JSON object; each is asked for by its name and what it must be.

    Raises
    ------
    InputError
        The body is not a JSON object.
    OptionError, InputError
        A field is missing, or not what it must be.
    """

    def __init__(self, body: bytes) -> None:
        try:
            given = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise InputError("the request is not JSON; reload the page") from None
        if not isinstance(given, dict):
            raise InputError("the request is not a JSON object; reload the page")
        self.given: dict[str, Any] = given

    @classmethod
    def of(cls, given: Any, what: str) -> Fields:
        """Return the fields of an object inside of another."""
        if not isinstance(given, dict):
            raise InputError(f"{what} must be an object, got {type(given).__name__}")
        fields = cls(b"")
        fields.given = given
        return fields

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self.given.get(name) is not None

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value: Any = self.given.get(name, default)
        require_whole(name, value, low)
        if value > high:
            raise InputError(f"{name} must be at most {high}, got {value}")
        return int(value)

    def number(self, name: str, interval: str, default: float | None = None) -> float:
        """Return a number in an interval, written like ``(0, 1]``."""
        value: Any = self.given.get(name, default)
        require_number(name, value, interval)
        return float(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return True or False."""
        value = self.given.get(name, default)
        if not isinstance(value, bool):
            raise InputError(f"{name} must be true or false, got {_short(value)}")
        return value

    def text(self, name: str, longest: int, default: str | None = None) -> str:
        """Return a text of so many characters at most."""
        value = self.given.get(name, default)
        if not isinstance(value, str):
            raise InputError(f"{name} must be a text, got {_short(value)}")
        if len(value) > longest:
            raise InputError(f"{name} may have {longest} characters, got {len(value)}")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """Return one of some words."""
        value = self.given.get(name, default)
        if not isinstance(value, str) or value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, got {_short(value)}")
        return value

    def texts(self, name: str, longest: int, most: int) -> list[str]:
        """Return a list of texts; an empty one where there is none."""
        value = self.given.get(name) or []
        if not isinstance(value, list) or len(value) > most:
            raise InputError(f"{name} must be a list of at most {most} texts")
        for text in value:
            if not isinstance(text, str) or len(text) > longest:
                raise InputError(f"{name} holds {_short(text)}, which is not a short text")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
