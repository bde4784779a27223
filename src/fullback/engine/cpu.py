"""The CPU that kernels are compiled for, and how large the tiles are that suit its registers.

It is this machine's. ``NUMBA_CPU_NAME`` chooses another by LLVM's name for it ("haswell",
"x86-64"), and ``NUMBA_CPU_FEATURES`` what it can do ("+avx2,-fma"); where a name is given alone,
the CPU can do what the name says. (Numba would add what this machine can do, so that "haswell"
would have AVX-512 on a machine that has it.)

LLVM ends the process over a name that it does not know, so both are tried in another process first.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys

import llvmlite.binding as llvm

from fullback.errors import OptionError
from fullback.options import short

NAME, FEATURES = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"
"""The environment variables."""

_PATIENCE = 60.0  # seconds of the process that tries them
_NAME_SYNTAX = re.compile(r"[A-Za-z0-9._-]{1,40}")
_FEATURES_SYNTAX = re.compile(r"([+-][A-Za-z0-9._-]{1,40})(,[+-][A-Za-z0-9._-]{1,40})*|")

_TRY = """
import sys

import llvmlite.binding as llvm

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
target = llvm.Target.from_triple(llvm.get_process_triple())
name, features, code = sys.argv[1:]
machine = target.create_target_machine(cpu=name, features=features, opt=3, jit=True)
machine.emit_object(llvm.parse_assembly(code))
"""


def cpu() -> tuple[str, str]:
    """Return the CPU's name and features, in LLVM's words.

    Raises
    ------
    OptionError
        NUMBA_CPU_NAME or NUMBA_CPU_FEATURES is nothing that LLVM knows.
    """
    name, features = os.environ.get(NAME, ""), os.environ.get(FEATURES)
    if name in ("", "host"):
        if features is None:
            return llvm.get_host_cpu_name(), _host_features()
        name = llvm.get_host_cpu_name()
    chosen = "" if name == "generic" else name, features or ""
    _require_known(*chosen)
    return chosen


@functools.cache
def _require_known(name: str, features: str) -> None:
    """Raise OptionError where LLVM cannot compile for a CPU of this name and these features."""
    if name and not _NAME_SYNTAX.fullmatch(name):
        raise OptionError(f"{NAME} must be a name like haswell or x86-64, got {short(name)}")
    if not _FEATURES_SYNTAX.fullmatch(features):
        raise OptionError(
            f"{FEATURES} must be features like +avx2,-fma, each with its sign, got "
            f"{short(features)}"
        )
    if getattr(sys, "frozen", False):  # what would be started is not Python
        return
    try:
        tried = subprocess.run(  # noqa: S603 -- Python itself
            [sys.executable, "-c", _TRY, name, features, _ADD],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):  # the system has no more processes
        return
    messages = tried.stderr.strip().splitlines()
    unknown = any("is not a recognized" in line or "Available" in line for line in messages)
    if tried.returncode or unknown:
        reason = messages[0] if messages else f"it ends with {tried.returncode}"
        raise OptionError(
            f"LLVM cannot compile for {NAME}={name or 'generic'} {FEATURES}={features}: "
            f"{reason[:200]}; unset them for this machine's CPU"
        )


def _host_features() -> str:
    try:
        features: str = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot tell on every system
        return ""
    return features


def target_machine() -> llvm.TargetMachine:
    """Return what compiles for the CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = cpu()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=name, features=features, opt=3, jit=True)


_ADD = """
define void @add(ptr %a) {
  %v = load <16 x float>, ptr %a
  %w = fadd <16 x float> %v, %v
  store <16 x float> %w, ptr %a
  ret void
}

define double @twice(double %a) {
  %b = fadd double %a, %a
  ret double %b
}
"""


def jit_disabled() -> bool:
    """Return whether kernels run as plain Python, where a vector always has all lanes."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _register() -> int:
    if jit_disabled():
        return 16
    features = cpu()[1]
    if features:
        known = features.split(",")
        return 16 if "+avx512f" in known else 8 if {"+avx", "+avx2"} & {*known} else 4
    assembly = target_machine().emit_assembly(llvm.parse_assembly(_ADD))
    return 16 if "zmm" in assembly else 8 if "ymm" in assembly else 4


REGISTER = _register()
"""Floats of a register: 16 with AVX-512, 8 with AVX, 4 with SSE or Neon.

Convolutions work on as many lanes at a time; all other kernels have a vector of all lanes in
several registers.
"""

MANY = REGISTER == 16 or not llvm.get_process_triple().startswith("x86_64")
"""Whether there are 32 registers, as with AVX-512 and Neon, and not 16."""

# The sizes of tiles: what is added up, what it is made of, and a weight stay in registers.
FILTERS = 4 if MANY else 2  # in convolutions; packed weights lie by as many
PAIRS = 2 if MANY else 1  # filters of which all nine weights' gradients are added up at once
WHOLE = {16: 16, 8: 4, 4: 4 if MANY else 2}[REGISTER]  # vectors of all lanes, in dense layers
HIGH = 4 if REGISTER == 16 else 1  # filters, or units, of a tile of gradients
TAPS = 5 if REGISTER > 4 or MANY else 3  # and taps of a row
