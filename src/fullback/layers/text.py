"""The compact text form of a network: ``"conv8 relu pool conv16 relu pool flatten dense10"``.

A layer is its kind, then its first option as a number (filters, units, size, rate, slope), then
any other options, by name, in brackets; a pair is written ``3x5``::

    conv16(kernel_size=5, padding=valid, bias=false) avgpool2(stride=1) dropout0.5
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from fullback.errors import OptionError
from fullback.layers import LAYERS
from fullback.layers.base import Layer
from fullback.options import did_you_mean, read_options, read_value

_TOKEN = re.compile(
    r"\s*(?P<kind>[a-z]+)(?P<number>\d+(?:\.\d+)?)?(?:\((?P<options>[^()]*)\))?(?=\s|$)"
)
_LONGEST = 10_000


def parse_layers(text: str) -> list[Layer]:
    """Read layers from their text form.

    Raises
    ------
    OptionError
        A word is not a layer, an option is unknown, or a value is out of range.
    """
    if len(text) > _LONGEST:
        raise OptionError(f"a network's text may have {_LONGEST} characters, got {len(text)}")
    layers, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise OptionError(
                f"cannot read {text[position:].split()[0]!r} in the network's text; a layer is "
                "written like conv8, dense10, dropout0.5 or conv8(kernel_size=5, padding=valid)"
            )
        layers.append(_layer(match["kind"], match["number"], match["options"]))
        position = match.end()
    if not layers:
        raise OptionError("the network's text is empty; write layers, like: conv8 relu pool ...")
    return layers


def _layer(kind: str, number: str | None, options: str | None) -> Layer:
    if kind not in LAYERS:
        hint = did_you_mean(kind, LAYERS, f"the layers are {', '.join(LAYERS)}")
        raise OptionError(f"{kind!r} is not a layer{hint}")
    fields = [field.name for field in dataclasses.fields(LAYERS[kind])]  # type: ignore[arg-type]
    values: dict[str, object] = {}
    if number is not None:
        if not fields:
            raise OptionError(f"{kind} takes no number, got {kind}{number}")
        values[fields[0]] = read_value(number)
    words = filter(None, map(str.strip, (options or "").split(",")))
    values = read_options(kind, words, fields, values=values)
    required = [
        field.name
        for field in dataclasses.fields(LAYERS[kind])  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if required:
        raise OptionError(f"{kind} needs its number of {required[0]}, like {kind}8")
    return LAYERS[kind](**values)


def layers_text(layers: Sequence[Layer]) -> str:
    """Write layers in their text form; ``parse_layers`` reads it."""
    return " ".join(map(_word, layers))


def _word(layer: Layer) -> str:
    fields = dataclasses.fields(layer)  # type: ignore[arg-type]
    word, options = layer.kind, []
    for place, field in enumerate(fields):
        value = getattr(layer, field.name)
        if value == field.default:
            continue
        if not place and isinstance(value, int | float) and not isinstance(value, bool):
            word += _written(value)
        else:
            options.append(f"{field.name}={_written(value)}")
    return f"{word}({', '.join(options)})" if options else word


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return str(value).lower()
