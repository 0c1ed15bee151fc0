"""Imports point one way: which room may use which, for Python and Cython sources alike."""

import ast
import re
from pathlib import Path

import pytest

import fastsoftmax

PACKAGE = Path(fastsoftmax.__file__).parent

#: What the modules of a room may import of the package, beside their own room.
MAY_IMPORT = {
    "__init__": {
        "_arguments",
        "_dispatch",
        "_merging",
        "_sampler",
        "_threads",
        "_workers",
        "steps",
    },
    "__main__": {"_command"},
    "calibration": {"__init__", "_arguments"},
    "quantized": {"__init__", "_arguments", "_dispatch"},
    "sklearn": {"__init__", "calibration"},
    "_command": {"__init__", "_dispatch", "_reference", "steps"},
    "_numba": {"__init__", "_arguments", "capi"},
    "capi": {
        "_dispatch",
        "_front.environment",
        "_front.plain_rows",
        "_front.tables",
        "_kernels.abi",
        "_kernels.philox",
    },
    "_merging": {"_arguments", "_dispatch"},
    "dask": {"_arguments", "_dispatch"},
    "_sampler": {"_arguments", "_dispatch", "_threads", "steps"},
    "scipy": {"_arguments", "_dispatch"},
    "steps": {"_arguments", "_dispatch"},
    "_dispatch": {"_arguments", "_docs", "_front", "_reference"},
    "_front": {
        "_arguments",
        "_kernels.abi",
        "_kernels.chain_abi",
        "_kernels.history",
        "_kernels.history_queries",
        "_kernels.philox",
        "_kernels.reserve",
        "_kernels.statistics_abi",
        "_kernels.verify_abi",
        "_threads",
        "_workers",
    },
    "_reference": {"_arguments", "_docs", "_threads"},
    "_arguments": set(),
    "_docs": {"_arguments"},
    "_threads": {"_arguments", "_workers"},
    "_workers": set(),
    "_kernels": {"_front.environment"},
    "_pyinstaller": set(),
}
#: The kernels' files: each may cimport those before it.
KERNELS = [
    "reserve", "abi", "statistics_abi", "verify_abi",
    "signals", "types", "flush_to_zero", "history", "history_queries", "chain_abi", "exp",
    "score_map", "log1p", "philox", "gumbel", "exp_scale", "sums", "maxima", "exp_blocks", "row",
    "normalize", "batch_scale", "row_batch", "sums_excluding_max", "transpose", "short_rows",
    "softmax_row", "softmax_batch", "row_parts", "column_io", "columns", "column_lanes",
    "column_exp", "column_sums", "column_panels", "softmax", "labels", "targets", "loss_batch",
    "loss_row", "packed_parts", "limit_loss", "long_loss", "short_losses", "column_losses",
    "cross_entropy", "short_backward", "streams", "backward", "radix", "batch_select",
    "bit_masks", "packed_row", "block_maxima", "bisection", "argmax", "row_maximum", "workspace",
    "block_select", "weights", "weights_f32", "block_sums", "row_sums", "weighted_sums",
    "best_list", "row_stats", "stats_batch", "short_stats", "short_pairs", "exp_digits",
    "statistics", "inverse_cdf", "marks", "histogram", "short_list", "partition", "nucleus",
    "coarse", "coarse_cap", "mass_prefix", "peaked_row", "truncation", "short_draws",
    "filter_logits", "token_logprobs", "short_logprobs", "race_blocks", "race", "race_row",
    "support", "select", "chain_names", "chain_list", "chain_steps", "chain_resolve",
    "chain_state", "chain_row", "chain_whole", "chain_race", "chain_mass", "chain_run",
    "chain_report", "chain", "found_row", "kept", "residual", "verify", "beams", "sample", "half",
    "conversions", "masks", "packing", "byte_weights", "quantized",
]  # fmt: skip
#: A kernel that nothing of `_front` calls: it enters the environment itself.
WITHOUT_A_FRONT = {"quantized": {"_front.environment"}}
SOURCES = [f for f in sorted(PACKAGE.rglob("*.p[xy]*")) if f.suffix in (".py", ".pyx", ".pxd")]


def imported_by_python(text):
    """Yield (level, module, name or None) of each import in Python source, at any depth."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.level, node.module or "", alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, None
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield 0, node.args[0].value, None


def imported_by_cython(text):
    """Yield (level, module, name or None) of each import and cimport in Cython source."""
    text = re.sub(r"\"\"\".*?\"\"\"", "", text, flags=re.S)
    found = re.findall(r"^ *from +(\.*)([\w.]*) +c?import +(\([^)]*\)|[^\n]*)", text, re.M)
    for dots, module, names in found:
        for name in re.findall(r"(\w+)(?: +as +\w+)?", names):
            yield len(dots), module, name
    for module in re.findall(r"^ *c?import +([\w.]+)", text, re.M):
        yield 0, module, None


def modules(file, text):
    """Return the dotted names, below the package, of what a source imports of the package."""
    here = ("fastsoftmax", *file.relative_to(PACKAGE).parts[:-1])
    read = imported_by_python if file.suffix == ".py" else imported_by_cython
    found = set()
    for level, module, name in read(text):
        base = ".".join(here[: len(here) - level + 1]) if level else ""
        full = ".".join(part for part in (base, module) if part)
        if full.split(".")[0] != "fastsoftmax":
            continue
        inside = full.removeprefix("fastsoftmax").strip(".")
        folder = PACKAGE.joinpath(*inside.split(".")) if inside else PACKAGE
        if (
            name
            and folder.is_dir()
            and (any(folder.glob(f"{name}.p*")) or (folder / name).is_dir())
        ):
            inside = f"{inside}.{name}".strip(".")
        found.add(inside or "__init__")
    return found


def room(module):
    return module.split(".")[0]


def test_a_room_imports_what_it_may():
    for file in SOURCES:
        own = room(file.relative_to(PACKAGE).with_suffix("").parts[0])
        for module in modules(file, file.read_text()):
            allowed = {own, *MAY_IMPORT[own]}
            assert room(module) in allowed or module in allowed, f"{file} imports {module}"


@pytest.mark.parametrize("file", sorted((PACKAGE / "_kernels").glob("*.p[xy][xd]")), ids=str)
def test_a_kernel_file_cimports_those_before_it(file):
    before = {f"_kernels.{name}" for name in KERNELS[: KERNELS.index(file.stem)]}
    assert modules(file, file.read_text()) <= before | WITHOUT_A_FRONT.get(file.stem, set())


def test_instruction_sets_are_imported_by_their_names_nowhere():
    for file in SOURCES:
        assert not re.search(r"\bc?import\b.*_(avx2|avx512|baseline)\b", file.read_text()), file


def test_the_reading_of_imports_sees_them():
    python = (
        "import fastsoftmax\nfrom . import _dispatch\nfrom ._dispatch.isa import ISAS\n"
        "def f():\n    import importlib\n    importlib.import_module('fastsoftmax._threads')\n"
    )
    assert modules(PACKAGE / "x.py", python) == {
        "__init__", "_dispatch", "_dispatch.isa", "_threads"
    }  # fmt: skip
    cython = (
        '"""import fastsoftmax._front"""\nfrom fastsoftmax._kernels.exp cimport (\n    fma,\n)\n'
        "from .. import _threads\nfrom .abi cimport Op\n"
    )
    assert modules(PACKAGE / "_kernels" / "x.pyx", cython) == {
        "_kernels.exp", "_threads", "_kernels.abi"
    }  # fmt: skip
