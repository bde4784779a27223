"""What kernels declare against what they use, and what lowering is refused."""

from __future__ import annotations

import ast
import inspect
import textwrap

import numpy as np
import pytest

from fullback import Network
from fullback.engine.kernels import HELPERS, KERNELS, conv
from fullback.engine.kernels.dense import copy
from fullback.engine.kernels.images import output
from fullback.engine.lowering.plan import Plan
from fullback.engine.operands import (
    DECLARATIONS,
    NONE,
    Declaration,
    Pair,
    Shape,
    View,
    in_python,
    kernel,
)
from fullback.engine.program import row_of


def used(function):
    """The attributes of k that a function uses, by itself and by the helpers it calls."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    nodes = list(ast.walk(tree))
    names = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "k"
    }
    said = {node.id for node in nodes if isinstance(node, ast.Name)}
    for helper in HELPERS:
        takes_k = "k" in inspect.signature(helper).parameters
        if takes_k and helper.__name__ in said and helper.__globals__ is function.__globals__:
            names |= used(helper)
    return names


@pytest.mark.parametrize("function", KERNELS, ids=lambda function: function.__name__)
def test_a_kernel_uses_what_it_declares(function):
    assert used(function) == set(DECLARATIONS[function].fields)


def test_names_of_kernels_are_their_own():
    assert len({function.__name__ for function in KERNELS}) == len(KERNELS)


def test_operands_lie_in_the_order_of_their_declaration():
    declared = Declaration("x:map w", "y:map x:map", "shape:shape n size:pair", for_workers=False)
    k = declared.unpacked(np.arange(100, 120))
    assert (k.x, k.w, k.y) == (View(100, 101, 102), 103, View(104, 105, 106))
    assert (k.shape, k.n, k.size) == (Shape(107, 108, 109), 110, Pair(111, 112))
    assert declared.size == 13
    assert str(declared) == "x:map w y:map shape:shape n size:pair"


def test_one_name_has_one_kind():
    with pytest.raises(ValueError, match="operand x is declared as two kinds"):
        Declaration("x:map", "x", "", for_workers=False)


def test_a_kernel_is_called_with_a_row():
    seen = []

    @kernel(reads="x", numbers="size:pair")
    def function(a, s, c, k, i, j):
        seen.append((k.x, k.size.columns, i, j))

    in_python(function)(None, None, None, np.array([7, 8, 9, 0, 0]), 1, 2)
    assert seen == [(7, 9, 1, 2)]


@pytest.fixture
def plan():
    return Plan(Network.parse("conv2 relu flatten dense3", (1, 6, 6)), "logits", blocks=1)


def test_maps_and_regions_stand_for_places(plan):
    x = plan.map("x", (2, 3, 4), ((1, 1), (1, 1)))
    y = plan.map("y", (2, 3, 4))
    assert row_of(copy, {"x": x, "y": y, "shape": x.shape}) == (*x.view, *y.view, 2, 3, 4)
    assert row_of(output, {"x": x, "units": 24}) == (x.place, 24)
    assert row_of(output, {"x": plan.room, "units": None}) == (plan.room.place, NONE)


@pytest.mark.parametrize(
    ("operands", "wrong"),
    [
        ({"x": 3}, "takes the operands x units: units is missing"),
        ({"x": 3, "unit": 4}, "unit is unknown, units is missing"),
        ({"x": (1, 2), "units": 4}, r"output takes for x one integer, got \(1, 2\)"),
        ({"x": 1.5, "units": 4}, "output takes for x one integer, got 1.5"),
    ],
)
def test_operands_that_are_not_the_declared_ones_are_refused(plan, operands, wrong):
    with pytest.raises(TypeError, match=wrong):
        plan.emit(output, **operands)


def test_a_map_is_no_place_of_a_map(plan):
    with pytest.raises(TypeError, match="copy takes for x one map, got Region"):
        row_of(copy, {"x": plan.room, "y": plan.map("y", (2, 2, 2)), "shape": (2, 2, 2)})


def test_instructions_read_and_write_what_is_declared(plan):
    x = plan.map("x", (1, 6, 6))
    y = plan.map("y", (2, 4, 4))
    sizes = {
        "filters": 2,
        "channels": 1,
        "counts": (4, 4),
        "groups": 1,
        "relu": True,
        "w": 0,
        "b": None,
    }
    plan.emit(conv.conv3x3, x=x, y=y, **sizes)
    (instruction,) = plan.phases[0].instructions
    assert (instruction.reads, instruction.writes) == (("x",), ("y",))
