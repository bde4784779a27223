"""The CPU that kernels are compiled for, and how large the tiles are that suit its registers.

It is this machine's. ``NUMBA_CPU_NAME`` chooses another by LLVM's name for it ("haswell",
"x86-64"), and ``NUMBA_CPU_FEATURES`` what it can do ("+avx2,-fma"); where a name is given alone,
the CPU can do what the name says. (Numba would add what this machine can do, so that "haswell"
would have AVX-512 on a machine that has it.)
"""

from __future__ import annotations

import os

import llvmlite.binding as llvm


def cpu() -> tuple[str, str]:
    """Return the CPU's name and features, in LLVM's words."""
    name = os.environ.get("NUMBA_CPU_NAME", "")
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if name in ("", "host"):
        return llvm.get_host_cpu_name(), _host_features() if features is None else features
    return "" if name == "generic" else name, features or ""


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
"""


def _wide() -> bool:
    features = cpu()[1]
    if features:
        return "+avx512f" in features.split(",")
    return "zmm" in target_machine().emit_assembly(llvm.parse_assembly(_ADD))


WIDE = _wide()
"""Whether there are 32 registers of sixteen floats each.

Elsewhere a vector takes two or four of 16 or 32 smaller registers, and only tiles with a quarter of
the vectors stay in them: one filter of a 3 x 3 convolution, not four, at a time.
"""

FILTERS = 4 if WIDE else 1  # of a tile in convolutions; packed weights lie by as many
UNITS = 8 if WIDE else 4  # outputs of a tile in dense layers
