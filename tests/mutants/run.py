"""Apply each mutant of ``mutants.toml`` to a copy of the tree, and see that the tests kill it.

``python -m tests.mutants.run [NAME ...]``, in a tree that is built. A mutant is killed by its
`tests`, which are run first, or by another test of the default set. What it touches is compiled
for one instruction set, the best here, which the default tests run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fastsoftmax"
COPIED = ("fastsoftmax", "tests", "benchmarks", "build", "docs", "examples")
COPIED += ("setup.py", "pyproject.toml", "README.md")
#: Seconds for each run of tests: what hangs is killed, too.
LIMIT = 600

#: Runs setup.py for those extensions alone that are named.
BUILD = """
import runpy, sys, setuptools
wanted, setup = set(sys.argv.pop(1).split(",")), setuptools.setup
def some(ext_modules, **rest):
    chosen = [e for e in ext_modules if e.name in wanted]
    for e in chosen:
        e.extra_compile_args.append("-O1")  # a third of the compiler's time, and the same bits
    setup(ext_modules=chosen, **rest)
setuptools.setup = some
sys.argv[0] = "setup.py"
runpy.run_path("setup.py", run_name="__main__")
"""


class Mutant(NamedTuple):
    """A fault: a text of a source that another one stands for, and what must notice it."""

    name: str
    file: str  # within the package
    old: str
    new: str
    tests: str  # what is likely to kill it, run first
    modules: tuple[str, ...] = ()  # sources that use a .pxd: all that include it, if none is given
    marked: bool = False  # whether those tests are marked slow or weekly


def mutants():
    """Return all mutants of the list."""
    with open(Path(__file__).with_name("mutants.toml"), "rb") as file:
        return [
            Mutant(name, **{k: tuple(v) if k == "modules" else v for k, v in fields.items()})
            for name, fields in tomllib.load(file).items()
        ]


def using(pxd):
    """Return the sources, as ``_kernels/softmax``, that include a .pxd, directly or through others.

    Of a file that belongs to a source of the same name, the layout is meant: all that use it.
    """
    text = {p: p.read_text() for p in PACKAGE.glob("_*/*.p[yx][xd]")}
    found = {PACKAGE / pxd}
    while True:
        names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in found]
        more = {p for p, t in text.items() if any(f"from {n} cimport" in t for n in names)}
        if more <= found:
            break
        found |= more
    return [str(p.relative_to(PACKAGE).with_suffix("")) for p in found if p.suffix == ".pyx"]


def extensions(mutant, isa):
    """Return the names of the extension modules that a mutant is compiled into."""
    suffix = Path(mutant.file).suffix
    if suffix not in (".pyx", ".pxd"):
        return []
    sources = mutant.modules or (
        using(mutant.file) if suffix == ".pxd" else [mutant.file.removesuffix(suffix)]
    )
    return [
        "fastsoftmax." + s.replace("/", ".") + (f"_{isa}" if s.startswith("_kernels/") else "")
        for s in sources
    ]


def copy_of_tree(to):
    """Copy what is built and tested, with times and all, so that little is compiled again."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, symlinks=True)
        else:
            shutil.copy2(source, to / name)


def apply(mutant, tree):
    """Write the mutant into a tree."""
    path = tree / "fastsoftmax" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.file} has its text {text.count(mutant.old)} times"
        )
    path.write_text(text.replace(mutant.old, mutant.new))


def first_failure(tree, tests, marks):
    """Return the test that fails first, or what else ends the run; None if all pass."""
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", "--tb=no"]
    command += ["-o", "addopts=--import-mode=importlib", "-m", marks, "--ignore=tests/mutants"]
    try:
        run = subprocess.run(
            [*command, *tests], cwd=tree, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT} s"
    if run.returncode == 0:
        return None
    lines = (run.stdout + run.stderr).splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if failed else f"exit code {run.returncode}: {lines[-1] if lines else ''}"


def kill(mutant):
    """Return what kills a mutant and within how many seconds of tests; None if it survives."""
    from fastsoftmax import show_config

    isa = show_config(mode="dicts")["implementation"]
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        copy_of_tree(tree)
        apply(mutant, tree)
        wanted = extensions(mutant, isa)
        if wanted:
            build = [sys.executable, "-c", BUILD, ",".join(wanted), "build_ext", "--inplace"]
            flags = {"CFLAGS": "-w " + os.environ.get("CFLAGS", "")}
            run = subprocess.run(
                build, cwd=tree, capture_output=True, text=True, env=os.environ | flags, check=False
            )
            if run.returncode:
                raise ValueError(f"{mutant.name} is no program:\n{run.stdout}{run.stderr}")
        begin = time.perf_counter()
        marks = "" if mutant.marked else "not slow and not weekly and not sanitize"
        by = first_failure(tree, mutant.tests.split(), marks)
        if by is None and not mutant.marked:
            by = first_failure(tree, ["tests"], marks)
        return by and (by, time.perf_counter() - begin)


def main():
    """Kill the mutants that are named, or all; end with 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="mutants; all of them, if none is named")
    names = parser.parse_args().names
    survivors = 0
    for mutant in mutants():
        if names and mutant.name not in names:
            continue
        result = kill(mutant)
        survivors += result is None
        text = f"{result[1]:5.1f} s  {result[0]}" if result else "SURVIVES"
        print(f"{mutant.name:32} {text}", flush=True)
    return survivors > 0


if __name__ == "__main__":
    sys.exit(main())
