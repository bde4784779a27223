"""What LLVM makes of the kernels: no inner loop moves vectors to the stack.

Tiles have to fit the registers. Where they do not, the compiler keeps a part of them on the stack,
nothing tells, and the kernel takes twice the time. Here the assembly is read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from fullback.engine.cpu import REGISTER
from fullback.engine.library import FUNCTIONS, library

pytestmark = pytest.mark.skipif(
    not library().compiled or not llvm.get_process_triple().startswith("x86_64"),
    reason="the assembly of x86-64 is read",
)

EMIT = """
import json
import os
import sys

os.environ["NUMBA_OPT"] = "0"

import llvmlite.binding as llvm

from fullback.engine import compiler
from fullback.engine.cpu import target_machine
from fullback.engine.library import FUNCTIONS

target, found = target_machine(), {}
for function in FUNCTIONS:
    if not sys.argv[1:] or function.__name__ in sys.argv[1:]:
        module = llvm.parse_bitcode(compiler.bitcode(function, target))
        found[function.__name__] = target.emit_assembly(module)
json.dump(found, sys.stdout)
"""


def assembly(cpu: str | None, *kernels: str) -> dict[str, str]:
    """Return the assembly of kernels, or of all, for this CPU or another."""
    other = {} if cpu is None else {"NUMBA_CPU_NAME": cpu}
    ran = subprocess.run(
        [sys.executable, "-c", EMIT, *kernels],
        env={**os.environ, **other},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def inner_loops(code: str) -> list[list[str]]:
    """Return the instructions of every loop that has no other in it."""
    lines = [line.split("#")[0].strip() for line in code.splitlines()]
    labels = {line[:-1]: n for n, line in enumerate(lines) if line.endswith(":")}
    loops = []
    for n, line in enumerate(lines):
        jump = re.fullmatch(r"j\w+\s+(\.L\w+)", line)
        first = labels.get(jump[1], n) if jump else n
        if first < n and "retq" not in lines[first:n]:  # that would be a way out
            loops.append((first, n))
    inner = [
        (first, last)
        for first, last in loops
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops)
    ]
    instruction = re.compile(r"[a-z]\w*(\s|$)")
    return [[s for s in lines[first : last + 1] if instruction.match(s)] for first, last in inner]


def spills(code: str) -> dict[str, float]:
    """Return what moves whole vectors between registers and the stack in inner loops.

    And of which share of the loop's instructions it is one. A place on the stack is a distance from
    %rsp, or from %rbp in a function that has it for its frame; with another register beside it, it
    is an array.
    """
    frame = r"\(%r[sb]p\)" if re.search(r"movq\s+%rsp, %rbp", code) else r"\(%rsp\)"
    found = {}
    for loop in inner_loops(code):
        own = [
            s for s in loop if re.search(frame, s) and re.match(r"v?mov(dq)?[au](p[sd])?\w*\s", s)
        ]
        found |= {line: len(own) / len(loop) for line in own}
    return found


def test_spills_are_seen():
    code = """
.LBB0_1:
    vmovups %zmm1, 64(%rsp)
.LBB0_2:
    vmovups %zmm2, 128(%rsp)
    vmovups (%rbp,%rax), %zmm3
    vmovups (%rbp), %zmm3
    vfmadd231ps %zmm1, %zmm2, %zmm3 # 64-byte Reload
    jne .LBB0_2
    jne .LBB0_1
"""
    assert spills(code) == {"vmovups %zmm2, 128(%rsp)": 1 / 5}
    assert len(spills("movq %rsp, %rbp\n" + code)) == 2


def test_no_inner_loop_moves_vectors_to_the_stack():
    """There are 32 registers with AVX-512; with AVX2 and SSE the next test."""
    if REGISTER < 16:
        pytest.skip("needs AVX-512")
    found = {name: spills(code) for name, code in assembly(None).items()}
    assert len(found) == len(FUNCTIONS)
    assert {name: lines for name, lines in found.items() if lines} == {}


TILES = (
    *("conv2d", "conv3x3", "conv3x3_pool", "conv_dw", "conv3x3_dw", "conv3x3_pool_dw"),
    *("dense", "dense_dx", "dense_dw"),
)


@pytest.mark.parametrize(("cpu", "most"), [("haswell", 1 / 20), ("x86-64", 1 / 10)])
def test_tiles_of_other_cpus_fit_their_registers(cpu, most):
    """With sixteen registers, LLVM fills them up with cells that the next place takes, too.

    A tile that is too large is on the stack as a whole: a fifth to a half of all instructions.
    """
    found = {name: spills(code) for name, code in assembly(cpu, *TILES).items()}
    assert sorted(found) == sorted(TILES)
    shares = {name: max(lines.values(), default=0.0) for name, lines in found.items()}
    assert {name: share for name, share in shares.items() if share > most} == {}
