"""A long row that is packed by parts gives what its contiguous copy gives, bit for bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from tests.arrays import byte_swapped, misaligned

LONG = 1 << 20  # elements from which on a row is packed by parts
FORMS = {
    "strided": lambda x: np.repeat(x, 2, -1)[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "byte-swapped": byte_swapped,
    "misaligned": misaligned,
    "float16": lambda x: x.astype(np.float16),
    "int16": lambda x: (x * 8).astype(np.int16),
    "float64": lambda x: np.repeat(x.astype(np.float64), 2, -1)[:, ::2],
}
FILTERS = {
    "none": {},
    "T": {"temperature": 0.7},
    "T = 0": {"temperature": 0},
    "T tiny": {"temperature": 1e-35},
    "T inf": {"temperature": np.inf},
    "T inf top_p": {"temperature": np.inf, "top_p": 0.5},
    "top_k": {"top_k": 40},
    "top_k = 1": {"top_k": 1},
    "top_k of small chunks": {"top_k": 40_000},
    "top_k of no chunks": {"top_k": 100_000, "temperature": 2.0},
    "top_p": {"top_p": 0.5},
    "top_p of much": {"top_p": 0.999},
    "top_p of nearly all": {"top_p": 1 - 1e-6, "min_p": 1e-4},
    "min_p": {"min_p": 0.3},
    "min_p of much": {"min_p": 0.001},
    "min_keep": {"top_p": 0.01, "min_p": 0.9, "min_keep": 3000},
    "min_keep of much": {"top_p": 0.01, "min_keep": 60_000},
    "all": {"temperature": 0.8, "top_k": 500, "top_p": 0.9, "min_p": 0.01},
}


def normal(rng, n):
    return rng.standard_normal((1, n), dtype=np.float32) * 3


def tied(rng, n):
    return rng.integers(-3, 4, (1, n)).astype(np.float32)


def with_entries(*values):
    def make(rng, n):
        x = normal(rng, n)
        x[0, rng.integers(0, n, len(values))] = values
        return x

    return make


ROWS = {
    "normal": normal,
    "ties": tied,
    "flat": lambda rng, n: np.full((1, n), -2, np.float32),
    "a few": lambda rng, n: np.where(rng.random((1, n)) < 1e-5, normal(rng, n), -np.inf).astype(
        "f"
    ),
    "peaked": with_entries(40.0),
    "NaN": with_entries(np.nan, -np.inf),
    "+inf": with_entries(np.inf),
    "-inf": lambda rng, n: np.full((1, n), -np.inf, np.float32),
}


def row(name, n, seed=0):
    return ROWS[name](np.random.default_rng(seed), n)


def contiguous(x):
    """Return x in the type that is computed in, one element beside the other."""
    small = (x.dtype.itemsize == 4 and x.dtype.kind == "f") or x.dtype == np.float16
    return np.ascontiguousarray(x, dtype=np.float32 if small else np.float64)


def equal(ours, theirs):
    """Check bits: each result is that for the copy, rounded to the type that it has here."""
    ours, theirs = (r if isinstance(r, tuple) else (r,) for r in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        with np.errstate(over="ignore"):  # to half types
            b = np.asarray(b).astype(np.asarray(a).dtype)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


def check(f, x, filters):
    """Compare what a row gives with what its copy gives, by each function."""
    y = contiguous(x)
    flag = {**filters, "on_invalid": "flag"}
    for call in (
        lambda z: f.sample(z, **flag, rng=1),
        lambda z: f.sample(z, **flag, rng=2, size=3),
        lambda z: f.sample(z, **flag, rng=3, size=3, replace=False),
        lambda z: f.sample_with_logprobs(z, **flag, rng=4),
        lambda z: f.sample_with_logprobs(z, **flag, rng=5, size=2),
        lambda z: f.support(z, **filters),
    ):
        equal(call(x), call(y))
    for ties in ("index", "all") if x.dtype != np.float16 else ():  # their limit is another one
        equal(f.filter_logits(x, **filters, ties=ties), f.filter_logits(y, **filters, ties=ties))
    if set(filters) <= {"temperature"}:
        ids = np.array([[0, 5, x.shape[1] - 1]])
        equal(f.token_logprobs(x, ids, **filters), f.token_logprobs(y, ids, **filters))
        for n in (1, 7, 50_000):
            equal(f.top_logprobs(x, n, **filters), f.top_logprobs(y, n, **filters))


QUICK = ("none", "top_k", "top_p of much", "min_p of much")


@pytest.mark.parametrize("filters", QUICK)
def test_filters(compiled, filters):
    x = FORMS["strided"](row("normal", LONG))
    equal(
        compiled.sample_with_logprobs(x, **FILTERS[filters], rng=0),
        compiled.sample_with_logprobs(contiguous(x), **FILTERS[filters], rng=0),
    )


CASES = [
    pytest.param(i, marks=pytest.mark.slow if i < 2 else pytest.mark.weekly) for i in range(60)
]


@pytest.mark.parametrize("case", CASES)
def test_everything(compiled, case):
    # Of all combinations, so many that each form, filter and kind of row comes about often.
    combinations = [(form, name, f) for form in FORMS for name in ROWS for f in FILTERS]
    rng = np.random.default_rng(case)
    form, name, filters = combinations[rng.integers(len(combinations))]
    if form == "int16" and name in ("a few", "NaN", "+inf", "-inf"):
        name = "normal"
    n = LONG + rng.choice([-1, 0, 1, 77, 2048, 5000])
    check(compiled, FORMS[form](row(name, n, case)), FILTERS[filters])


@pytest.mark.slow
def test_some_rows_with_parameters_of_their_own(compiled):
    x = np.concatenate([row(name, LONG + 3) for name in ("normal", "ties", "flat", "peaked")])
    each = {"top_p": np.array([1, 0.9, 0.5, 1]), "top_k": np.array([0, 0, 70_000, 5])}
    x = FORMS["strided"](x)
    equal(
        compiled.sample_with_logprobs(x, **each, rng=0, workers=2),
        compiled.sample_with_logprobs(contiguous(x), **each, rng=0),
    )
    equal(compiled.support(x, **each), compiled.support(contiguous(x), **each))


@pytest.mark.slow
def test_filter_logits_in_place(compiled):
    x = row("normal", LONG + 9)
    expected = compiled.filter_logits(x, temperature=0.7, top_p=0.9)
    y = FORMS["reversed"](x)
    assert compiled.filter_logits(y, temperature=0.7, top_p=0.9, out=y) is y
    equal(y, expected)
    y = FORMS["strided"](np.zeros_like(x))  # of the result alone
    compiled.filter_logits(x, temperature=0.7, top_p=0.9, out=y)
    equal(y, expected)


ROOM = """
import resource, sys
import numpy as np
from fastsoftmax import _dispatch
f = _dispatch.load(sys.argv[1])
x = np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)
f.sample(x[:1000], top_p=0.9, rng=0)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 10 * len(x), -1))
f.sample(x, top_p=0.9, rng=0)
f.sample(x, min_p=0.9, rng=0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_room_is_for_what_is_kept(compiled):
    root = str(Path(fastsoftmax.__file__).parents[1])
    env = {"PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ROOM, compiled.NAME]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
