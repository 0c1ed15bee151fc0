"""What ``examples/capi`` shows, built as a package of its own beside fastsoftmax, and run."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import fastsoftmax
from tests.capi.header import compiled_alone, from_capsule

pytestmark = compiled_alone

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "capi"
PACKAGES = Path(fastsoftmax.__file__).parents[1]

#: Calls each module with arrays from a file, and keeps what it gives.
RUN = """
import sys
import numpy as np, in_c, in_cpp, in_cython
assert in_cython.__file__.startswith(sys.argv[1]) and sys.argv[2] in sys.path
given = dict(np.load("given.npz"))
x, u, y, t = (given[name] for name in "xuyt")
best, ids, grad = np.empty(len(x), "f"), np.empty(len(x), "q"), np.empty_like(y)
in_cython.confidence(x, best, 0.7)
in_c.draw(x, u, ids, 0.7, 0.9)
loss = in_cpp.step(y, t, grad, 3)
errors = []
for call in (
    lambda: in_cython.confidence(x, best, -1),
    lambda: in_c.draw(x, u, ids, 0.7, 1.5),
    lambda: in_c.draw(x, u, ids[1:].copy(), 0.7, 0.9),
    lambda: in_cpp.step(y, t + 100, grad, 3),
):
    try:
        call()
    except ValueError as error:
        errors.append(str(error))
np.savez("found.npz", best=best, ids=ids, loss=loss, grad=grad, errors=errors)
"""


def run(folder, packages, *command):
    """Run a command of Python's in a folder, with the packages of another one."""
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "CFLAGS": "-O1 -Wall -Wextra -Wno-unused-function"}
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


def check(folder, packages):
    """Build the examples, and compare what they give with calls from Python."""
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    said = run(folder, packages, "setup.py", "build_ext", "--inplace")
    assert not [line for line in said.splitlines() if line.startswith("in_c") and "warning" in line]
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 3, (50, 300)).astype("f"), rng.normal(0, 3, (31, 20))
    t, u = rng.integers(0, 20, 31), np.random.default_rng(1).random(50)
    np.savez(folder / "given.npz", x=x, u=u, y=y, t=t)
    run(folder, packages, "-c", RUN, str(folder), str(packages))
    found = dict(np.load(folder / "found.npz"))
    assert np.array_equal(found["best"], fastsoftmax.softmax(x, temperature=0.7).max(-1))
    assert np.array_equal(found["ids"], fastsoftmax.sample(x, temperature=0.7, top_p=0.9, rng=1))
    expected = fastsoftmax.cross_entropy_with_grad(y, t, reduction="sum")
    assert np.array_equal(found["grad"], expected.grad)
    assert np.isclose(found["loss"], expected.loss, rtol=1e-15)
    assert len(found["errors"]) == 4


@pytest.mark.slow
def test_cython_c_and_cpp(tmp_path):
    check(tmp_path / "examples", PACKAGES)


@pytest.mark.weekly
def test_against_what_is_installed(tmp_path):
    packages = tmp_path / "packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages]
    subprocess.run([*command, ROOT], check=True)
    shutil.rmtree(tmp_path / "build", ignore_errors=True)
    check(tmp_path / "examples", packages)


@pytest.mark.slow
def test_rust(tmp_path):
    if shutil.which("rustc") is None:
        pytest.skip("no Rust compiler")
    source, library = EXAMPLES / "in_rust.rs", tmp_path / "in_rust.so"
    command = ["rustc", "-O", "-D", "warnings", "-A", "dead_code", "--crate-type", "cdylib"]
    subprocess.run([*command, "-o", library, source], check=True)
    entropy = ctypes.CDLL(str(library)).entropy
    entropy.restype = ctypes.c_double
    entropy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double)
    api = from_capsule(fastsoftmax.capi._C_API, b"fastsoftmax.capi._C_API")
    x = np.array([1, 2, -np.inf, 3.5])
    p = fastsoftmax.softmax(x, temperature=0.7)
    expected = -np.sum(p[p > 0] * np.log(p[p > 0]))
    assert np.isclose(entropy(api, x.ctypes.data, 4, 0.7), expected, rtol=1e-14)
    assert np.isnan(entropy(api, x.ctypes.data, 4, -1))


def test_windows_of_scipy(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from windows import soft_maximum

    image = np.random.default_rng(0).normal(0, 3, (20, 30))
    soft = soft_maximum(image, 3, 0.01)
    assert np.allclose(soft, ndimage.maximum_filter(image, 3), atol=0.01 * np.log(9))
    window = image[4:7, 5:8].ravel()
    assert soft_maximum(image, 3, 2)[5, 6] == 2 * (fastsoftmax.logsumexp(window / 2) - np.log(9))
