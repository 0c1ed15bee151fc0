"""The extension table: each kernel source compiled once for each instruction set.

Everything else is in ``pyproject.toml``. One ``.pyx`` becomes several modules: Cython translates it
once, and each of them compiles a copy that has its own name in the two places where C knows it.
"""

import gzip
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.command.sdist import sdist as _sdist
from setuptools.errors import PlatformError
from setuptools.modified import newer_group

PACKAGE = Path("fastsoftmax")
# Same bits on every instruction set: no contraction but the explicit fma, and never -ffast-math.
# The next two let a compiler turn a compare-and-select into a vector instruction.
FLAGS = [
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    # setuptools adds it as Python has it, unless CFLAGS are set: so the code is the same for all.
    "-fwrapv",
    "-g0",  # a quarter of the compiler's time
]
# What is left out of -O3 takes a tenth of gcc's time, and nothing runs slower without.
LEFT_OUT = ["-fno-gcse", "-fno-rerun-cse-after-loop", "-fira-region=one"]
GCC_FLAGS = ["-O3", *LEFT_OUT]
GCC_FRONT_FLAGS = [
    *("-fno-tree-vectorize", "-fno-tree-slp-vectorize"),  # no loop there is worth it
    "--param=max-inline-insns-single=25",
]
# What kernels that search run faster for, of -O3. The rest of it is a tenth more code, and turns
# loops over groups of lanes inside out.
SEARCH = [
    *("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fpeel-loops", "-funswitch-loops"),
    *("-fsplit-loops", "-fpredictive-commoning", "-ftree-partial-pre", "-fipa-cp-clone"),
    *LEFT_OUT,
    "--param=max-inline-insns-single=25",  # 10 is 2 % slower
]
SEARCHING = ("sample", "select")
# Where an architecture has several instruction sets, the least of them is for its oldest CPUs. What
# -O1 leaves out is a third of the compiler's time; of softmax and losses it is 1 to 4 % of theirs,
# of selection up to a quarter, of a nucleus 70 %.
LEAST = ["-O1", "-ftree-vectorize", "-ftree-slp-vectorize", "-fpeel-loops"]
GCC_KERNEL_FLAGS = [  # for all kernels; what is said of one counts before it
    # The loops are vector code only with their arithmetic inlined; by default gcc stops inlining
    # once a file has grown by 40 %.
    "--param=inline-unit-growth=400",
    # What a loop computes is built into it however long it is (`loop_void`, `inlined_void` in
    # types.pxd). The rest goes into its callers up to so many instructions, not 200: a third of the
    # code less, and of the compiler's time, which runs as fast.
    "--param=max-inline-insns-single=10",
    # Without it gcc moves the lanes that a loop has just stored by pieces of 16 bytes.
    "-fno-tree-loop-distribute-patterns",
]
CLANG_FLAGS = ["-O3"]
# clang unrolls a step of 32 exponentials before it could make vectors of it: 4 times the time. Its
# other kernels run slower without.
CLANG_KERNEL_FLAGS = {
    "softmax_avx512": ["-fno-unroll-loops"],
    "cross_entropy_avx512": ["-fno-unroll-loops"],
}
# What reads arguments of calls that take microseconds.
COLD_FLAGS = ["-O1"]
COLD = ("verification", "chain_arguments", "history")
# What runs once, or for rows that take milliseconds: as little code as can be.
SMALL_FLAGS = ["-Os"]
SMALL = ("parts", "long_row")
#: What has no compiler is asked for, never guessed: a broken build must not install slow code.
PURE = os.environ.get("FASTSOFTMAX_PURE", "0") not in ("", "0")
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("CYTHON_CLINE_IN_TRACEBACK", "0")]


def _isa():
    """Load ``isa.py`` by its path: the package itself cannot be imported before it is built."""
    spec = importlib.util.spec_from_file_location("isa", PACKAGE / "_dispatch" / "isa.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ISA = _isa()
SHARED = str(PACKAGE / ISA.SHARED)


def cimported(source):
    """Return the ``.pxd`` files that a Cython source includes, directly or through another."""
    found, todo = set(), [source]
    while todo:
        for module in re.findall(r"^from ([\w.]+) cimport", todo.pop().read_text(), re.M):
            pxd = Path(*module.split(".")).with_suffix(".pxd")
            if pxd.exists() and pxd not in found:
                found.add(pxd)
                todo.append(pxd)
    return sorted(map(str, found))


#: Cython's command for several sources: to begin with, each process takes half a second. Looking
#: for cycles among a source's objects, again and again, would be a third of the time.
TRANSLATE = """
import gc, json, sys
from Cython.Compiler.Main import main
gc.disable()
for sys.argv[1:] in json.loads(sys.argv[1]):
    main(command_line=1)
"""


def extension(module, suffix="", flags=(), optional=False):
    """Describe one extension module: ``_kernels/softmax`` is built as ``softmax<suffix>``."""
    source = (PACKAGE / module).with_suffix(".pyx")
    if not source.exists():  # Python, which runs unbuilt too
        source = source.with_suffix(".py")
    return Extension(
        ".".join((PACKAGE / f"{module}{suffix}").parts),
        [str(source)],
        # A change of flags or of an included .pxd must rebuild.
        depends=["setup.py", str(PACKAGE / "_dispatch" / "isa.py"), *cimported(source)],
        include_dirs=[numpy.get_include(), str(PACKAGE / "include")],
        define_macros=MACROS,
        extra_compile_args=[*FLAGS, *flags],
        optional=optional,
    )


# On macOS and in cross builds the target is what the compiler is told, not the running machine.
ISAS = ISA.isas_for(os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).split("-")[-1])


def clang_flags(module):
    """Return what only clang is told for a module of the package."""
    return [*CLANG_FLAGS, *CLANG_KERNEL_FLAGS.get(module.partition(".")[2], [])]


def gcc_flags(module):
    """Return what only gcc is told for a module of the package."""
    kernel, _, isa = module.removeprefix("_kernels.").rpartition("_")
    if kernel not in ISA.KERNELS:
        return [*GCC_FLAGS, *GCC_FRONT_FLAGS]
    if isa == ISAS[0].name and len(ISAS) > 1:
        return [*GCC_KERNEL_FLAGS, *LEAST]
    return [*GCC_KERNEL_FLAGS, *(SEARCH if kernel in SEARCHING else GCC_FLAGS)]


def extensions():
    """Return the extension table for this machine."""
    kernels = [
        extension(f"_kernels/{kernel}", f"_{i.name}", i.flags, optional=i.name != "baseline")
        for kernel in ISA.KERNELS
        for i in ISAS
    ]
    # The longest ones first, so that in the end no core waits for another.
    keywords = str(PACKAGE / "_keywords.h")
    shared = Extension(
        f"fastsoftmax.{ISA.SHARED}",
        [],
        depends=["setup.py", keywords],
        extra_compile_args=[*FLAGS, *SMALL_FLAGS, "-include", keywords],
    )
    front = [
        extension(
            f"_front/{m}", flags=COLD_FLAGS if m in COLD else SMALL_FLAGS if m in SMALL else ()
        )
        for m in ISA.FRONT
    ]
    others = [extension("capi")]
    others += [extension(m, flags=SMALL_FLAGS) for m in ("_dispatch/cpu", "_workers")]
    return [*kernels, *front, shared, *others]


class build_ext(_build_ext):  # noqa: N801 (setuptools finds the command by this name)
    """Run Cython once on each source, and give the C to the source's extensions in their names."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def c_file(self, module):
        """Return where the C of a module, or of a source, is."""
        return Path(self.build_temp, *module.split(".")).with_suffix(".c")

    def command_line(self, source):
        """Return the arguments with which Cython translates a source, None if its C is newer."""
        module = ".".join(Path(source).with_suffix("").parts)
        c_file = self.c_file(module)
        c_file.parent.mkdir(parents=True, exist_ok=True)
        if not newer_group(["setup.py", *self.includes.get(source, [])], str(c_file)):
            return None
        shared = f"{PACKAGE}.{ISA.SHARED}"
        # None of the classes is pickled but those that say how: code for it is a tenth of theirs.
        directives = ["-X", "freethreading_compatible=True", "-X", "auto_pickle=False"]
        options = ["-3", *directives, "--module-name", module]
        if module == shared:
            return [*options, "--generate-shared", str(c_file)]
        return [*options, "--shared", shared, source, "-o", str(c_file)]

    def translate(self, sources):
        """Run Cython on sources, in a process that others run beside."""
        commands = [c for c in map(self.command_line, sources) if c]
        if commands:
            subprocess.run([sys.executable, "-c", TRANSLATE, json.dumps(commands)], check=True)

    def is_clang(self):
        """Return whether the compiler is clang, whatever it is called."""
        command = [*self.compiler.compiler_so, "-dM", "-E", "-x", "c", os.devnull]
        try:
            found = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise PlatformError(
                f"the kernels need a C compiler, and there is no {command[0]!r}: install gcc or "
                "clang, or set FASTSOFTMAX_PURE=1 to install the slow pure-Python reference alone"
            ) from None
        if found.returncode:
            raise PlatformError(f"{' '.join(command)!r} failed: {found.stderr}")
        return "__clang__" in found.stdout

    def use_clang_cl(self):
        """Compile by clang with the arguments of Microsoft's compiler, which has no vectors."""
        self.compiler.initialize()
        self.compiler.cc = "clang-cl"
        for ext in self.extensions:
            ext.extra_compile_args = [f"/clang:{flag}" for flag in ext.extra_compile_args]

    def build_extensions(self):
        clang = self.compiler.compiler_type == "msvc" or self.is_clang()
        for ext in self.extensions:
            module = ext.name.removeprefix(f"{PACKAGE}.")
            flags = clang_flags(module) if clang else gcc_flags(module)
            ext.extra_compile_args[:0] = flags  # of two levels the last one counts
        if self.compiler.compiler_type == "msvc":
            self.use_clang_cl()
        sources = dict.fromkeys(s for ext in self.extensions for s in ext.sources)
        self.includes = {s: [s, *ext.depends] for ext in self.extensions for s in ext.sources}
        sources = [*sources, SHARED]
        shares = [sources[i :: self.parallel] for i in range(self.parallel)]
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(self.translate, shares))
        super().build_extensions()

    def build_extension(self, ext):
        source = ".".join(Path(ext.sources[0]).with_suffix("").parts) if ext.sources else ext.name
        c_file = self.c_file(ext.name)
        if source != ext.name:
            old, new = source.rsplit(".", 1)[1], ext.name.rsplit(".", 1)[1]
            text = self.c_file(source).read_text()
            text = text.replace(f"PyInit_{old}", f"PyInit_{new}")
            c_file.write_text(text.replace(f'"{source}"', f'"{ext.name}"'))
        ext.sources = [str(c_file)]
        super().build_extension(ext)


class sdist(_sdist):  # noqa: N801
    """Write an archive of the same bits wherever, whenever and by whomever it is made."""

    def make_archive(self, base_name, format=None, root_dir=None, base_dir=None, **_):
        """Pack a folder, with its files in order and without their owners and own times."""
        if format != "gztar":
            raise PlatformError(f"an sdist is made in the format 'gztar', not {format!r}")
        self.mkpath(self.dist_dir)
        when = int(os.environ.get("SOURCE_DATE_EPOCH", 315532800))  # or 1980: zip has none before
        with (
            open(f"{base_name}.tar.gz", "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=when) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted((p for p in Path(base_dir).rglob("*") if p.is_file()), key=str):
                member = tarfile.TarInfo(path.as_posix())
                member.size, member.mtime = path.stat().st_size, when
                member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                with path.open("rb") as content:
                    archive.addfile(member, content)
        return f"{base_name}.tar.gz"


setup(
    ext_modules=[] if PURE else extensions(),
    cmdclass={"build_ext": build_ext, "sdist": sdist},
)
