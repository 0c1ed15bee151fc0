"""The API pages have every public name once, in its module."""

import re

import fastsoftmax
from fastsoftmax import steps
from tests.docs.pages import ROOT

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


def test_every_public_name_is_there_once():
    public = [("fastsoftmax", name) for name in fastsoftmax.__all__]
    public += [("fastsoftmax.steps", name) for name in steps.__all__]
    assert sorted(documented()) == sorted(public)
