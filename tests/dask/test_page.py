"""docs/dask.md: its code runs."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "dask.md").read_text("utf-8")
#: What a block needs beside the packages of the tests, and its code.
BLOCKS = re.findall(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", PAGE, re.S)


def run(needed):
    names = {}
    for needs, code in BLOCKS:
        if needs in needed:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, names)
    return names


@pytest.mark.slow
def test_the_code_of_the_page():
    names = run({""})
    assert names["best"].indices.shape == (200, 5)
    assert 0 < names["loss"] < 20


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")
def test_xarray():
    p = run({"", "xarray"})["p"]
    assert p.dims == ("row", "class")
    assert float(p.sum("class").min()) == pytest.approx(1)
