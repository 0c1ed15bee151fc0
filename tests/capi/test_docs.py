"""The code of ``docs/c-api.md`` is that of the files that the tests build and run."""

import re
from pathlib import Path

from tests.capi.header import Function, fields

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "c-api.md").read_text()


def test_code_is_from_the_examples():
    files = [f.read_text() for f in (ROOT / "examples" / "capi").iterdir() if f.is_file()]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)
    assert {language for language, _ in blocks} == {"cython", "c", "cpp", "python", "rust"}
    for _, block in blocks:
        assert any(block.strip() in text for text in files), block


def test_every_function_is_told():
    told = set(re.findall(r"`(\w+?)(?:_float32)?`", PAGE))
    functions = [n for n, f in fields().items() if isinstance(f, Function)]
    assert {re.sub("_float(32|64)", "", n) for n in functions} <= told
