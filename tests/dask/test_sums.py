"""softmax, log_softmax, logsumexp on dask arrays: what one array gives, whatever the chunks."""

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

from benchmarks import errors, exact
from fastsoftmax.dask import chunks
from tests.softmax.test_accuracy import ROWS, check

pytestmark = pytest.mark.slow_reference

FUNCTIONS = ("softmax", "log_softmax", "logsumexp")
CUTS = [(2, 1), (2, 3)]  # chunks along the rows, and of a row
DTYPES = ["f4", *(pytest.param(d, marks=pytest.mark.slow) for d in ("f8", "f2", "i4", "?"))]


def split(x, cuts, seed, pieces):
    """Return x in so many chunks of random sizes along both axes."""
    sizes = [pieces(n, count, seed) for n, count in zip(x.shape, cuts, strict=True)]
    return da.from_array(x, chunks=tuple(sizes))


def as_one_row(functions, impl, sizes):
    """Return functions of one row that go through chunks of these sizes."""

    def call(name):
        def function(x, **parameters):
            y = getattr(functions, name)(da.from_array(x, chunks=(sizes,)), **parameters)
            return y.compute()

        return function

    return SimpleNamespace(NAME=impl.NAME, **{name: call(name) for name in FUNCTIONS})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ROWS)
def test_the_bounds_of_one_array(on_chunks, impl, kind, dtype, pieces):
    """By an oracle of 2**-90; at temperatures."""
    x = ROWS[kind](300).astype(dtype)
    functions = as_one_row(on_chunks, impl, pieces(x.size, 5, len(kind)))
    for temperature in (1.0, 0.7):
        check(functions, x, temperature)


@pytest.mark.slow
@pytest.mark.best_alone
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_merging_adds_no_error(on_chunks, impl, temperature):
    """Of 200 rows, by their chunks alone: 0.6 of the bound is the kernels' own error."""
    rng, worst = np.random.default_rng(1), 0
    for n in rng.integers(2, 40, 200):
        centre, scale = rng.choice([0, 20, -30, 100]), rng.choice([0.5, 4])
        x = centre + scale * rng.standard_normal(n)
        parts = np.split(x, np.sort(rng.integers(0, n + 1, 3)))
        sums = [chunks.sums(part, temperature, None, (0,), True) for part in parts]
        total = chunks.merge(np.concatenate(sums), (0,), True, chunks.wide(x.dtype))
        y = [chunks.result(part, total, temperature, None, (0,), False) for part in parts]
        true = exact.rows(x, temperature).softmax
        error = errors.absolute_error(np.concatenate(y), true)
        allowed = (4 + 0.1 * (x.max() - x) / temperature) * 2.0**-53 * true.high
        worst = max(worst, (error / allowed).max())
    assert worst < 0.6


@pytest.mark.slow
@pytest.mark.best_alone
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ROWS)
def test_the_bounds_of_long_rows(on_chunks, impl, kind, dtype, pieces):
    x = ROWS[kind](100_000).astype(dtype)
    for seed, count in enumerate((2, 12)):
        functions = as_one_row(on_chunks, impl, pieces(x.size, count, seed))
        for temperature in (1.0, 0.1):
            check(functions, x, temperature)


@pytest.mark.best_alone
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", CUTS)
def test_any_chunks_axes_and_types(on_chunks, impl, dtype, cuts, pieces):
    x = (np.random.default_rng(1).standard_normal((6, 50)) * 3).astype(dtype)
    each = np.linspace(0.5, 2, 6)
    d = split(x, cuts, 0, pieces)
    for axis in (-1, 0, None, (1, 0)):
        for name in FUNCTIONS:
            same(getattr(on_chunks, name)(d, axis), getattr(impl, name)(x, axis))
    same(on_chunks.softmax(d, temperature=each), impl.softmax(x, temperature=each))
    same(on_chunks.log_softmax(d, temperature=da.asarray(each[0])),
         impl.log_softmax(x, temperature=each[0]))  # fmt: skip
    kept = on_chunks.logsumexp(d, keepdims=True)
    same(kept, impl.logsumexp(x, keepdims=True))


def same(lazy, wanted):
    """Assert that what dask computes has the shape and type it said, and is what is `wanted`."""
    got = lazy.compute()
    wanted = np.asarray(wanted)
    assert got.dtype == lazy.dtype == lazy._meta.dtype == wanted.dtype
    assert got.shape == lazy.shape == wanted.shape
    rtol = {2: 2e-3, 4: 1e-6, 8: 1e-14}[wanted.dtype.itemsize]
    np.testing.assert_allclose(got.astype(float), wanted.astype(float), rtol, rtol)


SPECIAL = np.array(
    [
        [1, -np.inf, 2, 3, -np.inf, 0],
        [-np.inf] * 6,
        [1, 2, np.inf, 3, 4, -np.inf],
        [1, 2, 3, 4, 5, np.nan],
        [np.nan, 2, 3, np.inf, -np.inf, -np.inf],
        [np.nan] * 6,
        [-np.inf, -np.inf, -np.inf, -np.inf, 7, -np.inf],
        [-np.inf, -np.inf, np.nan, -np.inf, -np.inf, -np.inf],
        [np.inf, -np.inf, np.inf, np.inf, 2, 3],
        [3e38, -3e38, 3e38, 0, 1, 2],
    ]
)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_special_values(on_chunks, impl, dtype, size):
    """Rows of -inf, +inf, NaN, and masks over them."""
    x = SPECIAL.astype(dtype)
    d = da.from_array(x, chunks=(4, size))
    mask = np.random.default_rng(0).random((2, *x.shape)) < [[[0.6]], [[0.3]]]
    for where in (None, *mask):
        w = None if where is None else da.from_array(where, chunks=(3, 5))
        for name in FUNCTIONS:
            got = getattr(on_chunks, name)(d, where=w).compute()
            wanted = getattr(impl, name)(x, where=where)
            np.testing.assert_allclose(got, wanted, 1e-6, 1e-300, err_msg=name)
            assert (np.isposinf(got) == np.isposinf(wanted)).all()
            assert (np.isneginf(got) == np.isneginf(wanted)).all()


def test_the_last_digit_of_a_confident_answer(on_chunks):
    """What is 2**-80 of the row is not lost beside its largest entry, in whichever chunk."""
    for x in ([0.0, -60.0, -61.0], [-60.0, 0.0, -61.0], [-60.0, -61.0, 0.0]):
        d = da.from_array(np.array(x), chunks=1)
        wanted = -(np.exp(-60) + np.exp(-61))
        assert on_chunks.log_softmax(d).max().compute() == pytest.approx(wanted, 1e-15)
        assert on_chunks.logsumexp(d).compute() == pytest.approx(-wanted, 1e-15)


def test_numbers_of_any_size(on_chunks, impl):
    """Exponentials are those of x - max there: sums of chunks on both sides of the change merge."""
    for dtype, edge in ((np.float32, 256), (np.float64, 2048)):
        for centre in (edge, -edge, 3 * edge, 1e6):
            x = (centre + np.linspace(-6, 6, 40)).astype(dtype)
            y = on_chunks.softmax(da.from_array(x, chunks=3)).compute()
            np.testing.assert_allclose(y, impl.softmax(x), 12 * np.finfo(dtype).eps)


def test_no_rows_and_no_elements(on_chunks):
    assert on_chunks.softmax(da.zeros((0, 8), chunks=(1, 3))).compute().shape == (0, 8)
    assert on_chunks.softmax(da.zeros((3, 0), chunks=1)).compute().shape == (3, 0)
    x = da.concatenate([da.zeros((3, 0)), da.zeros((3, 0))], axis=1)
    assert (on_chunks.logsumexp(x).compute() == -np.inf).all()
    assert on_chunks.softmax(da.asarray(np.float32(3))).compute() == 1
