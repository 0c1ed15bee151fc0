"""The pictures of docs/ are shown, and what they show still holds."""

import importlib.util
import os
import re

import pytest

from tests.docs.pages import PAGES, ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["mass", "left"])
def test_numbers_are_current(script, name):
    assert set(script.PICTURES) == {"mass", "left"}
    data, _ = script.PICTURES[name]
    assert script.numbers(name) == data()


@pytest.mark.parametrize("page", ["road.svg", "modules.svg", "how-it-works.md", "how-to-change.md"])
def test_files_that_are_named_are_there(page):
    """In the drawings and in what is said of the package, each path and each folder."""
    (path,) = [p for p in (DOCS / page, DOCS / "pictures" / page) if p.is_file()]
    named = set(re.findall(r"[\w/.]*\w\.(?:pyx|pxd|py|pyi|rst|h)\b", path.read_text("utf-8")))
    named |= set(re.findall(r"\b_\w+/", path.read_text("utf-8")))
    there = {p.relative_to(ROOT).as_posix() + "/" * p.is_dir() for p in sources()}
    assert named
    for name in named:
        assert any(f"/{p}".endswith(f"/{name}") for p in there), name


def sources():
    rooms = (ROOT, ROOT / "fastsoftmax", ROOT / "tests", ROOT / "benchmarks", DOCS)
    return [p for room in rooms for depth in ("*", "*/*") for p in room.glob(depth)]


def test_every_picture_is_shown():
    shown = set(re.findall(r"\(pictures/(.*?)\)", "".join(p.read_text() for p in PAGES.values())))
    assert shown == {path.name for path in (DOCS / "pictures").iterdir()}


@pytest.mark.slow
def test_they_can_be_drawn(script, monkeypatch, tmp_path, capsys):
    if importlib.util.find_spec("matplotlib") is None:
        absent = pytest.fail if os.environ.get("CI_EXAMPLES") == "1" else pytest.skip
        absent("not installed: matplotlib")
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.main()
    for name, (data, _) in script.PICTURES.items():
        assert script.numbers(name) == data()
        assert (tmp_path / f"{name}.svg").stat().st_size < 100_000
