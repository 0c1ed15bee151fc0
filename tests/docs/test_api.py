"""The API pages have every public name once, in its module."""

import ast
import re
from pathlib import Path

import fastsoftmax
from tests.docs.pages import ROOT

PACKAGE = Path(fastsoftmax.__file__).parent
PAGES = sorted((ROOT / "docs" / "api").glob("*.rst"))


def documented():
    """Yield module and name of what autosummary lists and autoclass shows."""
    for page in PAGES:
        module, listing = None, False
        for line in page.read_text("utf-8").splitlines():
            if found := re.match(r"\.\. (?:currentmodule|automodule):: (.*)", line):
                module = found[1]
            elif found := re.match(r"\.\. autoclass:: (\w+)", line):
                yield module, found[1]
            listing = line.startswith(".. autosummary") or (listing and line[:1] in ("", " "))
            if listing and re.fullmatch(r"   \w+", line):
                yield module, line.strip()


def public():
    """Yield module and name of what is public: by the sources, as some need other packages."""
    for path in (*PACKAGE.glob("[!_]*.py"), *PACKAGE.glob("[!_]*/__init__.py")):
        module = path.parent.name if path.stem == "__init__" else path.stem
        for name in names(path):
            yield f"fastsoftmax.{module}", name
    for name in fastsoftmax.__all__:
        yield "fastsoftmax", name


def names(path):
    """Return the `__all__` of a source; nothing if it has none."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_every_public_name_is_there_once():
    assert sorted(documented()) == sorted(public())
