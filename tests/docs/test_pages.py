"""Every block of code of README.md, docs/ and the READMEs of benchmarks and examples runs.

A page's Python blocks run in order with the names of those before, sessions as doctests. What needs
a package that the tests do not have (`<!-- needs: torch -->` before it) runs weekly; the comment
`<!-- run by: tests/... -->` names the test of what can't run here. What is quoted from a file of
examples/, in any language, is run with that.
"""

import contextlib
import doctest
import importlib.util
import io
import re
import shlex
import tomllib

import numpy as np
import pytest

from fastsoftmax._command import cli
from tests.docs.pages import PAGES, ROOT, blocks, quoted, rows

#: Languages whose blocks are not run here: output to look at, and data.
SHOWN = {"text", "json"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def runs(page, *, everything):
    """Run a page's Python, with what needs more packages or without; return what it has named."""
    names = {"__name__": "__main__"}
    doctests = doctest.DocTestParser()
    for block in blocks(PAGES[page]):
        if block.kind != "python" or block.run_by or (block.needs and not everything):
            continue
        if quoted(block):
            continue
        where = f"{page}:{block.line}"
        if block.text.startswith(">>>"):
            session = doctests.get_doctest(block.text, names, where, page, block.line)
            report = []
            done = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
                session, out=report.append, clear_globs=False
            )
            assert done.failed == 0, "".join(report)
            names |= session.globs
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * block.line + block.text, page, "exec"), names)
    return names


def same(ours, theirs):
    """Whether two results are equal but for rounding, and of one shape; tuples one by one."""
    if isinstance(theirs, (tuple, list)) and not isinstance(ours, np.ndarray):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    theirs = np.asarray(theirs)
    return np.shape(ours) == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def compare(page, names, *, everything):
    """Hold the tables that have a column "here": its code gives what that of the first one does."""
    for row in compared(page):
        if row.needs and not everything:
            continue
        theirs, ours = (re.fullmatch(r"`(.+)`", cell)[1] for cell in list(row.cells.values())[:2])
        with np.errstate(all="ignore"):
            assert same(eval(ours, names), eval(theirs, names)), f"{page}:{row.line}: {ours}"


def compared(page):
    return [
        row
        for first in ("SciPy", "torch", "transformers", "JAX", "NumPy")
        for row in rows(PAGES[page], first)
        if list(row.cells)[1] == "here"
    ]


@pytest.mark.parametrize("page", PAGES)
def test_python(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    compare(page, runs(page, everything=False), everything=False)


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.needs for b in blocks(PAGES[p]))])
def test_python_with_other_packages(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    compare(page, runs(page, everything=True), everything=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run(page):
    for block in blocks(PAGES[page]):
        elsewhere = block.run_by and all((ROOT / test).is_file() for test in block.run_by)
        here = block.kind in {"python", "sh", *SHOWN} or block.kind.startswith("{")
        assert quoted(block) or elsewhere or (here and not block.run_by), f"{page}:{block.line}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Links and pictures, and paths from the root between backticks."""
    text = PAGES[page].read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", re.sub(r"`[^`]*`", "", text)):
        assert link.startswith("https://") or (PAGES[page].parent / link).is_file(), link
    rooms = "benchmarks|docs|examples|fastsoftmax|tests"
    for path in re.findall(rf"`((?:{rooms})/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path


def commands():
    for page, path in PAGES.items():
        for block in blocks(path):
            if block.kind == "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    for command in line.split("&&"):
                        if words := shlex.split(command, comments=True):
                            yield f"{page}:{block.line}", words


def test_commands_name_what_is_there():
    """Extras that are installed, files and modules that are run."""
    for where, (program, *words) in commands():
        if program == "pip":
            named = re.findall(r"\[(.*?)\]", " ".join(words))
            assert set(",".join(named).split(",")) - {""} <= set(EXTRAS), where
        elif program == "python" and words[0] == "-m":
            name = words[1]
            found = (ROOT / name.replace(".", "/")).exists() or importlib.util.find_spec(name)
            assert found or name in {"build", "sphinx"}, where
        elif program == "python":
            assert (ROOT / words[0]).is_file(), where
        else:
            known = program == "fastsoftmax" or (ROOT / program).is_file() or program in {"git"}
            assert known or "=" in program, where


@pytest.mark.slow
def test_the_command_runs():
    for where, (program, *words) in commands():
        if program == "fastsoftmax" and not any("." in word for word in words):
            with contextlib.redirect_stdout(io.StringIO()):
                assert cli.main(words) in (0, None), where
