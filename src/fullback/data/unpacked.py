"""What a folder of arrays says of itself, in dataset.json: classes, and how images were read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fullback.data.dataset import MAX_LABEL
from fullback.data.files import open_data
from fullback.errors import DataError

NAME = "dataset.json"
_FORMAT = 1
_MOST_BYTES = 2**24  # of the file: 65,536 names of 200 characters, and more


@dataclass(frozen=True)
class About:
    """What dataset.json says.

    Attributes
    ----------
    name : of the data set
    class_names, notes, numbers, read_with : as of `Dataset`
    source : what it was unpacked from, and how: plain values by name
    """

    name: str
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    numbers: bool = False
    read_with: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> bytes:
        """Return the file's content."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, ensure_ascii=False, indent=1)
        return text.encode()

    @classmethod
    def of(cls, folder: Path) -> About | None:
        """Read the file of a folder; None where there is none.

        Raises
        ------
        DataError
            It is damaged.
        """
        path = folder / NAME
        if not path.exists():
            return None
        with open_data(path, "a description of arrays") as file:
            content = file.read(_MOST_BYTES + 1)
        try:
            return cls._read({} if len(content) > _MOST_BYTES else json.loads(content))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                f"{path}: does not describe a data set ({error}); unpack the data again, or remove "
                "this file to use the arrays without names"
            ) from None

    @classmethod
    def _read(cls, said: Any) -> About:
        if not isinstance(said, dict) or said.get("format") != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}")
        names, notes = said["class_names"], said["notes"]
        for texts in (names, notes, [said["name"]]):
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError("expected texts")
        if len(names) > MAX_LABEL + 1 or type(said["numbers"]) is not bool:
            raise ValueError("expected classes")
        if not isinstance(said["read_with"], dict) or not isinstance(said["source"], dict):
            raise ValueError("expected options by name")  # noqa: TRY004
        return cls(
            said["name"],
            tuple(names),
            tuple(notes),
            said["numbers"],
            said["read_with"],
            said["source"],
        )
