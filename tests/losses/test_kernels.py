"""The kernels of the losses by their table: temperature, batches, targets that change meanwhile."""

import ctypes
import importlib
import math

import numpy as np
import pytest

ROWS_FN = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ssize_t,
    ctypes.c_ssize_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
WEIGH_FN = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t,
    ctypes.c_void_p,
    ctypes.c_ssize_t,
    ctypes.c_ssize_t,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_double),
)
SUM_FN = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_ssize_t)
LENGTHS = [1, 2, 3, 9, 16, 17, 21, 32, 33, 100, 130, 1500, 2100]


class Reserve(ctypes.Structure):
    """The struct of that name in ``_kernels/reserve.pxd``."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("bytes", ctypes.c_ssize_t),
        ("pieces", ctypes.c_ssize_t),
    )


class CrossEntropyCall(ctypes.Structure):
    """The struct of that name in ``_kernels/abi.pxd``."""

    _fields_ = (
        ("dtype", ctypes.c_int),
        ("n", ctypes.c_ssize_t),
        ("temperature", ctypes.c_double),
        ("targets", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("smoothing", ctypes.c_double),
        ("ignore_index", ctypes.c_int64),
        ("factor", ctypes.c_double),
        ("losses", ctypes.c_void_p),
        ("inner", ctypes.c_ssize_t),
        ("packed", ctypes.c_void_p),  # NULL: rows come as they are
        ("workspace", ctypes.POINTER(Reserve)),
    )


@pytest.fixture
def table(compiled):
    """Return the three functions of the table."""
    kernels = importlib.import_module(f"fastsoftmax._kernels.cross_entropy_{compiled.NAME}").kernels
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    at = pointer(kernels, b"fastsoftmax.LossKernels")
    size = ctypes.sizeof(ctypes.c_void_p)
    places = [ctypes.c_void_p.from_address(at + i * size).value for i in range(3)]
    return ROWS_FN(places[0]), WEIGH_FN(places[1]), SUM_FN(places[2])


def address(a):
    """Return where an array is, None for none."""
    return None if a is None else a.ctypes.data


def run(table, x, targets=None, labels=None, temperature=1.0, smoothing=0.0, weight=None, out=None):
    """Return losses and gradients of rows, by the kernel."""
    rows, n = x.shape
    losses = np.full(rows, 77.0)
    y = np.full_like(x, 77) if out is None else out
    scores = np.full(n * x.itemsize + 128, 77, np.uint8)
    workspace = Reserve(scores.ctypes.data, n * x.itemsize, 1)
    call = CrossEntropyCall(
        x.dtype == np.float64,
        n,
        temperature,
        address(targets),
        address(weight),
        smoothing,
        -100,
        0.25,
        losses.ctypes.data,
        0,
        None,
        ctypes.pointer(workspace),
    )
    arrays = x.ctypes.data, address(labels), y.ctypes.data
    assert table[0](ctypes.addressof(call), 0, rows, *arrays) == 0
    alone = np.full(rows, 77.0)
    call.losses = alone.ctypes.data
    if out is None:
        assert table[0](ctypes.addressof(call), 0, rows, *arrays[:2], None) == 0
        np.testing.assert_array_equal(losses, alone)
    return losses, y


def cases(n, dtype, rows=70):
    """Yield what gives a loss its labels, for some rows."""
    rng = np.random.default_rng(n)
    targets = rng.integers(0, n, rows)
    targets[[0, 5, 6, rows - 1]] = -100
    yield {"targets": targets}
    yield {"targets": rng.integers(0, n, rows), "smoothing": 0.2}
    yield {"targets": targets, "weight": rng.random(n)}
    labels = rng.random((rows, n)).astype(dtype)
    yield {"labels": labels}
    yield {"labels": labels, "smoothing": 0.2, "weight": rng.random(n)}


def expected(x, targets=None, labels=None, temperature=1.0, smoothing=0.0, weight=None):
    """Return losses and gradients by their formula, in long double."""
    x = x.astype(np.longdouble)
    n = x.shape[1]
    q = np.zeros_like(x) if labels is None else labels.astype(np.longdouble)
    if targets is not None:
        q[np.arange(len(x)), np.maximum(targets, 0)] = 1
    q = (q * (1 - smoothing) + smoothing / n) * (1 if weight is None else weight)
    if targets is not None:
        q[targets < 0] = 0
    d = (x - x.max(1, keepdims=True)) / temperature
    s = np.exp(d).sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        losses = np.where(q == 0, 0, q * (np.log(s) - d)).sum(1)
    return losses, (np.exp(d) / s * q.sum(1, keepdims=True) - q) * 0.25 / temperature


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "temperature", [1.0, 0.7, 3.0, 1e-8, 1e-12, 1e-30, 1e-31, 1e-36, 1e30, 1e31]
)
@pytest.mark.parametrize("n", [2, 16, 21, 100, 2100])
def test_temperature(table, dtype, temperature, n):
    rows = 70 if n < 1000 else 8  # long ones are each for itself
    x = (np.random.default_rng(n).standard_normal((rows, n)) * 3).astype(dtype)
    if not 0.1 < temperature < 10:  # scores whose softmax is neither flat nor all at one place
        x *= dtype(temperature)
    eps = np.finfo(dtype).eps
    for case in cases(n, dtype, rows):
        losses, y = run(table, x, temperature=temperature, **case)
        want, gradient = expected(x, temperature=temperature, **case)
        np.testing.assert_allclose(losses, want, rtol=40 * eps, atol=40 * eps)
        scale = float(abs(gradient).max())
        assert abs(y - gradient).max() <= 60 * eps * scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e300, 1.7e308])
def test_any_temperature_has_a_loss(table, dtype, temperature):
    x = np.array([[0, 1, 2], [5, 5, -np.inf], [-3, 1, 1]], dtype)
    targets = np.array([2, 0, 1])
    losses, y = run(table, x, targets, temperature=temperature)
    want = [0, math.log(2), math.log(2)] if temperature < 1 else np.log([3, 2, 3])
    np.testing.assert_allclose(losses, want, rtol=1e-6)
    assert not np.isnan(y).any()
    assert y[1, 2] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_row_has_the_same_bits_in_any_batch(table, dtype, temperature, n):
    x = (np.random.default_rng(n).standard_normal((70, n)) * 3).astype(dtype)
    for case in cases(n, dtype):
        per_row = [k for k in ("targets", "labels") if k in case]
        losses, y = run(table, x, temperature=temperature, **case)
        inplace = x.copy()
        run(table, inplace, temperature=temperature, out=inplace, **case)
        np.testing.assert_array_equal(inplace, y)
        for part in (slice(0, 1), slice(1, 3), slice(4, 21), slice(69, 70)):
            some = {**case, **{k: case[k][part].copy() for k in per_row}}
            a, b = run(table, x[part].copy(), temperature=temperature, **some)
            np.testing.assert_array_equal(a, losses[part])
            np.testing.assert_array_equal(b, y[part])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("n", LENGTHS)
def test_gradients_next_to_nothing_are_as_exact(table, temperature, n):
    # Those of probabilities about the smallest normal number and the smallest at all.
    rng = np.random.default_rng(n)
    x = rng.uniform(-106, -60, (70, n)).astype(np.float32)
    x[np.arange(70), rng.integers(0, n, 70)] = 0
    targets = x.argmax(1)
    targets[::7] = 0
    _, y = run(table, x * np.float32(temperature), targets, temperature=temperature)
    _, want = expected(x * np.float32(temperature), targets, temperature=temperature)
    own = np.arange(70), targets
    want[own] = 0
    want[own] = -want.sum(1)  # which p - 1 is, without its digits
    smallest = np.finfo(np.float32).smallest_subnormal
    np.testing.assert_allclose(y, want.astype(np.float64), rtol=200 * 2.0**-24, atol=smallest)
    if n > 2:
        assert ((y > 0) & (y < np.finfo(np.float32).tiny / 8)).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", LENGTHS)
def test_rows_without_probabilities_change_no_bit_of_others(table, dtype, n):
    x = np.random.default_rng(n).standard_normal((70, n)).astype(dtype)
    bad = x.copy()
    bad[[0, 33]] = -np.inf
    bad[40, n // 2] = np.nan
    bad[[41, 69], 0] = np.inf
    kept = np.isfinite(bad).all(1)
    for case in cases(n, dtype):
        losses, y = run(table, x, **case)
        some_losses, some = run(table, bad, **case)
        assert some[kept].tobytes() == y[kept].tobytes()
        np.testing.assert_array_equal(some_losses[kept], losses[kept])
        nothing = ~kept & (np.ones(70, bool) if "labels" in case else case["targets"] >= 0)
        assert some[nothing].tobytes() == np.full_like(x[nothing], np.nan).tobytes()


@pytest.mark.parametrize("n", [2, 20, 100, 3000])
def test_a_target_that_is_no_class_any_more_is_not_followed(table, n):
    # As from another thread after the check: the row counts as ignored.
    x = np.zeros((40, n), np.float32)
    targets = np.zeros(40, np.int64)
    targets[[0, 3, 39]] = n, -1, 2**62
    losses, y = run(table, x, targets)
    assert (losses[[0, 3, 39]] == 0).all()
    assert (y[[0, 3, 39]] == 0).all()
    np.testing.assert_allclose(losses[1], math.log(n), rtol=1e-6)


def test_weigh_targets(table):
    total = ctypes.c_double(-1)

    def weigh(targets, n, ignore, weight=None):
        return table[1](
            targets.ctypes.data, targets.size, n, ignore, address(weight), ctypes.byref(total)
        )

    targets = np.random.default_rng(0).integers(0, 7, 5000)
    assert (weigh(targets, 7, 3), total.value) == (-1, (targets != 3).sum())
    weight = np.random.default_rng(1).random(7)
    assert weigh(targets, 7, 3, weight) == -1
    assert total.value == math.fsum(weight[targets[targets != 3]])
    for bad in (7, -1, 2**63 - 1, -(2**63)):
        targets[[4100, 4500]] = bad
        assert weigh(targets, 7, 3) == weigh(targets, 7, 3, weight) == 4100
    assert weigh(targets[:4100], 7, -(2**63)) == -1
    assert (weigh(targets[:0], 7, 3), total.value) == (-1, 0)


def test_sum_losses(table):
    rng = np.random.default_rng(0)
    for n in (0, 1, 7, 8, 9, 1000, 1003):
        v = rng.random(n) * 10.0 ** rng.integers(-12, 12, n)
        assert table[2](v.ctypes.data, n) == math.fsum(v)
    v = np.ones(20)
    v[3] = np.inf
    assert table[2](v.ctypes.data, 20) == np.inf
    v[11] = np.nan
    assert math.isnan(table[2](v.ctypes.data, 20))
