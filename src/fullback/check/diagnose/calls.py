"""Ways of calling a user's training step: its arguments in order, the form of images and labels.

Names of arguments are looked at first; where they say nothing, the usual orders are tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fullback.check.arrays import to_numpy
from fullback.check.diagnose.batch import FORMS, formed
from fullback.check.diagnose.containers import is_array
from fullback.layers.base import Array, Shape

_WORDS = {
    "x": "x xs xb images image img imgs im data input inputs batch_x x_batch xbatch xtrain x_train "
    "sample samples pixels a0 X_train",
    "y": "y ys yb labels label lab t target targets batch_y y_batch ybatch ytrain y_train y_true "
    "truth onehot one_hot y_onehot answer d",
    "lr": "lr alpha eta learning_rate learningrate learn_rate rate step_size stepsize lrate",
    "weights": "weights params parameters param w p ps theta thetas net network model layers state "
    "cnn nn weight",
    "pairs": "mini_batch minibatch batch training_data data_batch examples",
    "images": "n m batch_size batchsize num_images",
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words.lower().split()}
_ORDERS = (
    ("weights", "x", "y"),
    ("x", "y", "weights"),
    ("x", "y"),
    ("weights", "x", "y", "lr"),
    ("x", "y", "weights", "lr"),
    ("x", "y", "lr"),
    ("*weights", "x", "y"),
    ("x", "y", "*weights"),
    ("*weights", "x", "y", "lr"),
    ("x", "y", "*weights", "lr"),
    ("pairs",),
    ("pairs", "lr"),
)


@dataclass(frozen=True)
class Call:
    """A way of calling.

    Attributes
    ----------
    words, keywords : what each argument is, by place and by name
    form : the form of the images, by its axes; see ``batch.FORMS``
    labels : "given", "numbers", "one-hot", "columns" (one-hot, the images last)
    each : whether it is called once an image, always from the same weights; with "N" in ``form``
        each image is a batch
    rate : the learning rate that its own default sets
    """

    words: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...] = ()
    form: str = "NCHW"
    labels: str = "given"
    each: bool = False
    rate: float | None = None

    @property
    def takes_rate(self) -> bool:
        """Whether it is given a learning rate."""
        return "lr" in self.words or "lr" in dict(self.keywords).values()

    def __str__(self) -> str:
        words = [word.split(":")[-1] for word in self.words]
        words += [f"{key}=..." for key, _ in self.keywords]
        one = "one image at a time, " if self.each else ""
        shape = ", ".join("1" if letter == "N" and self.each else letter for letter in self.form)
        labels = "" if self.labels == "given" else f", y as {self.labels}"
        return f"step({', '.join(words)}) with {one}x as ({shape}){labels}"

    def images(self, x: Any) -> int:
        """Return how many images one call is given."""
        return int(x.shape[self.form.index("N")]) if "N" in self.form else 1

    def run(
        self, step: Callable[..., Any], weights: Any, x: Array, y: Any, lr: float, images: int
    ) -> Any:
        """Call the step with images and labels in their form."""
        values = {"weights": weights, "x": x, "y": y, "lr": lr, "images": images}
        arguments: list[Any] = []
        for word in self.words:
            if word == "*weights":
                arguments += weights.values() if isinstance(weights, Mapping) else list(weights)
            else:
                arguments.append(self._value(word, values))
        named = {key: self._value(word, values) for key, word in self.keywords}
        if "**weights" in named:
            named |= named.pop("**weights")
        return step(*arguments, **named)

    def _value(self, word: str, values: Mapping[str, Any]) -> Any:
        if word.startswith("weight:"):
            return values["weights"][word.removeprefix("weight:")]
        if word == "pairs":
            x, y = values["x"], values["y"]
            return list(zip(x, y, strict=True)) if "N" in self.form else [(x, y)]
        return values[word]

    def batches(
        self, x: Any, images: Array, y: Any, labels: Any, classes: int
    ) -> Iterator[tuple[Any, Any]]:
        """Yield what it is called with, copies: once, or once an image.

        Parameters
        ----------
        x, y : as the user gave them
        images, labels : as fullback takes them
        classes : how many there are
        """
        count = len(images)
        rows = np.arange(classes) == np.asarray(labels)[:, None] if np.ndim(labels) == 1 else labels
        rows = np.asarray(rows, dtype=float)
        for index in range(count) if self.each else [None]:
            part = slice(None) if index is None else slice(index, index + 1)
            given = formed(images[part], self.form).astype(to_numpy(x).dtype)
            batch = index is None or "N" in self.form
            label: Any = np.array(to_numpy(y) if self.labels == "given" else labels)
            if self.labels == "columns":
                label = rows[part].T.copy()
            elif self.labels == "one-hot":
                label = rows[part if batch else index].copy()
            elif batch:
                label = label[part] if len(label) == count else label
            else:
                label = label[index] if len(label) == count else label[:, index]
                label = int(label) if label.ndim == 0 and label.dtype.kind in "iu" else label
            yield _as(x, given), _as(y, label)


def _as(given: Any, value: Any) -> Any:
    """Return an array as a tensor of PyTorch, where that is what the user gave."""
    tensor = hasattr(given, "new_tensor") and isinstance(value, np.ndarray)
    return given.new_tensor(value) if tensor else value


def calls_of(
    step: Callable[..., Any],
    weights: Any,
    form: str,
    shape: Shape,
    *,
    classifies: bool,
    numbers: bool,
) -> Iterator[Call]:
    """Yield ways of calling a step, the likelier ones first.

    Parameters
    ----------
    step, weights : the user's function, and what holds the weights
    form : that in which the images were given
    shape : of an image
    classifies, numbers : whether labels may be numbers and one-hot, and are given as numbers
    """
    labels = ["given"]
    if classifies:  # those that are not as given
        labels += ["one-hot", "columns"] if numbers else ["numbers", "one-hot", "columns"]
    usable = [f for f in FORMS if shape[0] == 1 or "C" in f or "F" in f]
    if len(shape) == 1:
        usable = [f for f in FORMS if "F" in f]
    many = [f for f in usable if "N" in f]
    first = [form] if form in many else []
    single = form.replace("N", "")
    ways = [(f, False) for f in first]
    ways += [(single, True)] if single in usable else []
    ways += [(f, False) for f in many if f not in first]
    ways += [(f, True) for f in usable if "N" not in f and f != single]
    ways += [(f, True) for f in [*first, *many] if f in ("NCHW", "NHW", "NHWC", "NF", form)]
    for signature in list(_signatures(step, weights)):
        for images, each in dict.fromkeys(ways):
            for label in labels:
                yield replace(signature, form=images, each=each, labels=label)


def _signatures(step: Callable[..., Any], weights: Any) -> Iterator[Call]:
    try:
        signature = inspect.signature(step)
    except (TypeError, ValueError):  # a built-in function may have none
        yield from (Call(words) for words in _ORDERS)
        return
    call = _by_name(signature, weights)
    if call is not None:
        if "images" in call.words and "weights" not in call.words:  # m: a model, or how many images
            words = tuple("weights" if word == "images" else word for word in call.words)
            calls = call, replace(call, words=words)
            yield from calls[::-1] if call.words[0] == "images" else calls
        else:
            yield call
        return
    for words in _ORDERS:
        if "*weights" in words and not _spreads(weights):
            continue
        count = [w for w in words if w != "*weights"]
        spread = [""] * (len(weights) if "*weights" in words else 0)
        try:
            signature.bind(*count, *spread)
        except TypeError:
            continue
        yield Call(words)


def _spreads(weights: Any) -> bool:
    parts = weights.values() if isinstance(weights, Mapping) else weights
    return isinstance(weights, Mapping | list | tuple) and all(map(is_array, parts))


def _by_name(signature: inspect.Signature, weights: Any) -> Call | None:
    """Return the way that the names of a step's arguments tell, if they do."""
    words: list[str] = []
    keywords: list[tuple[str, str]] = []
    rate: float | None = None
    parameters = signature.parameters
    named = set(weights) if isinstance(weights, Mapping) else set()
    if not named <= parameters.keys():  # an argument called as one of them takes them all
        named = {name for name in named if name not in _ROLES}
    for name, parameter in parameters.items():
        role = f"weight:{name}" if name in named else _ROLES.get(name.lower().strip("_"), "")
        if role == "pairs" and "x" in {_ROLES.get(n.lower()) for n in parameters}:
            role = "x" if "x" not in words else ""
        if parameter.kind is parameter.VAR_POSITIONAL:
            words += ["*weights"] if _spreads(weights) and "weights" not in words else []
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.default is not parameter.empty:
            if role == "lr" and isinstance(parameter.default, int | float):
                rate = float(parameter.default)
            if not role or role in ("images", "weights") or role in words:
                continue
            keywords.append((name, role))
        elif not role or role in words:
            return None
        elif parameter.kind is parameter.KEYWORD_ONLY:
            keywords.append((name, role))
        else:
            words.append(role)
    roles = {*words, *dict(keywords).values()}
    if not ({"x", "y"} <= roles or "pairs" in roles):
        return None
    return Call(tuple(words), tuple(keywords), rate=rate)
