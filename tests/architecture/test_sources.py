"""Sources are of a size and form that a stranger can read."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import fastsoftmax

PACKAGE = Path(fastsoftmax.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
LINES = 400
SOURCES = [
    file
    for folder in (PACKAGE, TESTS, ROOT / "benchmarks", ROOT / "examples")
    for file in sorted(folder.rglob("*.p[xy]*"))
    if file.suffix in (".py", ".pyx", ".pxd", ".pyi")
]
FOLDERS = sorted(f.parent for f in PACKAGE.rglob("__init__.py"))
#: Words that the field does not use for anything here: no identifier has one.
DIALECT = {"heat", "tame", "lift", "telling", "drawing", "carry", "carried", "knobs"}


def test_no_file_is_too_long():
    assert [f for f in SOURCES if f.read_text("utf-8").count("\n") > LINES] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_each_folder_says_who_lives_there(folder):
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
    assert doc, "no docstring"
    assert re.match(r"[A-Z`].*\.$", doc.split("\n\n")[0], re.S), "no sentence"


def test_the_first_line_says_what_a_file_is_for():
    for file in SOURCES:
        text = re.sub(r"\A(#[^\n]*\n)+", "", file.read_text("utf-8")).lstrip()
        said = text == "" or re.match(r'r?"""\S|# \S', text) or file.suffix == ".pyi"
        assert said, f"{file} has no docstring"


def test_every_folder_is_installed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    names = {".".join(("fastsoftmax", *f.relative_to(PACKAGE).parts)) for f in FOLDERS}
    assert names == set(packages)


def test_no_word_of_a_private_dialect():
    for file in SOURCES:
        if PACKAGE in file.parents:
            code = re.sub(r'""".*?"""|"[^"\n]*"|#[^\n]*', "", file.read_text("utf-8"), flags=re.S)
            assert not DIALECT & set(re.findall(r"[A-Za-z]+", code)), file


def test_clang_takes_what_functions_return():
    """Cython declares a variable of it; clang ends where that has an attribute of functions."""
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler")
    types = re.compile(r'^    ctypedef (?!void )[a-z][\w ]* \w+ "(\w+)"$', re.M)
    found = []
    for file in PACKAGE.rglob("*.pxd"):
        text = file.read_text("utf-8")
        blocks = re.findall(r'cdef extern from \*:\n    """\n(.*?)"""', text, re.S)
        c = "".join(re.sub(r"^ *#include.*$", "", b, flags=re.M) for b in blocks)
        for word in types.findall(text):
            command = [compiler, "-E", "-P", "-undef", "-D__clang__", "-xc", "-"]
            out = subprocess.run(
                command, input=f"{c}\nstart {word} x;\n", capture_output=True, text=True, check=True
            ).stdout
            found.append(out.rpartition("start ")[2].strip())
    assert len(found) > 2
    assert [x for x in found if "__attribute__" in x] == []
