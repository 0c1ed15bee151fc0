"""examples/knobs.py writes the picture that the README shows.

Needs matplotlib; with CI_EXAMPLES=1 in the environment its absence is a failure.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsoftmax

EXAMPLE = Path(__file__).parents[2] / "examples" / "knobs.py"


@pytest.fixture(autouse=True)
def _installed():
    if importlib.util.find_spec("matplotlib") is None:
        absent = pytest.fail if os.environ.get("CI_EXAMPLES") == "1" else pytest.skip
        absent("not installed: matplotlib")


def run(*arguments):
    """Run the example with the very fastsoftmax that is tested here."""
    path = os.pathsep.join([str(Path(fastsoftmax.__file__).parents[1]), *sys.path])
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [(), ("--row", "peaked", "--temperatures", 0.5, 1.5, 0, "--top-k", 30, "--top-p", 0)],
    ids=["as in the README", "other options"],
)
def test_writes_a_picture(tmp_path, options):
    out = tmp_path / "knobs.png"
    done = run("--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    assert 20_000 < out.stat().st_size < 100_000


def test_the_readme_shows_it():
    picture = EXAMPLE.with_suffix(".png")
    assert f"examples/{picture.name}" in (EXAMPLE.parents[1] / "README.md").read_text("utf-8")
    assert picture.stat().st_size < 100_000


def test_bad_option_is_a_usage_error(tmp_path):
    done = run("--out", tmp_path / "x.png", "--top-p", 2)
    assert done.returncode == 2
    assert "TopP.p is 2.0; allowed are 0 to 1" in done.stderr
    assert "Traceback" not in done.stderr
