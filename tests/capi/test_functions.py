"""The C functions, from the capsule and without the GIL: the bits of the Python functions.

They are those of the implementation in use; for the others this file runs in processes of theirs.
"""

import itertools
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from tests.capi.header import USED, Api, Function, compiled_alone, fields, from_capsule
from tests.conftest import COMPILED
from tests.environments import MODES, TRAPS, Environment, control, read
from tests.processes import output, python

OTHERS = [name for name in fastsoftmax.show_config(mode="dicts")["runnable"] if name in COMPILED]
OTHERS = [name for name in OTHERS if name != USED]

SHAPES = [(1, 1), (1, 10), (3, 2), (5, 17), (33, 40), (70, 12), (4, 300), (2, 5000), (0, 3), (3, 0)]
TEMPERATURES = [1.0, 0.7, 0.0, np.inf, 1e-31, 1e-40]


@pytest.fixture(scope="module")
def api():
    """Return the functions of the capsule."""
    return Api.from_address(from_capsule(fastsoftmax.capi._C_API, b"fastsoftmax.capi._C_API"))


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Each type that there are functions for."""
    return request.param


def rows(shape, dtype):
    """Return rows of logits; some entries are equal, some far apart, some -inf."""
    x = np.random.default_rng(1).normal(0, 3, shape).round(1).astype(dtype)
    x[:, 7::50] = -np.inf
    x[:, 8::50] = 60
    return x


def call(function, *arguments):
    """Call a C function with arrays and numbers."""
    return function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


def equal(a, b):
    """Return whether two arrays have the same bits, but for the signs of NaN."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def rounded(losses, dtype):
    """Return losses as the Python function does."""
    with np.errstate(over="ignore"):
        return losses.astype(dtype)


# ---- values --------------------------------------------------------------------------------------


@compiled_alone
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(api, name, dtype):
    function = getattr(api, f"{name}_{dtype}")
    for shape, temperature in itertools.product(SHAPES, TEMPERATURES):
        x = rows(shape, dtype)
        y = np.full_like(x, 5)
        expected = getattr(fastsoftmax, name)(x, temperature=temperature)
        assert call(function, x, y, *shape, temperature) == 0
        assert equal(y, expected)
        assert call(function, x, x, *shape, temperature) == 0  # in place
        assert equal(x, expected)


@compiled_alone
def test_logsumexp(api, dtype):
    for shape in SHAPES:
        x, y = rows(shape, dtype), np.empty(shape[0], dtype)
        assert call(getattr(api, f"logsumexp_{dtype}"), x, y, *shape) == 0
        assert equal(y, fastsoftmax.logsumexp(x))


@compiled_alone
def test_top_k(api, dtype):
    for shape, largest, in_order in itertools.product(SHAPES, (0, 1), (0, 1)):
        x = rows(shape, dtype)
        mode = "largest" if largest else "smallest"
        for k in {0, min(1, shape[1]), shape[1] // 3, shape[1]}:
            values, indices = np.empty((shape[0], k), dtype), np.empty((shape[0], k), np.int64)
            expected = fastsoftmax.top_k(x, k, mode=mode, sorted=bool(in_order))
            function = getattr(api, f"top_k_{dtype}")
            assert call(function, x, values, indices, *shape, k, largest, in_order) == 0
            assert equal(values, expected.values)
            assert equal(indices, expected.indices)


@compiled_alone
@pytest.mark.parametrize(
    "filters", [(0, 1, 0), (3, 1, 0), (0, 0.6, 0), (0, 1, 0.3), (50, 0.95, 0.007)], ids=str
)
def test_sample(api, dtype, filters):
    for shape, temperature in itertools.product(SHAPES, TEMPERATURES):
        if shape[1] == 0:
            continue
        x, ids = rows(shape, dtype), np.empty(shape[0], np.int64)
        u = np.random.default_rng(5).random(shape[0])
        top_k, top_p, min_p = filters
        expected = fastsoftmax.sample(
            x, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, rng=5
        )
        assert call(getattr(api, f"sample_{dtype}"), x, u, ids, *shape, temperature, *filters) == 0
        assert equal(ids, expected)


@compiled_alone
def test_the_logarithm_of_min_p_is_numpys(api):
    # Logits at the limit, and just below, where libm's logarithm (here one in 300) is another one.
    u, ids = np.array([1 - 2**-53]), np.empty(1, np.int64)
    numbers = np.random.default_rng(0).random(30000)
    by_libm = np.array([math.log(p) for p in numbers])
    for p in (*numbers[np.log(numbers) != by_libm], *numbers[:50]):
        for limit in (np.log(p), np.nextafter(np.log(p), -np.inf)):
            x = np.array([0, limit])
            kept = fastsoftmax.filter_logits(x, min_p=p)[1] == limit
            assert call(api.sample_float64, x, u, ids, 1, 2, 1.0, 0, 1.0, p) == 0
            assert ids[0] == kept, (p, limit)


@compiled_alone
def test_rows_without_probabilities_get_no_id(api, dtype):
    x = np.array([[0, np.nan], [0, np.inf], [-np.inf, -np.inf], [0, 0]], dtype)
    u, ids = np.full(4, 0.9), np.empty(4, np.int64)
    function = getattr(api, f"sample_{dtype}")
    assert call(function, x, u, ids, 4, 2, 1.0, 0, 1.0, 0.0) == 0
    assert list(ids) == [-1, -1, -1, 1]
    assert call(function, x, u, ids, 4, 0, 1.0, 0, 1.0, 0.0) == 0
    assert list(ids) == [-1] * 4


@compiled_alone
def test_uniform(api):
    for seed, position in itertools.product((0, 7, 2**64 - 1), repeat=2):
        rng = np.random.Generator(np.random.Philox(key=seed, counter=position))
        assert api.uniform(seed, position) == rng.random()


@compiled_alone
@pytest.mark.parametrize("mean", [0, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(api, dtype, mean, smoothing):
    function = getattr(api, f"cross_entropy_{dtype}")
    reduction = "mean" if mean else "sum"
    for shape, temperature in itertools.product(SHAPES, TEMPERATURES):
        x, grad = rows(shape, dtype), np.empty(shape, dtype)
        x[np.isinf(x)] = -100  # a smoothed target has some of it
        t = np.random.default_rng(2).integers(0, max(1, shape[1]), shape[0])
        t[:: 3 if shape[1] else 1] = -7
        losses, loss = np.empty(shape[0]), np.empty(1)
        options = {"temperature": temperature, "label_smoothing": smoothing, "ignore_index": -7}
        expected = fastsoftmax.cross_entropy_with_grad(x, t, reduction=reduction, **options)
        each = fastsoftmax.cross_entropy(x, t, reduction="none", **options)
        arguments = (*shape, temperature, smoothing, -7, mean)
        assert call(function, x, t, losses, grad, loss, *arguments) == 0
        assert equal(grad, expected.grad)
        assert equal(rounded(loss, dtype)[0], expected.loss)
        assert equal(rounded(losses, dtype), each)
        losses[:] = 5
        assert call(function, x, t, losses, None, None, *arguments) == 0
        assert equal(rounded(losses, dtype), each)
        assert call(function, x, t, losses, x, None, *arguments) == 0  # in place
        assert equal(x, expected.grad)


# ---- errors --------------------------------------------------------------------------------------


GOOD = {
    "rows": 2, "n": 3, "temperature": 1.0, "k": 2, "largest": 1, "sorted": 1, "top_k": 0,
    "top_p": 1.0, "min_p": 0.0, "label_smoothing": 0.0, "ignore_index": -100, "mean": 1,
}  # fmt: skip
BAD = {
    "rows": (-1,), "n": (-1,), "temperature": (-1.0, np.nan), "k": (-1, 4), "top_k": (-1,),
    "top_p": (-0.1, 1.1, np.nan), "min_p": (-0.1, 1.1, np.nan),
    "label_smoothing": (-0.1, 1.1, np.nan),
    "uniforms": (np.array([0.5, 1]), np.array([0.5, -0.1]), np.array([np.nan, 0.5])),
    "targets": (np.array([0, 3]), np.array([-1, 0])),
}  # fmt: skip
ELEMENTS = {"float": np.float32, "double": np.float64, "int64_t": np.int64}
MAY_BE_NULL = ("grad", "loss")


def wrong_calls():
    """Yield the names of a function and of a wrong argument, and that."""
    for name, field in fields().items():
        if isinstance(field, Function) and field.result == "int":
            for kind, parameter in field.parameters:
                for value in BAD.get(parameter, ()):
                    yield name, parameter, value
                if kind.endswith("*") and parameter not in MAY_BE_NULL:
                    yield name, parameter, None


@compiled_alone
def test_a_wrong_argument_is_an_error_and_nothing_is_written(api):
    count = 0
    for name, wrong, value in wrong_calls():
        arguments = {}
        for kind, parameter in fields()[name].parameters:
            element = kind.removeprefix("const ").split()[0]
            if parameter in ("uniforms", "targets"):
                arguments[parameter] = np.zeros(2, "dq"[parameter == "targets"])
            elif kind.endswith("*"):
                arguments[parameter] = np.full(6, 5, ELEMENTS[element])
            else:
                arguments[parameter] = GOOD[parameter]
        assert call(getattr(api, name), *arguments.values()) == 0, name
        for kind, parameter in fields()[name].parameters:
            if kind.endswith("*") and not kind.startswith("const"):
                arguments[parameter][:] = 5
        arguments[wrong] = value
        assert call(getattr(api, name), *arguments.values()) == -2, (name, wrong, value)
        for kind, parameter in fields()[name].parameters:
            if kind.endswith("*") and not kind.startswith("const") and parameter != wrong:
                assert (arguments[parameter] == 5).all()
        count += 1
    assert count > 80


@compiled_alone
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory that holds")
def test_without_memory_nothing_is_written():
    code = """
import resource
import numpy as np, fastsoftmax
from tests.capi.header import Api, from_capsule
api = Api.from_address(from_capsule(fastsoftmax.capi._C_API, b"fastsoftmax.capi._C_API"))
n = 1 << 19
written = [np.full(n, 5.0), np.full(n, 5), np.full(n, 5.0), np.full(1, 5.0), np.full(1, 5.0)]
y, ids, grad, losses, loss = (a.ctypes.data for a in written)
read = [np.zeros(n), np.zeros(1), np.zeros(1, int)]
x, u, t = (a.ctypes.data for a in read)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
print(
    api.top_k_float64(x, y, ids, 1, n, n // 2, 1, 1),
    api.sample_float64(x, u, ids, 1, n, 1.0, n // 2, 1.0, 0.0),
    api.cross_entropy_float64(x, t, losses, grad, loss, 1, n, 1e-31, 0.0, -100, 1),
    all(a.min() == a.max() == 5 for a in written),
)
"""
    root = str(Path(__file__).parents[2])
    assert output(f"import sys\nsys.path.append({root!r})\n{code}", impl=USED) == [
        "-1", "-1", "-1", "True"
    ]  # fmt: skip


def test_without_kernels_the_import_says_so():
    result = python("import fastsoftmax.capi", impl="reference")
    said = "ImportError: fastsoftmax.capi needs compiled kernels; the implementation in use is the"
    assert said in result.stderr
    assert result.returncode == 1


# ---- the caller's thread -------------------------------------------------------------------------


@compiled_alone
@pytest.mark.skipif(not MODES, reason="this machine's environment is unknown to the tests")
@pytest.mark.parametrize("bits", [*MODES.values(), *TRAPS.values()])
def test_the_callers_environment_changes_nothing_and_is_left(api, bits):
    x = np.array([[1e-310, 2, -700, 5], [1, 2, np.nan, 4]])
    y, loss, losses = np.empty_like(x), np.empty(1), np.empty(2)
    u, ids = np.array([5e-324, 0.5]), np.empty(2, np.int64)
    targets = np.array([2, 1])
    lines = (
        (api.softmax_float64, x, y, 2, 4, 0.3),
        (api.sample_float64, x, u, ids, 2, 4, 0.3, 0, 0.9, 1e-300),
        (api.cross_entropy_float64, x, targets, losses, None, loss, 2, 4, 0.3, 0.1, -100, 1),
    )
    expected = None
    for change in (0, bits):
        pointers = [[a.ctypes.data if isinstance(a, np.ndarray) else a for a in x] for x in lines]
        with Environment(change):
            set_to = control(read())
            statuses = [function(*arguments) for function, *arguments in pointers]
            left = control(read())
        assert left == set_to
        assert statuses == [0, 0, 0]
        found = b"".join(a.tobytes() for a in (np.abs(y), ids, np.abs(losses), np.abs(loss)))
        assert expected in (None, found)
        expected = found


class Interrupted(Exception):  # noqa: N818 (no error)
    """What the handler raises."""


def waiting(status):
    """Wait for a signal that is there."""
    time.sleep(10)


@compiled_alone
def test_a_signal_does_not_end_a_call(api):
    # A look for signals would take the GIL, and end the call with whatever there is by then.
    def handler(number, frame):
        raise Interrupted

    n, k = 1 << 21, 1 << 19
    x = np.random.default_rng(0).random(n, np.float32)
    values, indices = np.empty(k, np.float32), np.empty(k, np.int64)
    start = time.process_time()
    expected = fastsoftmax.top_k(x, k)
    taken = time.process_time() - start
    before = signal.signal(signal.SIGPROF, handler)
    try:
        signal.setitimer(signal.ITIMER_PROF, taken / 4)
        with pytest.raises(Interrupted):  # afterwards, by the interpreter
            waiting(call(api.top_k_float32, x, values, indices, 1, n, k, 1, 1))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert equal(values, expected.values)
    assert equal(indices, expected.indices)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_implementations(name, monkeypatch):
    monkeypatch.setenv("FASTSOFTMAX_IMPL", name)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert result.returncode == 0, result.stdout
