"""The functions inside numba: the bits of the Python functions, in threads and out of a cache.

They need numba, which is large, and compile for half a minute; where the package is installed, or
has metadata beside it, numba finds the functions by itself.
"""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from tests.capi.header import compiled_alone

pytestmark = [pytest.mark.weekly, compiled_alone]
EXAMPLES = Path(__file__).parents[2] / "examples" / "capi"

#: Bodies of functions of logits x (two axes or one), classes t, a Generator and an array out.
CALLS = [
    "softmax(x)",
    "softmax(x, -1, temperature=0.7)",
    "softmax(x, axis=x.ndim - 1, temperature=3)",
    "softmax(x, out=out)",
    "log_softmax(x, temperature=0.3, out=out)",
    "logsumexp(x)",
    "logsumexp(x, axis=-1)",
    "top_k(x, 3)",
    "top_k(x, k=0)",
    "top_k(x, 5, mode='smallest', sorted=False)",
    "sample(x, rng=rng)",
    "sample(x, temperature=0.7, top_k=20, top_p=0.9, min_p=0.007, rng=rng)",
    "sample(x, seed=3, position=-4)",
    "sample(x * np.nan, seed=3, position=4, on_invalid='flag')",
    "cross_entropy(x, t)",
    "cross_entropy(x, t, reduction='none', temperature=2)",
    "cross_entropy_with_grad(x, t, ignore_index=5)",
    "cross_entropy_with_grad(x, t, label_smoothing=0.1, reduction='sum')",
]


def equal(a, b):
    """Return whether results are the same; numba gives Python's numbers for scalars."""
    if isinstance(b, tuple):
        return type(a) is type(b) and all(map(equal, a, b))
    return np.array_equal(a, b, equal_nan=True) and (np.ndim(b) == 0 or a.dtype == b.dtype)


def compiled(body, **options):
    """Return a function by numba, and the same one by Python."""
    import numba

    scope = {"fs": fastsoftmax, "np": np}
    exec(f"def f(x, t, rng, out):\n    return fs.{body}", scope)
    return numba.njit(**options)(scope["f"]), scope["f"]


@pytest.mark.parametrize("body", CALLS)
def test_the_same_bits(body):
    fast, slow = compiled(body, nogil=True)
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).normal(0, 3, (7, 40)).astype(dtype)
        t = np.random.default_rng(1).integers(0, 40, 7)
        for x, t in ((x, t), (x[:, ::2], t % 20), (x[::-1].T, t[[0] * 40] % 7), (x[2], t[2])):  # noqa: B020
            found = fast(x, t, np.random.default_rng(5), np.empty(x.shape, dtype))
            assert equal(found, slow(x, t, np.random.default_rng(5), np.empty(x.shape, dtype)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers(dtype):
    x = np.random.default_rng(0).integers(0, 9, (3, 4)).astype(dtype)
    for body in ("softmax(x)", "log_softmax(x)", "logsumexp(x)"):
        fast, slow = compiled(body)
        assert equal(fast(x, None, None, None), slow(x, None, None, None))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("softmax(x, where=x > 0)", "where"),
        ("softmax(x, temperature=x)", "temperature"),
        ("softmax(x + 1j)", "x is of complex128"),
        ("softmax(x, out=x.T)", "out is"),
        ("top_k(x, 3, mode='most')", "mode is most"),
        ("sample(x)", "rng, a Generator, or seed and position"),
        ("sample(x, rng=3)", "rng, a Generator, or seed and position"),
        ("sample(x, rng=rng, seed=3, position=1)", "rng, a Generator, or seed and position"),
        ("sample(x, seed=3)", "rng, a Generator, or seed and position"),
        ("cross_entropy(x, x)", "targets are"),
        ("cross_entropy(x, t, reduction='all')", "reduction is all"),
    ],
)
def test_what_numba_is_told_at_once(body, says):
    from numba import TypingError

    fast, _ = compiled(body)
    with pytest.raises(TypingError, match=says):
        fast(np.zeros((2, 3)), np.zeros(2, int), np.random.default_rng(), None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("softmax(x, axis=0)", "last axis"),
        ("softmax(x, temperature=-1)", "temperature: allowed is 0 to inf"),
        ("softmax(x, out=out)", "out has another shape"),
        ("top_k(x, 4)", "k: allowed is 0 to n"),
        ("top_k(x, -1)", "k: allowed is 0 to n"),
        ("sample(x, top_p=1.5, seed=1, position=1)", "top_p, min_p: 0 to 1"),
        ("sample(x * np.nan, seed=1, position=1)", "a row of logits has NaN"),
        ("cross_entropy(x, t + 3)", "targets: allowed is 0 to n - 1"),
        ("cross_entropy(x, t[:1])", "targets are not of the logits' shape"),
    ],
)
def test_errors(body, says):
    fast, _ = compiled(body)
    with pytest.raises(ValueError, match=says):
        fast(np.zeros((2, 3)), np.zeros(2, int), None, np.zeros((3, 3)))


def test_the_example_in_threads_and_from_its_cache(tmp_path):
    source = tmp_path / "compiled.py"
    source.write_text((EXAMPLES / "compiled.py").read_text())
    code = (
        "import numpy as np, compiled, fastsoftmax\n"
        "logits = np.random.default_rng(0).normal(0, 1, (30, 30))\n"
        "states = compiled.chains(logits, np.arange(30) % 30, 50, 7)\n"
        "for chain in (0, 29):\n"
        "    state = chain\n"
        "    for step in range(50):\n"
        "        assert states[chain, step] == state\n"
        "        state = fastsoftmax.sample(logits[state], seed=7, position=chain * 50 + step)\n"
        "shares = compiled.stationary(logits, 100)\n"
        "assert np.allclose(shares @ fastsoftmax.softmax(logits), shares)\n"
        "print(sum(compiled.chains.stats.cache_hits.values()))"
    )
    command = [sys.executable, "-c", code]
    for hits in ("0", "1"):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [hits]
        assert "Cannot cache" not in done.stderr


def test_without_the_gil():
    fast, slow = compiled("softmax(x, temperature=0.7)", nogil=True)
    x = np.random.default_rng(0).normal(0, 3, (200, 1000))
    expected, found = slow(x, None, None, None), []
    fast(x, None, None, None)

    def work():
        found.extend(np.array_equal(fast(x, None, None, None), expected) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 200
