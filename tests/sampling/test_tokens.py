"""token_logprobs, top_logprobs and rank: against log_softmax in float64 and a stable sort."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from fastsoftmax import TopLogprobs
from tests.oracles import rows_of

INF = np.inf
SIZES = (1, 2, 31, 33, 2047, 2048, 2049, 10_000, 65537)
TEMPERATURES = (1.0, 0, 0.3, 1.7, 1e9, INF, 1e-300)


def some_ids(n):
    return np.unique([0, n - 1, n // 2, n // 3, min(n - 1, 2048)])


def log_probabilities(row, temperature):
    """Return all of them in float64, by NumPy alone."""
    x = row.astype(np.float64)
    if temperature == 0:
        return np.where(np.arange(x.size) == x.argmax(), 0.0, -INF)
    with np.errstate(all="ignore"):
        d = np.where(x > -INF, (x - x.max()) * min(1 / temperature, np.finfo("f8").max), -INF)
        return d - np.log1p(np.exp(np.delete(d, x.argmax())).sum())


# ---- log-probabilities ---------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_probabilities(impl, dtype, temperature):
    for n in SIZES:
        x = rows_of(n, dtype)
        ids = some_ids(n)
        want = np.array([log_probabilities(row, temperature)[ids] for row in x])
        got = impl.token_logprobs(x, np.tile(ids, (4, 1)), temperature=temperature)
        assert got.dtype == x.dtype
        with np.errstate(over="ignore"):
            want = want.astype(dtype)
        np.testing.assert_allclose(got, want, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kind", ["ascending", "descending", "-inf first", "-inf last", "peak"])
@pytest.mark.parametrize("temperature", [1.0, 0.4, 0, INF])
def test_wherever_the_largest_is(impl, temperature, kind):
    """The sum is made in one read: it must be right whenever a larger entry comes."""
    x = np.random.default_rng(0).normal(size=9000) * 5
    if kind == "ascending":
        x.sort()
    elif kind == "descending":
        x[::-1].sort()
    elif kind == "-inf first":
        x[:5000] = -INF
    elif kind == "-inf last":
        x[3000:] = -INF
    else:
        x[[2047, 2048]] = 40, 40.5
    ids = [0, 2047, 2048, 4999, 5000, 8999]
    got = impl.token_logprobs(x, ids, temperature=temperature)
    np.testing.assert_allclose(got, log_probabilities(x, temperature)[ids], rtol=1e-14)


def test_the_largest_term_stays_out_of_the_sum(impl):
    np.testing.assert_allclose(impl.token_logprobs([0.0, -40.0], 0), -np.exp(-40.0), rtol=1e-15)
    x = np.full(5000, -40.0)
    x[3000] = 0
    np.testing.assert_allclose(impl.token_logprobs(x, 3000), -4999 * np.exp(-40.0), rtol=1e-13)
    x[4000] = 1e-3  # a second one, little larger, blocks later
    want = -np.log1p(np.exp(-1e-3) + 4998 * np.exp(-40.001))
    np.testing.assert_allclose(impl.token_logprobs(x, 4000), want, rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "bool"])
def test_other_dtypes(impl, dtype):
    x = rows_of(100, "float32")[:3].clip(0, 25)
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    got = impl.token_logprobs(x, [3, 4, 5])
    own = x.dtype if x.dtype.kind in "fV" else np.dtype(np.float64)
    assert got.dtype == own
    want = [log_probabilities(row, 1)[i] for row, i in zip(x, (3, 4, 5), strict=True)]
    eps = float(ml_dtypes.finfo(own).eps)
    np.testing.assert_allclose(got.astype("f8"), want, rtol=2 * eps)


@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
@pytest.mark.parametrize("temperature", [1.0, 0, INF])
@pytest.mark.parametrize("n", [3, 5000])
def test_rows_without_probabilities(impl, n, temperature, bad):
    x = np.random.default_rng(0).normal(size=(3, n)).astype(np.float32)
    ids = [[0, n // 2, n - 1]] * 3
    good = impl.token_logprobs(x, ids, temperature=temperature)
    for place in (0, n // 2, n - 1):
        y = x.copy()
        y[1, slice(None) if bad == -INF else place] = bad
        got = impl.token_logprobs(y, ids, temperature=temperature)
        assert np.isnan(got[1]).all()
        np.testing.assert_array_equal(got[[0, 2]], good[[0, 2]])


@pytest.mark.parametrize("n", [1, 2, 3, 8, 15, 16, 31, 33, 100, 256, 257])
def test_a_row_has_the_same_bits_among_many(compiled, n):
    rng = np.random.default_rng(n)
    for rows in (17, 70, 131):
        x = (rng.standard_normal((rows, n)) * rng.choice([1, 60, 1e4], (rows, 1))).astype("f4")
        x[rng.integers(rows), rng.integers(n)] = np.nan
        x[rng.integers(rows)] = -np.inf
        x[rng.integers(rows), n // 2] = np.inf
        x[rng.integers(rows), n // 2 :] = 7
        ids = rng.integers(0, n, (rows, 3))
        for t in (1, 0.7, 1e-20):
            want = [compiled.token_logprobs(x[i], ids[i], temperature=t) for i in range(rows)]
            got = compiled.token_logprobs(x, ids, temperature=t)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (2, 2), (10, 3), (15, 15), (16, 5), (31, 30), (100, 5)]
)
def test_the_best_of_a_row_are_the_same_among_many(compiled, n, k):
    rng = np.random.default_rng(n)
    for rows in (17, 70, 131):
        x = np.round(4 * rng.standard_normal((rows, n)), 1).astype("f4")
        x[rng.integers(rows), rng.integers(n)] = np.nan
        x[rng.integers(rows)] = -np.inf
        x[rng.integers(rows), n // 2] = np.inf
        for t in (1, 0.7, 1e-20):
            best = compiled.top_logprobs(x, k, temperature=t)
            for i in range(rows):
                alone = compiled.top_logprobs(x[i], k, temperature=t)
                np.testing.assert_array_equal(best.indices[i], alone.indices)
                np.testing.assert_array_equal(best.logprobs[i], alone.logprobs)


def test_one_temperature_a_row(impl):
    x = rows_of(33, "float32").reshape(2, 2, 33)
    t = [[0.5], [2.0]]
    got = impl.token_logprobs(x, [[1, 2], [3, 4]], temperature=t)
    for i, j in np.ndindex(2, 2):
        assert got[i, j] == impl.token_logprobs(x[i, j], 1 + 2 * i + j, temperature=t[i][0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_of_the_best(impl, dtype):
    for n in (1, 33, 5000):
        x = rows_of(n, dtype).reshape(2, 2, n)
        for count in {0, 1, min(n, 20)}:
            got = impl.top_logprobs(x, count, temperature=0.7)
            assert type(got) is TopLogprobs
            best = impl.top_k(x, count).indices
            np.testing.assert_array_equal(got.indices, best)
            assert got.logprobs.shape == (2, 2, count)
            want = impl.token_logprobs(x, best, temperature=0.7)
            np.testing.assert_array_equal(got.logprobs, want)
    assert impl.top_logprobs(3.0, 1).logprobs.tolist() == [0]
    assert impl.top_logprobs(np.zeros((0, 5)), 2).indices.shape == (0, 2)


# ---- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint64"])
@pytest.mark.parametrize("n", [1, 2, 33, 1025])
def test_rank_is_the_place_in_the_order_of_top_k(impl, n, dtype):
    x = np.random.default_rng(n).integers(0, 50, (3, n))
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    order = impl.top_k(x, n).indices
    np.testing.assert_array_equal(impl.rank(x, order), np.tile(np.arange(n), (3, 1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [4095, 4096, 4097, 20_000])
def test_rank_in_a_long_row(impl, n, dtype):
    row = np.random.default_rng(n).integers(0, 300, n).astype(dtype)
    row[::7] = np.nan
    row[3::50] = -INF
    row[5::60] = -0.0
    row[6::60] = 0.0
    ids = np.concatenate([np.arange(0, n, 97), [4094, n - 1]])
    want = np.argsort(np.argsort(-row, kind="stable"))[ids]
    np.testing.assert_array_equal(impl.rank(row, ids), want)


def test_rank_of_large_integers(impl):
    x = np.array([2**62, 2**62 + 1, 2**62 - 1, 2**63 - 1], dtype=np.int64)
    assert impl.rank(x, [0, 1, 2, 3]).tolist() == [2, 1, 3, 0]
    assert impl.rank(x.astype(np.uint64) * np.uint64(2), [0, 1, 2, 3]).tolist() == [2, 1, 3, 0]


# ---- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token_logprobs", "rank"])
def test_shapes(impl, name):
    f = getattr(impl, name)
    kind = np.int64 if name == "rank" else np.float32
    x = np.zeros((2, 3, 5), dtype=np.float32)
    for shape in ((2, 3), (2, 3, 1), (2, 3, 4), (2, 3, 0)):
        got = f(x, np.zeros(shape, dtype=np.int32))
        assert got.shape == shape
        assert got.dtype == kind
    assert isinstance(f(x[0, 0], 3), kind)
    assert f(x[0, 0], [3, 4]).shape == (2,)
    assert f(x[0, 0], []).shape == (0,)
    assert f(x[:0], np.zeros((0, 3), dtype=int)).shape == (0, 3)
    assert f(x[:0], np.zeros((0, 3, 2), dtype=int)).shape == (0, 3, 2)
    assert f(3.0, 0) == 0
    assert f([3.0], [0, 0]).tolist() == [0, 0]


@pytest.mark.parametrize("name", ["token_logprobs", "rank"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ids_in_any_form(impl, dtype, name):
    """An int, NumPy's and arrays of each kind give the same bits."""
    f = getattr(impl, name)
    x = rows_of(3000, dtype)
    ids = np.array([5, 2999, 1500, 0])
    want = f(x.tolist() if dtype == "float64" else np.asfortranarray(x), ids.tolist())
    for same in (ids, ids.astype(np.uint16), np.repeat(ids, 2)[::2], ids.astype(">i8")):
        np.testing.assert_array_equal(f(x, same), want)
    np.testing.assert_array_equal(f(x, ids[:, None])[:, 0], want)
    for row, i, y in zip(x, ids, want, strict=True):
        for one in (int(i), i, np.uint16(i), np.array(i)):
            got = f(row, one)
            assert isinstance(got, np.generic)
            assert got == y
    many = np.tile(np.arange(3000), 40).reshape(4, -1)  # more work than one call does by pointer
    np.testing.assert_array_equal(f(x, many)[:, :3000], f(x, many[:, :3000].copy()))


@pytest.mark.parametrize("name", ["token_logprobs", "rank"])
def test_wrong_ids(impl, name):
    f = getattr(impl, name)
    x = np.zeros((2, 5), dtype=np.float32)
    for bad in (-1, 5, 10**9):
        with pytest.raises(IndexError, match=rf"^ids has {bad}; allowed is 0 to 4"):
            f(x, [0, bad])
        with pytest.raises(IndexError, match=rf"^ids has {bad}; allowed is 0 to 4"):
            f(x, [[0, 1], [bad, 1]])
    with pytest.raises(IndexError, match=f"^ids has {2**64 - 1}; allowed is 0 to 4"):
        f(x, np.array([0, 2**64 - 1], dtype=np.uint64))
    with pytest.raises(IndexError):
        f(np.zeros((2, 0)), [0, 0])
    for ids, error, says in (
        ([0.0, 1.0], TypeError, "ids has dtype float64"),
        ([True, False], TypeError, "ids has dtype bool"),
        ([0, 1, 2], ValueError, r"ids has shape \(3,\); allowed are \(2,\) and \(2, m\)"),
        (0, ValueError, r"ids has shape \(\)"),
        ([[0, 1]], ValueError, r"ids has shape \(1, 2\)"),
    ):
        with pytest.raises(error, match=says):
            f(x, ids)


def test_other_errors(impl):
    with pytest.raises(ValueError, match=r"^temperature is -1.0"):
        impl.token_logprobs([1.0], 0, temperature=-1)
    with pytest.raises(TypeError, match="logits has dtype complex"):
        impl.token_logprobs([1j], 0)
    with pytest.raises(TypeError, match="logits has dtype complex"):
        impl.rank([1j], 0)
    for n, error in ((-1, ValueError), (4, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match=rf"^n is {n}; allowed"):
            impl.top_logprobs(np.zeros((2, 3)), n)


@pytest.mark.parametrize("name", ["token_logprobs", "rank"])
def test_nothing_of_the_size_of_the_row_is_allocated(impl, name):
    if impl.NAME == "reference":
        pytest.skip("it allocates a few rows")
    x = np.zeros(1_000_000, dtype=np.float32)
    tracemalloc.start()
    getattr(impl, name)(x, [5, 6])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("name", ["token_logprobs", "rank"])
def test_layouts(impl, name):
    f = getattr(impl, name)
    x = rows_of(33, "float32")
    ids = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    want = f(x, ids)
    for same in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x.astype(">f4"), x[:, :]):
        np.testing.assert_array_equal(f(same, ids), want)
        np.testing.assert_array_equal(f(same, ids.T.copy().T.astype(np.uint8)), want)
