"""`tests/CONTRACT.md`: each test that it names is there, and runs by default."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = [
    line.split(" | ", 1)
    for line in (TESTS / "CONTRACT.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| guarantee", "| ---"))
]
MARKED = re.compile(r"\bmark\.(slow|weekly|sanitize)\b")


@cache
def collected(path):
    """Return the tests of a file, each with whether it runs by default."""
    tree = ast.parse(path.read_text())
    assigned = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    marked = any(text.startswith("pytestmark") and MARKED.search(text) for text in assigned)
    return {
        node.name: not (marked or any(map(MARKED.search, map(ast.unparse, node.decorator_list))))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def named(text):
    """Yield file and name of each test that a cell of the table names."""
    for part in text.strip(" |()").split("; "):
        path, _, names = part.partition(": ")
        for name in names.split(", "):
            yield path, name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("| ")[:40])
def test_each_guarantee_has_its_default_tests(row):
    by_default, _, also = row[1].strip(" |").partition("(also: ")
    asked = list(named(by_default)) if by_default.strip() else []
    assert asked or also
    for path, name in asked:
        found = collected(TESTS / f"{path}.py")
        assert found.get(f"test_{name}"), f"{path}: {name} is not there, or is marked"


def test_marked_and_missing_tests_are_seen(tmp_path):
    path = tmp_path / "test_it.py"
    path.write_text(
        "import pytest\n\n@pytest.mark.slow\ndef test_a():\n    pass\n\ndef test_b():\n    pass\n"
    )
    assert collected(path) == {"test_a": False, "test_b": True}
    path = tmp_path / "test_that.py"
    path.write_text("import pytest\npytestmark = pytest.mark.weekly\ndef test_b():\n    pass\n")
    assert collected(path) == {"test_b": False}
