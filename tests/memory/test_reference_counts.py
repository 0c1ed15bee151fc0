"""No call keeps or loses a reference to an argument or a result, and memory in use stays flat."""

import ctypes
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _docs
from tests import calls
from tests.processes import output

FORMS = {
    "as it stands": lambda x: x,
    "packed": lambda x: x.astype(np.float16)[::-1, ::-1],
    "columns": lambda x: x.T.copy().T,
    "another dtype": lambda x: (9 * x).astype(np.int16),
}
# Numbers of these tests are beyond -5 to 256, which all of Python shares, and no word is a name.
N, ROWS = 300, 3

#: Bytes by which a process may grow: what malloc and Python take at a time.
FLAT = 2**18


def numbers():
    """Return rows that are of this test alone."""
    return np.random.default_rng(2).standard_normal((ROWS, N)).astype(np.float32)


def counts(objects, impl=None):
    """Return the reference count of each object, of what owns its memory and of its dtype."""
    # Not of the dtype for the reference: NumPy 2.4.6's `empty(3)` itself keeps one of float64's.
    names = ("base",) if impl is None or impl.NAME == "reference" else ("base", "dtype")
    parts = [getattr(o, name, None) for o in objects for name in names]
    return [sys.getrefcount(o) for o in [*objects, *parts] if o is not None]


def check(given, impl, run):
    """Fail where running changes a count, thrice, so that no count is one by chance."""
    before = counts(given, impl)
    for _ in range(3):
        run()
    assert counts(given, impl) == before


# ---- calls that succeed --------------------------------------------------------------------------


@pytest.fixture
def seconds(monkeypatch):
    """The second inputs of `calls`, by name: the same array again for the same shape and type."""
    kept = {}

    def keeping(name, function):
        def keep(x):
            key = name, x.shape, x.dtype
            if key not in kept:
                kept[key] = function(x).copy()
            return kept[key]

        return keep

    for name in ("classes", "mask", "words", "other"):
        monkeypatch.setattr(calls, name, keeping(name, getattr(calls, name)))
    return kept


@pytest.mark.best_alone
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", calls.CALLS.values(), ids=calls.CALLS)
def test_a_call_keeps_no_reference(impl, call, seconds, form):
    x = FORMS[form](numbers())
    call(impl, x)  # makes the second inputs, and what is made once

    def run():
        results = calls.arrays(call(impl, x))
        # A new object is counted by its list and by the argument; what owns its memory by it too.
        assert [sys.getrefcount(results[i]) for i in range(len(results))] == [2] * len(results)
        owners = [a.base for a in results if a.base is not None]
        assert all(sys.getrefcount(owner) <= 3 + len(results) for owner in owners)

    check([x, *seconds.values()], impl, run)


WITH_OUT = ("softmax", "log_softmax", "filter_logits", "softmax_backward", "log_softmax_backward")


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_comes_back_with_one_reference_more(impl, name):
    x, y = numbers(), np.full((ROWS, N), 0.1, np.float32)
    second = [y] if name.endswith("backward") else []
    for out in (np.empty_like(x), np.empty((ROWS, 2 * N), x.dtype)[:, ::2], x):

        def run(out=out):
            assert getattr(impl, name)(x, *second, out=out) is out

        check([x, y, out], impl, run)


# ---- calls that fail -----------------------------------------------------------------------------


def good(name):
    """Return arguments of the function `name` that it takes, by name, each an object of its own."""
    required = {
        "k": 280,
        "n": 280,
        "ids": np.zeros((ROWS, 2), np.int64),
        "targets": np.zeros(ROWS, np.int64),
        "draft_ids": np.zeros(ROWS - 1, np.int64),
        "scores": np.zeros(ROWS),
        "beams": 280,
    }
    parameters = inspect.signature(getattr(fastsoftmax, name)).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty]
    return {p: required.get(p, numbers()) for p in needed}


def read_only(x):
    """Return x, which nobody may write."""
    x.flags.writeable = False
    return x


#: Values that no function takes, by parameter.
BAD = {
    "x": [np.array([object()] * 4), np.zeros(4, complex), ["a", "b"]],
    "k": [-1000, N + 1, 2.5, np.array([1, 2]), "three"],
    "n": [-1000, N + 1, 2.5, np.array([1, 2]), "three"],
    "ids": [np.full((ROWS, 2), N), np.full((ROWS, 2), -1), np.zeros((ROWS, 2)), np.zeros(7, int)],
    "targets": [np.full(ROWS, N), np.full(ROWS, -7), np.zeros(ROWS + 1, int), np.zeros((9, 9))],
    "axis": [500, -900, 1.5],
    "temperature": [-1.0, np.nan, np.full(ROWS + 1, 0.5), np.array([1, -1, 1.0]), "warm"],
    "where": [np.zeros((ROWS, N)), np.ones(N + 1, bool)],
    "out": [
        np.empty((ROWS, N), np.int32),
        np.empty((ROWS, N + 1), np.float32),
        read_only(np.empty((ROWS, N), np.float32)),
        [0.0] * N,
    ],
    "top_k": [-1000, 2.5, np.full(ROWS + 1, 3), "three"],
    "top_p": [-0.1, 1.5, np.nan, np.full(ROWS + 1, 0.5), "high"],
    "min_p": [-0.1, 1.5, np.nan, np.full(ROWS + 1, 0.5), "high"],
    "min_keep": [-1000, 2.5],
    "mask": [
        np.zeros((ROWS, N)),
        np.ones(N + 1, bool),
        np.ones((ROWS + 1, 10), np.int32),
        "all of them",
    ],
    "accept": [3, "all of them"],
    "max_tries": [0, 2.5],
    "mask_rows": [[0, 1], np.zeros(ROWS), "all of them"],
    "mode": ["largest first"],
    "ties": ["neither"],
    "size": [-1000, 2.5],
    "rng": ["dice", -1000, object()],
    "seed": [2.5, np.zeros(ROWS + 1, int)],
    "on_invalid": ["never"],
    "weight": [np.ones(N + 1), np.array(["a"] * N)],
    "label_smoothing": [-0.5, 1.5, "s"],
    "reduction": ["median"],
    "workers": [-1000, 2.5],
    "draft_ids": [np.full(2, N), np.full(2, -2), np.zeros(2), np.zeros(7, int)],
    "draft_logits": [np.zeros((ROWS, N)), np.zeros((ROWS - 1, N), complex), ["a", "b"]],
    "method": ["neither", 3],
    "scores": [np.zeros(ROWS + 1), np.full(ROWS, np.nan), np.full(ROWS, np.inf), "three"],
    "beams": [-1000, ROWS * N + 1, 2.5, np.array([1, 2]), "three"],
    "length": [-1.0, np.nan, np.full(ROWS + 1, 2), "long"],
    "b": [np.ones(N + 1), np.zeros(4, complex), ["a", "b"]],
    "other": [np.ones(N + 1), np.zeros(4, complex), ["a", "b"]],
    "want": ["all of it", ["max", "all of it"], 3],
    "top": [-1000, N + 1, 2.5],
    "return_lse": ["yes", 1],
    "return_sign": ["yes", 1],
    "length_penalty": [np.nan, 1000, "high", 1],
}
BAD |= dict.fromkeys(("logits", "grad_output", "probs", "log_probs"), BAD["x"])

#: Parameters of which any value means something, or that only work with others.
ANY = {"sorted", "keepdims", "replace", "ignore_index", "position"}


@pytest.mark.slow_reference
@pytest.mark.parametrize("name", _docs.FUNCTIONS)
def test_an_error_keeps_no_reference(impl, name):
    for parameter in inspect.signature(getattr(fastsoftmax, name)).parameters.keys() - ANY:
        for bad in BAD[parameter] + [None] * (parameter in good(name)):
            arguments = good(name) | {parameter: bad}

            def run(arguments=arguments):
                with pytest.raises((ValueError, TypeError, IndexError)):
                    getattr(impl, name)(**arguments)

            check(list(arguments.values()), impl, run)


def test_rows_that_cannot_be_sampled(impl):
    for name in ("sample", "sample_with_logprobs"):
        for value in (np.nan, -np.inf, np.inf):
            x = np.full((ROWS, N), value, np.float32)

            def run(name=name, x=x):
                with pytest.raises(ValueError, match="row"):
                    getattr(impl, name)(x, rng=0)

            check([x], impl, run)


@pytest.mark.parametrize("fault", ["IncRef", "DecRef"])
def test_a_reference_that_is_kept_or_lost_is_seen(fault):
    x = numbers()
    change, back = ("IncRef", "DecRef") if fault == "IncRef" else ("DecRef", "IncRef")
    function = getattr(ctypes.pythonapi, f"Py_{change}")
    held = [x] * 9  # the count must not come to 0
    with pytest.raises(AssertionError):
        check([x], None, lambda: function(ctypes.py_object(x)))
    for _ in range(3):
        getattr(ctypes.pythonapi, f"Py_{back}")(ctypes.py_object(x))
    assert len(held) == 9


# ---- memory in use -------------------------------------------------------------------------------

RESIDENT = """
sys.path.append({root!r})
import contextlib, itertools, os
import numpy as np
from fastsoftmax import _dispatch
from tests.calls import CALLS

impl = _dispatch.load({name!r})
x = np.random.default_rng(0).standard_normal((3, 20)).astype("f4")
kept = []
BAD = [
    lambda f, x: f.softmax(x, out=np.empty(3, "f4")),
    lambda f, x: f.softmax(x, temperature=-np.ones(3)),
    lambda f, x: f.top_k(x, 21),
    lambda f, x: f.token_logprobs(x, [99, 0, 0]),
    lambda f, x: f.cross_entropy(x, [0, 0, 99]),
    lambda f, x: f.sample(x * np.nan, rng=0),
    lambda f, x: f.filter_logits(x, top_p=2),
]

def run(times):
    for call in itertools.islice(itertools.cycle([*CALLS.values(), *BAD]), times):
        with contextlib.suppress(ValueError, IndexError):
            call(impl, x)
        {fault}

def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

run({warm})
before = resident()
run({times})
print(resident() - before)
"""


def growth(name, times, fault="pass"):
    """Return by how many bytes a process grows over so many calls, after a fifth as many."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux's /proc")
    root = str(Path(__file__).parents[2])
    code = RESIDENT.format(root=root, name=name, times=times, warm=times // 5, fault=fault)
    return int(output(code, impl="reference")[0])


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(5_000, marks=pytest.mark.slow),
        pytest.param(200_000, marks=pytest.mark.weekly),
    ],
)
def test_memory_stays_flat(compiled, times):
    assert growth(compiled.NAME, times) <= FLAT


@pytest.mark.slow
def test_a_leak_is_seen():
    # Of 100 bytes a call, where the least object has 16.
    assert growth("baseline", 5_000, "kept.append(bytes(67))") > FLAT
