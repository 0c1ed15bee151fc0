"""The extension table: each kernel source compiled once for each instruction set.

Everything else is in ``pyproject.toml``. Cython runs in a process of its own for each extension,
because one ``.pyx`` becomes several modules (``PyInit_*`` follows the module's name), and so that
the extensions are built side by side.
"""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext

PACKAGE = Path("fastsoftmax")
# Same bits on every instruction set: no contraction but the explicit fma, and never -ffast-math.
# The next two let gcc turn a compare-and-select into a vector instruction; without the last one it
# moves the lanes that a loop has just stored by pieces of 16 bytes.
FLAGS = [
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    # The kernels' loops are vector code only with their arithmetic inlined; by default gcc stops
    # inlining once a file has grown by 40 %.
    "--param=inline-unit-growth=400",
    "-fno-tree-loop-distribute-patterns",
    "-g0",  # a quarter of the compiler's time
]
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("CYTHON_CLINE_IN_TRACEBACK", "0")]


def _isa():
    """Load ``_isa.py`` by its path: the package itself cannot be imported before it is built."""
    spec = importlib.util.spec_from_file_location("_isa", PACKAGE / "_isa.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extension(source, suffix="", flags=(), optional=False):
    """Describe one extension module: ``fastsoftmax/<source>.pyx`` built as ``<source><suffix>``."""
    return Extension(
        f"fastsoftmax.{source}{suffix}",
        [str(PACKAGE / f"{source}.pyx")],
        # A change of flags or of a shared .pxd must rebuild.
        depends=["setup.py", str(PACKAGE / "_isa.py"), *map(str, sorted(PACKAGE.glob("*.pxd")))],
        include_dirs=[numpy.get_include()],
        define_macros=MACROS,
        extra_compile_args=[*FLAGS, *flags],
        optional=optional,
    )


def extensions():
    """Return the extension table for this machine."""
    isa = _isa()
    # On macOS and in cross builds the target is what the compiler is told, not the running machine.
    machine = os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).split("-")[-1]
    kernels = [
        extension(kernel, f"_{i.name}", i.flags, optional=i.name != "baseline")
        for kernel in isa.KERNELS
        for i in isa.isas_for(machine)
    ]
    # The longest ones first, so that in the end no core waits for another.
    shared = Extension(f"fastsoftmax.{isa.SHARED}", [], extra_compile_args=FLAGS)
    return [*kernels, extension("_front"), shared, extension("_cpu")]


class build_ext(_build_ext):  # noqa: N801 (setuptools finds the command by this name)
    """Run Cython on each extension's source, into a C file of the extension's own name."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, ext):
        c_file = Path(self.build_temp, *ext.name.split(".")).with_suffix(".c")
        c_file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cython", "-3", "--module-name", ext.name]
        if ext.sources:
            shared = f"fastsoftmax.{_isa().SHARED}"
            command += ["--shared", shared, ext.sources[0], "-o", str(c_file)]
        else:
            command += ["--generate-shared", str(c_file)]
        subprocess.run(command, check=True)
        ext.sources = [str(c_file)]
        super().build_extension(ext)


setup(ext_modules=extensions(), cmdclass={"build_ext": build_ext})
