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
