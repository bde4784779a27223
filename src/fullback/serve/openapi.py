"""The description of the server in the form of OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from fullback import __version__
from fullback.layers.base import Shape
from fullback.serve.models import Served
from fullback.serve.reading import LARGEST, MOST_FILES, MOST_IMAGES

_JSON = "application/json"
_PIXEL = {"type": "integer", "minimum": 0, "maximum": 255}
_VALUE = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff", "image/gif")
_INVERT = {
    "name": "invert",
    "in": "query",
    "description": "Swap dark and light.",
    "schema": {"type": "boolean", "default": False},
}
_REFUSALS = {
    "400": "The request, or what is in it, is not what the model takes",
    "404": "There is no such model",
    "408": "The request took too long to arrive",
    "413": "The request is too large",
    "415": "The request's type is none that is taken",
    "421": "The server does not go by the name in Host",
    "500": "A mistake in the server",
    "503": "The server is busy; Retry-After says when to try again",
}


def description(models: dict[str, Served]) -> dict[str, Any]:
    """Return the description of a server with these models."""
    paths: dict[str, Any] = {
        f"/predict/{name}": {"post": _predict(model)} for name, model in models.items()
    }
    if len(models) == 1:
        ((_, only),) = models.items()
        paths["/predict"] = {"post": _predict(only)}
    paths["/models"] = {"get": _get("The models, and what each takes", _listing())}
    paths["/health"] = {
        "get": {
            **_get("Whether the server can predict", _status("ok")),
            "responses": {
                "200": _answer("It can", _status("ok")),
                "421": _refusal("421"),
                "503": _answer("It cannot", _status("failed")),
            },
        }
    }
    paths["/metrics"] = {
        "get": {
            "summary": "Counters, for Prometheus",
            "responses": {
                "200": {
                    "description": "In Prometheus's text format",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                "421": _refusal("421"),
            },
        }
    }
    paths["/openapi.json"] = {"get": _get("This description", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fullback serve",
            "version": __version__,
            "description": "Predictions of convolutional networks that fullback trained.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                }
            }
        },
    }


def _predict(model: Served) -> dict[str, Any]:
    shape = model.network.input_shape
    content: dict[str, Any] = {_JSON: {"schema": _request(model)}}
    if model.takes_files and model.takes_pixels:
        file = {"schema": {"type": "string", "format": "binary"}}
        content |= dict.fromkeys((*_IMAGE_TYPES, "application/octet-stream"), file)
        files = {
            "type": "array",
            "items": file["schema"],
            "minItems": 1,
            "maxItems": MOST_FILES,
        }
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": files},
                "additionalProperties": False,
            },
            "encoding": {"image": {"contentType": ", ".join(_IMAGE_TYPES)}},
        }
    times = " x ".join(map(str, shape))
    refusals = {status: _refusal(status) for status in _REFUSALS}
    return {
        "summary": f"Predict with the model {model.name}",
        "description": f"One image or several of {times}: as numbers, or as image files.",
        "parameters": [_INVERT] if model.takes_pixels else [],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _answer("The predictions, in the order of the images", _predictions(model)),
            **refusals,
        },
    }


def _request(model: Served) -> dict[str, Any]:
    shape = model.network.input_shape
    values = _numbers("values", _VALUE, shape)
    return {"oneOf": [_numbers("pixels", _PIXEL, shape), values]} if model.takes_pixels else values


def _numbers(form: str, number: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Return the schema of an object with arrays of one image or several."""
    every = []
    for one in [shape, shape[1:]] if len(shape) == 3 and shape[0] == 1 else [shape]:
        image = number
        for size in reversed(one):
            image = {"type": "array", "items": image, "minItems": size, "maxItems": size}
        several = {"type": "array", "items": image, "minItems": 1, "maxItems": MOST_IMAGES}
        every += [image, several]
    return {
        "type": "object",
        "required": [form],
        "properties": {form: {"anyOf": every}},
        "additionalProperties": False,
    }


def _predictions(model: Served) -> dict[str, Any]:
    network = model.network
    if network.loss.classifies:
        names = list(network.answer_names)
        share = {"type": "number", "minimum": 0, "maximum": 1}
        size = {"minItems": len(names), "maxItems": len(names)}
        properties: dict[str, Any] = {
            "label": {"type": "integer", "minimum": 0, "maximum": len(names) - 1},
            "name": {"type": "string", "enum": names},
            "probabilities": {"type": "array", "items": share, **size},
        }
    else:
        outputs = network.output_shape[0]
        size = {"minItems": outputs, "maxItems": outputs}
        properties = {"values": {"type": "array", "items": {"type": "number"}, **size}}
    prediction = {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "required": ["model", "predictions"],
        "properties": {
            "model": {"const": model.name},
            "predictions": {
                "type": "array",
                "items": prediction,
                "minItems": 1,
                "maxItems": MOST_IMAGES,
            },
            "warnings": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        },
        "additionalProperties": False,
    }


def _listing() -> dict[str, Any]:
    names = ["name", "input_shape", "parameters", "takes_files", "takes_pixels"]
    model = {"type": "object", "required": names}
    return {
        "type": "object",
        "required": ["models"],
        "properties": {"models": {"type": "array", "items": model}},
    }


def _status(word: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"const": word}},
    }


def _get(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    responses = {"200": _answer(summary, schema), "421": _refusal("421")}
    return {"summary": summary, "responses": responses}


def _answer(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {_JSON: {"schema": schema}}}


def _refusal(status: str) -> dict[str, Any]:
    return _answer(_REFUSALS[status], {"$ref": "#/components/schemas/Error"})
