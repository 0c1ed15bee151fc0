"""A row has the same figures in a batch of any kind as alone, whatever pivot it begins with."""

import numpy as np
import pytest

INF, NAN = np.inf, np.nan
#: Rows in planes, in batches, one by one; whole vectors and steps, and one more.
LENGTHS = (1, 2, 3, 4, 5, 9, 15, 16, 17, 31, 32, 33, 100, 256, 257)
TEMPERATURES = (1.0, 0.7, 0, INF, 1e-33, "rows")
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def rows_of(n, dtype, seed=0):
    """Return more rows than a batch has, some of which a batch leaves to be done one by one."""
    rng = np.random.default_rng(n + seed)
    x = rng.standard_normal((70, n)) * 4
    x[1] = 0.5
    x[2] = np.arange(n) / n
    x[3] = np.round(x[3])
    x[4, n // 2] = NAN
    x[5] = -INF
    x[6, n // 3] = INF
    x[7, ::2] = -INF
    x[8] += 1e4
    x[9] -= 200
    x[10] *= 30
    x[66] = np.where(np.arange(n) % 3, -0.0, 0.0)
    x[67] = -x[66]
    return x.astype(dtype)


def temperatures_of(t, rows):
    """Return temperatures, one a row where t says so: in range, 1, and out of it."""
    if t != "rows":
        return np.full(rows, t)
    i = np.arange(rows)
    return np.where(i % 3 == 0, 1.0, np.where(i % 7 == 0, 1e-25, 0.5 + i / 9))


@dtypes
@pytest.mark.parametrize("n", LENGTHS)
def test_row_stats(compiled, dtype, n):
    x = rows_of(n, dtype)
    some = range(0, 70, 1 if n < 20 else 9)
    ids = np.random.default_rng(n).integers(0, n, (70, 2))
    for name in TEMPERATURES:
        t = temperatures_of(name, 70)
        given = t if name == "rows" else name
        found = compiled.row_stats(x, top=min(n, 5), ids=ids, temperature=given)
        by_columns = compiled.row_stats(
            np.asfortranarray(x), top=min(n, 5), ids=ids, temperature=given
        )
        for a, b in zip(found, by_columns, strict=True):
            assert a.tobytes() == b.tobytes()
        for i in (*some, *range(1, 11), 66, 67):
            alone = compiled.row_stats(x[i], top=min(n, 5), ids=ids[i], temperature=t[i])
            for field, a, b in zip(found._fields, found, alone, strict=True):
                assert a[i].tobytes() == b.tobytes(), (field, name, i)


@dtypes
@pytest.mark.parametrize("n", LENGTHS)
def test_one_figure_is_that_of_all(compiled, dtype, n):
    """What is not asked for is not computed, and what a batch leaves out does not depend on it."""
    x = rows_of(n, dtype)
    where = x > -1
    for t in (1.0, 0.7):
        every = compiled.row_stats(x, top=min(n, 3), temperature=t)
        for field in ("max", "argmax", "logsumexp", "entropy", "margin"):
            one = compiled.row_stats(x, field, temperature=t)
            assert getattr(one, field).tobytes() == getattr(every, field).tobytes()
        best = compiled.row_stats(x, (), top=min(n, 3))
        assert best.top_indices.tobytes() == every.top_indices.tobytes()
        assert compiled.entropy(x, temperature=t).tobytes() == every.entropy.tobytes()
        lse = compiled.softmax(x, temperature=t, return_lse=True).lse
        assert lse.tobytes() == every.logsumexp.tobytes()
    means = compiled.logmeanexp(x)
    of_some = compiled.logmeanexp(x, where=where)
    for i in range(70):
        assert means[i].tobytes() == compiled.logmeanexp(x[i]).tobytes()
        assert of_some[i].tobytes() == compiled.logmeanexp(x[i], where=where[i]).tobytes()


@dtypes
@pytest.mark.parametrize("n", [1, 2, 4, 7, 8, 9, 15, 24, 31, 32, 33])
def test_pairs(compiled, dtype, n):
    x, y = rows_of(n, dtype), rows_of(n, dtype, seed=1)
    y = np.roll(y, 5, 0)
    y[20] = x[20]
    y[21] = np.abs(y[21])
    y[22] = -np.abs(y[22])
    y[23, n // 2] = 0
    for name in TEMPERATURES:
        t = temperatures_of(name, 70)
        found = compiled.kl_divergence(x, y, temperature=t if name == "rows" else name)
        for i in range(70):
            alone = compiled.kl_divergence(x[i], y[i], temperature=t[i])
            assert found[i].tobytes() == alone.tobytes(), (name, i)
    found, signs = compiled.logsumexp(x, b=y, return_sign=True)
    without_signs = compiled.logsumexp(x, b=y)
    for i in range(70):
        alone, sign = compiled.logsumexp(x[i], b=y[i], return_sign=True)
        assert (found[i].tobytes(), signs[i].tobytes()) == (alone.tobytes(), sign.tobytes()), i
        assert without_signs[i].tobytes() == compiled.logsumexp(x[i], b=y[i]).tobytes(), i


@dtypes
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_rows_that_a_pivot_does_not_serve(compiled, reference, dtype, temperature):
    """Rows of some blocks, read once by the first maximum, or a second time by the row's own."""
    n = 6000
    rows = np.random.default_rng(0).standard_normal((9, n))
    rows[0, 5000] = 39.0  # above the pivot, within reach,
    rows[1, 5000] = 90.0  # or not
    rows[2, :3000] = -INF
    rows[3] += 400  # no pivot is tried
    rows[4] -= 300
    rows[5] = np.linspace(-30, 30, n)  # the maximum rises with each block,
    rows[6] = -rows[5]  # or not at all
    rows[7] = np.where(np.arange(n) == 4097, 30.0, -30.0)  # what others add is less than 2**-60
    rows[8, 4500] = NAN
    x = rows.astype(dtype)
    got = compiled.row_stats(x, top=3, temperature=temperature)
    want = reference.row_stats(x, top=3, temperature=temperature)
    for a, b in zip(got, want, strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=2e-5 if dtype == "float32" else 1e-12)
    if temperature == 1:
        assert got.logsumexp.tobytes() == compiled.logsumexp(x).tobytes()
    found = compiled.entropy(x, temperature=temperature)
    assert found.tobytes() == got.entropy.tobytes()
