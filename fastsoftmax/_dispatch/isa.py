"""Data only: the instruction sets a kernel is compiled for. ``setup.py`` and ``choose`` read it.

``ISAS`` is in order of preference, the last one first choice. A kernel module is named after its
source and its instruction set: ``_kernels/softmax.pyx`` becomes ``softmax_avx2``.
"""

from typing import NamedTuple


class Isa(NamedTuple):
    """One instruction set: where it exists, what it needs from the CPU, how to compile for it."""

    name: str
    machines: tuple[str, ...]  # values of platform.machine(), lower case; () is every machine
    features: tuple[str, ...]  # names that cpu.features() must report
    flags: tuple[str, ...]  # for gcc and clang
    fused_multiply_add: tuple[str, ...]  # machines where the kernels have one, and the same bits


X86_64 = ("x86_64", "amd64")
AARCH64 = ("aarch64", "arm64")
_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")

ISAS = (
    Isa("baseline", (), (), (), AARCH64),
    Isa("avx2", X86_64, _AVX2, tuple(f"-m{f}" for f in _AVX2), X86_64),
    Isa(
        "avx512",
        X86_64,
        _AVX2 + _AVX512,
        (*(f"-m{f}" for f in _AVX2 + _AVX512), "-mprefer-vector-width=512"),
        X86_64,
    ),
)

PACKAGE = "fastsoftmax"

#: Sources in ``_kernels`` that are compiled once for each instruction set.
KERNELS = (
    *("sample", "softmax", "select", "cross_entropy", "backward", "statistics", "packing"),
    "quantized",
)

#: The families of public functions: a module of ``_front``, its class, the kernels it is made over.
FAMILIES = (
    ("softmax", "SoftmaxFunctions", ("softmax", "packing", "statistics")),
    ("statistics", "StatisticsFunctions", ("statistics", "packing")),
    ("selection", "SelectionFunctions", ("select", "packing")),
    ("sampling", "SamplingFunctions", ("sample", "packing")),
    ("chain", "ChainFunctions", ("sample", "packing")),
    ("verification", "VerificationFunctions", ("sample", "packing")),
    ("losses", "LossFunctions", ("cross_entropy", "backward", "packing")),
)

#: What is no function of users, and loaded when it is first asked for.
PARTS = ("parts", "PartFunctions", ("softmax", "packing"))

#: Sources in ``_front``, compiled once, with baseline flags.
FRONT = (
    *(module for module, _, _ in (*FAMILIES, PARTS)),
    *("arrays", "plan", "row_arguments", "filters", "masks", "uniforms", "race", "results"),
    "chain_arguments",
    *("pack", "signals", "execute", "columns", "long_row", "long_selection", "packed_rows"),
    "history",
)

#: Cython's own code for memoryviews, in a module that all others import: compiled into each it was
#: half of the build. It has no source here; Cython writes it.
SHARED = "_cyutility"


def isas_for(machine: str) -> tuple[Isa, ...]:
    """Return the instruction sets that a machine's architecture can have, best last."""
    return tuple(isa for isa in ISAS if not isa.machines or machine.lower() in isa.machines)
