"""Valgrind sees no invalid access, and no branch on memory that nobody wrote, in our modules."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _dispatch
from tests.calls import CALLS

HERE = Path(__file__).resolve()
ROOTS = [str(Path(fastsoftmax.__file__).parents[1]), str(HERE.parents[2])]
SHAPES = ((1, 1), (3, 7), (5, 33), (2, 130), (70, 9), (2, 2500))  # of each regime of rows

pytestmark = [
    pytest.mark.weekly,
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed"),
]


def main(impl, planted):
    f = _dispatch.load(impl)
    rng = np.random.default_rng(0)
    if planted == "unwritten":
        f.top_k(np.empty((40, 30)), 3)
    elif planted == "beyond":
        x = np.zeros(1000)
        f.softmax(np.lib.stride_tricks.as_strided(x, (1001,)))
    for shape in () if planted else SHAPES:
        for dtype in ("f4", "f8", "f2", "i2"):
            x = (rng.standard_normal(shape) * 3).astype(dtype)
            for layout in (x, np.asfortranarray(x), np.repeat(x, 2, -1)[:, ::2]):
                for call in CALLS.values():
                    call(f, layout)
            tiles = np.stack([x[:2, :5]] * 9)  # several of them side by side make a panel
            for name in ("softmax", "log_softmax", "logsumexp") if x.shape[1] > 4 else ():
                getattr(f, name)(tiles, axis=1)
    print("done")


def reports(tmp_path, impl, planted=""):
    """Return what valgrind says of our modules."""
    log = tmp_path / "log"
    # malloc for every object, so that valgrind knows where each one ends.
    env = {**os.environ, "PYTHONMALLOC": "malloc", "PYTHONPATH": ":".join(ROOTS)}
    env["FASTSOFTMAX_IMPL"] = impl
    command = ["valgrind", f"--log-file={log}", "--num-callers=6", "-q", "--error-limit=no"]
    command += [sys.executable, str(HERE), impl, planted]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.stdout == "done\n", child.stderr
    blocks = re.split(r"^==\d+== $", log.read_text(), flags=re.M)
    return [b for b in blocks if re.search(r"(at|by) 0x.*fastsoftmax/", b)]


@pytest.mark.parametrize("name", ["baseline", "avx2"])  # valgrind knows no AVX-512
def test_valgrind_says_nothing(tmp_path, name):
    found = reports(tmp_path, name)
    assert not found, "\n".join(found[:3])


@pytest.mark.parametrize(
    ("planted", "word"), [("unwritten", "uninitialised"), ("beyond", "Invalid read")]
)
def test_valgrind_sees_what_is_planted(tmp_path, planted, word):
    assert any(word in report for report in reports(tmp_path, "baseline", planted))


if __name__ == "__main__":
    main(*sys.argv[1:])
