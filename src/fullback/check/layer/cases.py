"""The inputs that a layer is examined on, in its layout, each with the reference that fits it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from fullback.check.axes import arranged
from fullback.check.layer.calls import BIAS, WEIGHT, CallInputs, CallSignature, bare
from fullback.check.layer.kinds import KINDS, Layout, lengths, spans, values
from fullback.check.layer.reference import Reference, arrange_parameter
from fullback.check.layer.returned import UserError, attributes_of
from fullback.check.layer.user_layer import UserLayer, options_of
from fullback.check.mistakes import LayerPass, LossPass
from fullback.errors import FullbackError, OptionError
from fullback.layers import Layer, SoftmaxCrossEntropy
from fullback.layers.base import Array, Shape

_IMAGES = 3
_DELIBERATE = ("AssertionError", "NotImplementedError")


@dataclass(frozen=True, eq=False)
class Case:
    """One input.

    Attributes
    ----------
    name, setting : what it is, and with which options, in words
    inputs : what the layer is called with
    reference : what should come of it, where forward agrees with that
    ties : whether many cells are equal
    differs : in which way forward differs from the reference, in words
    """

    name: str
    inputs: CallInputs
    setting: str = ""
    reference: Reference | None = None
    ties: bool = False
    differs: str = ""

    @property
    def title(self) -> str:
        """The input and its setting."""
        return f"{self.setting}: {self.name}" if self.setting else self.name


@dataclass
class Cases:
    """All inputs, and what is worth knowing about them.

    Attributes
    ----------
    cases : the inputs
    batch : which axis of x counts the images; None where there is one image
    notes : how forward was understood
    refused : inputs that forward refuses, with its words
    crashes : settings in which forward fails on every input, by what it raises
    """

    cases: list[Case]
    batch: int | None = 0
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    crashes: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A layout and a setting in which forward runs, and whether it gives the reference's output."""

    layout: Layout
    setting: Mapping[str, Any]
    signature: CallSignature
    agrees: bool


class CaseMaker:
    """Finds the layout and the setting in which forward gives the reference's output.

    Parameters
    ----------
    layer : the user's
    kind, options : of which kind it is, and what the user said of its options
    shape : that of an input that it takes, where the user gave one
    rng : draws inputs and parameters
    """

    def __init__(
        self,
        layer: UserLayer,
        kind: str,
        options: Mapping[str, Any],
        shape: Sequence[int] | None,
        rng: np.random.Generator,
    ) -> None:
        self.layer, self.name, self.options, self.rng = layer, kind, dict(options), rng
        self.kind, self.layouts = KINDS[kind], KINDS[kind].layouts
        layer.keep(self._users(self.layouts[0]).keys())
        self.shape = shape if shape is not None else _input_shape(layer.object)
        held = {n: v for n, v in options_of(layer.object).items() if n in self.kind.options}
        self.told = self._settings(self.kind.told)
        self.assumed = self._settings([held, *self.kind.assumed] if held else self.kind.assumed)
        self.groups = int(options.get("groups", 1))
        self.trouble: OptionError | None = None

    def make_single(self) -> Iterator[Cases]:
        """Yield cases of one image at a time, for every layout of it in which forward agrees."""
        for layout in self.kind.layouts:
            self.layouts = (layout,)
            if layout.batch is None and any(fit.agrees for fit in self._fits()):
                yield self.make()

    def make(self) -> Cases:
        """Return the cases.

        Raises
        ------
        OptionError
            Forward cannot be called in any layout, or never gives an output of the right shape.
        """
        fits = self._fits()
        if not fits:
            raise self.trouble or OptionError(
                f"no input of kind={self.name!r} fits the parameters given, or forward's output "
                "never has the shape that it should; give the kind's options, or inputs and params "
                "in place of kind"
            )
        layout = fits[0].layout
        result = Cases([], layout.batch)
        if layout.turned:
            result.notes.append("a true convolution: forward turns the filters by 180 degrees")
        if not self.kind.every:
            single = ": one image at a time" * (layout.batch is None)
            result.notes.append(f"x has the axes {', '.join(layout.x.upper())}{single}")
        for number, fit in enumerate(fits):
            self.layer.forward_signature = fit.signature
            self._add(result, fit.layout, fit.setting, few=number > 0 or not fit.agrees)
            if fit.agrees:
                taken = self._taken - {"mode"}
                for other in self.told:
                    differing = {n for n in other if other[n] != fit.setting.get(n, other[n])}
                    if differing and differing <= taken:
                        self._add(result, fit.layout, other, few=False)
        self.layer.forward_signature = fits[0].signature
        return result

    # Searching --------------------------------------------------------------------------------

    def _fits(self) -> list[_Fit]:
        """Return the layout in which forward agrees, or all where any will do, or one that runs."""
        for square in (False, True):
            runs: list[_Fit] = []
            for layout in self.layouts:
                ran = any(replace(fit.layout, bias=layout.bias) == layout for fit in runs)
                fit = None if ran else self._fit(layout, square)
                if fit is not None and fit.agrees and not self.kind.every:
                    return [fit]
                runs += [fit] if fit is not None else []
            if runs:
                return runs if self.kind.every else runs[:1]
        return []

    def _fit(self, layout: Layout, square: bool) -> _Fit | None:
        """Run forward in a layout, and compare it with the reference of every setting."""
        known = self._known(layout)
        if known is None:
            return None
        fit = None
        for setting in {str(s.get("mode")): s for s in reversed(self.told)}.values():
            rows, columns, _, _ = spans(setting, known)
            high, wide = (rows + 4, columns + 5) if self.name == "conv2d" else (12, 18)
            shape = self._shape(layout, (high, high) if square else (high, wide))
            if shape is None:
                return None
            x = next(values(self.rng, _IMAGES if layout.batch is not None else 1, shape))[1]
            every = (self._arranged(layout, s, x) for s in (setting, *self.assumed))
            found = next((one for one in every if one), None)
            if found is None:
                continue
            inputs, reference = found
            try:
                y = self.layer.find_forward(inputs).y
            except OptionError as error:
                self.trouble = self.trouble or error
                continue
            if layout.weight and not self.layer.has_parameters:
                if self.layer.allocate(inputs):
                    return self._fit(layout, square)
                raise OptionError(
                    f"kind={self.name!r} has weights, but forward takes none and the object holds "
                    "none; give params="
                )
            handed = {s for s in self.layer.forward_signature.takes if s.startswith("parameter:")}
            if handed and len(handed) < len(inputs.parameters):
                return None  # it has no bias
            fit = self._compared(layout, setting, reference, y)
            if (fit is not None and fit.agrees) or "mode" not in self._taken:
                break
        return fit

    def _compared(
        self, layout: Layout, setting: Mapping[str, Any], like: Reference, y: Array
    ) -> _Fit | None:
        """Compare an output with the references of the settings that forward may have."""
        taken, signature = self._taken, self.layer.forward_signature
        runs = None
        for exactly, other in itertools.product((True, False), (setting, *self.assumed)):
            if any(other.get(name) != setting.get(name) for name in taken & set(other)):
                continue
            try:
                reference = like
                if isinstance(like.p, LayerPass):
                    reference = self._reference(layout, other, like.p.x, like.p.parameters)
            except FullbackError:
                continue
            same, reason = reference.agrees(y, 1e-12 if exactly else 0.0)
            if same is not None:
                return _Fit(layout, other, signature, True)
            if runs is None and not reason.startswith("forward returns"):
                runs = _Fit(layout, other, signature, False)
        return runs

    @property
    def _taken(self) -> set[str]:
        """The options that forward is handed."""
        return self.layer.forward_signature.options(self.kind.options)

    def _settings(self, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return settings with what the user said in them, each once."""
        merged = [{**one, **self.options} for one in settings]
        return [one for n, one in enumerate(merged) if one not in merged[:n]]

    # Shapes -----------------------------------------------------------------------------------

    def _shapes(self, layout: Layout, setting: Mapping[str, Any]) -> list[Shape]:
        """Return shapes of inputs: some that the stride leaves rows of, and a square one."""
        rows, columns, down, across = spans(setting, self._known(layout) or {})
        high, wide = rows + 2 * down, columns + 3 * across
        sizes = [(high, wide), (high + down + 1, wide - across + 1), (high, high)]
        return list(dict.fromkeys(s for size in sizes if (s := self._shape(layout, size))))

    def _shape(self, layout: Layout, cells: tuple[int, int]) -> Shape | None:
        """Return (C, H, W) or (C,) of an input; None where the user's shape has other axes."""
        known, axes = self._known(layout) or {}, self.kind.axes
        images = bool({"h", "w"} & set(layout.x))
        drawn = 2 if images else 20 if self.name == "dropout" else 5
        channels = known.get("c", drawn) * self.groups if "c" in layout.x else 1
        cells = cells if images else (1, 1)
        if self.shape is None:
            return (channels, *cells)[: len(axes) - 1]
        order = layout.x if len(layout.x) == len(self.shape) else layout.x.replace("n", "")
        given = lengths(self.shape, order, {"c": channels} if "c" in known else {})
        return None if given is None else tuple(given.get(axis, 1) for axis in axes[1:])

    def _known(self, layout: Layout) -> dict[str, int] | None:
        """Return the lengths of axes of the weights; None where the user's have another layout."""
        if not layout.weight:
            return {}
        if not self.layer.parameters:
            rows, columns = np.broadcast_to(self.options.get("size", 3), 2)
            if self.name == "batchnorm":
                return {}
            filters = 3 * self.groups if self.name == "conv2d" else 4
            return {"k": filters if "k" in layout.weight else 1, "r": int(rows), "s": int(columns)}
        known: dict[str, int] = {}
        if len(users := self._users(layout)) != (2 if layout.bias else 1):
            return None
        for name, order in zip(users, (layout.weight, layout.bias), strict=False):
            found = lengths(np.shape(self.layer.parameters[name]), order, known)
            if found is None:
                return None
            known = found
        return {"c": known["k"]} if self.name == "batchnorm" else {"k": 1, **known}

    def _users(self, layout: Layout) -> dict[str, str]:
        """Return the roles, "weight" and "bias", of the user's parameters."""
        roles = ("weight", "bias")[: 2 if layout.bias else 1 if layout.weight else 0]
        names = list(self.layer.parameters)
        if not names:
            named = ("gamma", "beta") if self.name == "batchnorm" else ("w", "b")
            return dict(zip(named, roles, strict=False))
        biases = [n for n in names if bare(n) in BIAS] or names[1:2]
        weights = [n for n in names if bare(n) in WEIGHT and n not in biases] or names[:1]
        users = {weights[0]: "weight", **dict.fromkeys(biases[:1], "bias")}
        return users if layout.weight else {}

    # Making -----------------------------------------------------------------------------------

    def _arranged(
        self, layout: Layout, setting: Mapping[str, Any], x: Array
    ) -> tuple[CallInputs, Reference] | None:
        """Return an input in a layout, with its reference; None where it does not fit."""
        users = arranged(x, self.kind.axes, layout.x)
        if self.kind.reference is None:
            labels = self.rng.integers(0, x.shape[1], len(x))
            hot = arranged(np.eye(x.shape[1])[labels], "nc", layout.x)
            given = hot if layout.y == layout.x else labels if layout.y else labels[0]
            loss = SoftmaxCrossEntropy()
            loss_pass = LossPass(loss, x, labels, *loss.forward(x, labels)[1])
            reference = Reference(loss_pass, self.kind.axes, layout, {})
            return CallInputs(users, {}, np.asarray(given), setting), reference
        try:
            reference = self._reference(layout, setting, x)
        except FullbackError:
            return None
        parameters = {
            user: arrange_parameter(cast("LayerPass", reference.p).parameters[role], role, layout)
            for user, role in reference.names.items()
        }
        if any(np.shape(p) != parameters[n].shape for n, p in self.layer.parameters.items()):
            return None
        return CallInputs(users, parameters, None, setting), reference

    def _reference(
        self,
        layout: Layout,
        setting: Mapping[str, Any],
        x: Array,
        parameters: dict[str, Array] | None = None,
    ) -> Reference:
        """Run the reference on x, with new parameters unless some are given."""
        known, make = self._known(layout) or {}, cast("Callable[..., Layer]", self.kind.reference)
        layer = make(setting, known.get("k", 1), (known.get("r", 1), known.get("s", 1)))
        output = layer.output_shape(x.shape[1:])
        by_cell = layout.bias_axes == "kpq"
        if parameters is None:
            shapes = layer.parameter_shapes(x.shape[1:])
            parameters = {name: self.rng.normal(size=shape) for name, shape in shapes.items()}
            if "bias" in parameters and not layout.bias:
                parameters["bias"] = np.zeros_like(parameters["bias"])
        if by_cell and parameters["bias"].shape != output:
            parameters = {**parameters, "bias": self.rng.normal(size=output)}
        used = {**parameters, "bias": np.zeros(output[0])} if by_cell else parameters
        y, cache = layer.forward(x, used, training=True)
        y = y + parameters["bias"] if by_cell else y
        outputs = {"input": x, "layer": y}
        p = LayerPass("layer", layer, x, y, cache, parameters, outputs, "input")
        return Reference(p, self.kind.axes, layout, self._users(layout))

    def _add(self, result: Cases, layout: Layout, setting: Mapping[str, Any], *, few: bool) -> None:
        """Add the inputs of a setting; what forward refuses is kept as refused, or as a crash."""
        told = self._taken & set(setting) - {"mode", "keep"}
        title = ", ".join(f"{name} {setting[name]}" for name in setting if name in told)
        errors: list[tuple[str, str]] = []
        worked = 0
        for name, x, ties in self._inputs(layout, setting, few=few):
            found = self._arranged(layout, setting, x)
            if found is None:
                continue
            inputs, reference = found
            shape = " x ".join(map(str, inputs.x.shape)) or "one number"
            case_name = f"an input of {shape}{', ' * bool(name)}{name}"
            try:
                with np.errstate(all="ignore"):
                    y = self.layer.output(inputs)
            except UserError as error:
                errors.append((case_name, str(error)))
                continue
            worked += 1
            same, differs = reference.agrees(y)
            result.cases.append(Case(case_name, inputs, title, same, ties, differs))
        if worked or not title or all(text.startswith(_DELIBERATE) for _, text in errors):
            at = f"{title}: " if title else ""
            result.refused += [f"{at}{name} (forward raises {text})" for name, text in errors]
        else:
            for text in dict.fromkeys(text for _, text in errors):
                result.crashes.setdefault(text, []).append(title)

    def _inputs(
        self, layout: Layout, setting: Mapping[str, Any], *, few: bool
    ) -> Iterator[tuple[str, Array, bool]]:
        """Yield inputs in the reference's layout: name, array, and whether many cells tie."""
        images = _IMAGES if layout.batch is not None else 1
        steep = self.name.startswith(("softmax", "sigmoid", "tanh"))  # slopes that vanish
        shapes = self._shapes(layout, setting)
        for name, x in values(self.rng, images, shapes[0]):
            ties = name == "a zero background"
            if not (ties and self.name == "dropout"):  # whose mask would be hidden
                yield name, x / 10 if steep and name == "large values" else x, ties
            if few:
                return
        for shape in shapes[1:]:
            yield "", next(values(self.rng, images, shape))[1], False
        if images > 1:
            yield "one image alone", next(values(self.rng, 1, shapes[0]))[1], False


def _input_shape(layer: Any) -> Shape | None:
    """Return the shape of inputs that an object names."""
    named = ("inputshape", "inshape", "inputsize", "inputdim", "inputdims")
    found = [v for k, v in attributes_of(layer).items() if bare(k) in named]
    shapes = [tuple(v) for v in found if isinstance(v, tuple | list)]
    return next((shape for shape in shapes if all(isinstance(n, int) for n in shape)), None)
