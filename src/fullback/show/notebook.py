"""What networks and traces show of themselves in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from io import BytesIO

import numpy as np

from fullback.layers.base import Array
from fullback.model import Model
from fullback.show.summary import layer_rows

_PIXELS = 64  # of a map, and of an array without rows and columns, at most
_MOST_MAPS = 4
_PLUS, _ZERO, _MINUS = (192, 74, 0), (241, 241, 239), (18, 90, 168)  # as in the page, in light
_CELL = "padding:2px 10px;text-align:left;vertical-align:middle"


def network_html(net: Model) -> str:
    """Return the table of a network's layers."""
    rows = layer_rows(net)
    body = "".join(
        f"<tr><th style='{_CELL}'>{row.name}</th><td style='{_CELL}'><code>"
        f"{html.escape(row.options)}</code></td><td style='{_CELL}'>{_shape(row.shape)}</td>"
        f"<td style='{_CELL}'>{f'{row.parameters:,}' if row.parameters else ''}</td></tr>"
        for row in rows
    )
    total = sum(row.parameters for row in rows)
    head = _row("th", "layer", "options", "output", "parameters")
    foot = _row("th", "total", html.escape(repr(net.loss)), str(net.dtype), f"{total:,}")
    return f"<table><thead>{head}</thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"


def trace_html(
    loss: float,
    activations: Mapping[str, Array],
    deltas: Mapping[str, Array],
    gradients: Mapping[str, Array],
) -> str:
    """Return each layer's output and its delta as pictures, those of the batch's first image."""
    count = len(activations["input"])
    body = "".join(
        _row(
            "td",
            f"<b>{name}</b>",
            _shape(value.shape[1:]),
            _pictures(value[0]),
            _pictures(deltas[name][0]),
        )
        for name, value in activations.items()
    )
    sizes = "".join(
        _row("td", f"<b>{name}</b>", _shape(value.shape), f"&plusmn;{number(_extent(value))}", "")
        for name, value in gradients.items()
    )
    of = f"; of {count} images, the first is shown" if count > 1 else ""
    return (
        f"<p>loss {number(loss)}{of}. Blue is negative, orange positive, each array by its "
        "own scale.</p><table>"
        f"<thead>{_row('th', 'layer', 'shape', 'output', 'delta')}</thead><tbody>{body}</tbody>"
        f"<thead>{_row('th', 'gradient', 'shape', 'largest', '')}</thead>"
        f"<tbody>{sizes}</tbody></table>"
    )


def _row(tag: str, *cells: str) -> str:
    row = "".join(f"<{tag} style='{_CELL}'>{cell}</{tag}>" for cell in cells)
    return f"<tr>{row}</tr>"


def _pictures(array: Array) -> str:
    maps = array if array.ndim == 3 else _in_rows(array.reshape(-1))[None]
    most = _extent(array)
    shown = "".join(_picture(one, most) for one in maps[:_MOST_MAPS])
    more = f" +{len(maps) - _MOST_MAPS}" if len(maps) > _MOST_MAPS else ""
    size = f"<small>&plusmn;{number(most, 2)}</small>"
    return f"<span style='white-space:nowrap'>{shown}{more} {size}</span>"


def _picture(values: Array, most: float) -> str:
    from PIL import Image

    finite = np.nan_to_num(values, nan=0.0, posinf=most, neginf=-most)
    share = np.abs(finite / most if most else finite)[..., None] ** 0.7  # (rows, columns, 1)
    end = np.where(finite[..., None] < 0, _MINUS, _PLUS)
    pixels = (np.asarray(_ZERO) + share * (end - np.asarray(_ZERO))).round().astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    rows, columns = values.shape
    scale = _PIXELS / max(rows, columns, 6)
    return (
        f"<img src='data:image/png;base64,{data}' alt='' width={columns * scale:.0f} "
        f"height={rows * scale:.0f} style='image-rendering:pixelated;display:inline-block;"
        "margin:1px;border:1px solid #999;vertical-align:middle'>"
    )


def _in_rows(values: Array) -> Array:
    """Lay features out in a square, where they fill one."""
    columns = 1 if values.size <= 12 else int(np.ceil(np.sqrt(values.size)))
    rows = -(-values.size // columns)
    square = np.zeros(rows * columns, values.dtype)
    square[: values.size] = values
    return square.reshape((1, -1) if columns == 1 else (rows, columns))


def number(value: float, digits: int = 4) -> str:
    """Return a number as the pages write it: significant digits, a true minus, powers of ten."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "\N{MINUS SIGN}" * (value < 0) + "\N{INFINITY}"
    if value == int(value) and abs(value) < 1e4:
        text = str(int(value))
    elif abs(value) >= 1e6 or abs(value) < 1e-4:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa}\N{MIDDLE DOT}10<sup>{int(exponent)}</sup>"
    else:
        places = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
        text = f"{value:.{min(places, 8)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _extent(array: Array) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _shape(shape: tuple[int, ...]) -> str:
    return " &times; ".join(map(str, shape))
