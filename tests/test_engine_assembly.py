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

from fullback.engine.library import library

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
    """Return the lines of every loop that has no other in it."""
    lines = [line.split("#")[0].strip() for line in code.splitlines()]
    labels = {line[:-1]: n for n, line in enumerate(lines) if line.endswith(":")}
    loops = []
    for n, line in enumerate(lines):
        jump = re.fullmatch(r"j\w+\s+(\.L\w+)", line)
        if jump and labels.get(jump[1], n) < n:
            loops.append((labels[jump[1]], n))
    inner = [
        (first, last)
        for first, last in loops
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops)
    ]
    return [lines[first : last + 1] for first, last in inner]


def spills(code: str) -> list[str]:
    """Return what moves whole vectors between registers and the stack in inner loops.

    A place on the stack is a distance from %rsp, or from %rbp in a function that has it for its
    frame; with another register beside it, it is an array.
    """
    frame = r"\(%r[sb]p\)" if re.search(r"movq\s+%rsp, %rbp", code) else r"\(%rsp\)"
    return [
        line
        for loop in inner_loops(code)
        for line in loop
        if re.search(frame, line) and re.match(r"v?mov[au]p[sd]\s|vmovdq[au]", line)
    ]


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
    assert spills(code) == ["vmovups %zmm2, 128(%rsp)"]
    assert len(spills("movq %rsp, %rbp\n" + code)) == 2


def test_no_inner_loop_moves_vectors_to_the_stack():
    found = {name: spills(code) for name, code in assembly(None).items()}
    assert {name: lines for name, lines in found.items() if lines} == {}
