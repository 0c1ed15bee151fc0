"""top_k: which entries, in which order, from any array; compared with a stable sort."""

import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.arrays import dtype_of
from tests.selection.rows import FLOATS, MODES, SPECIAL, assert_top_k, best_first, row

INTS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "longlong")
DTYPES = (*FLOATS, *INTS, "bool")
LARGE = (1023, 1024, 1025, 4096, 65535, 65536, 65537, 151936)


def some_k(n):
    ks = {0, 1, 2, 5, 50, n // 64 - 1, n // 64, n // 64 + 1, n // 16, n // 16 + 1, n // 3, n - 1, n}
    return sorted(k for k in ks if 0 <= k <= n)


# ---- which entries -------------------------------------------------------------------------------


@pytest.mark.slow_reference
@pytest.mark.parametrize("kind", ["random", "ties"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "bool"])
def test_lengths_1_to_70(impl, dtype, kind):
    for n in range(1, 71, 5 if impl.NAME == "reference" else 1):
        x = row(kind, n, dtype)
        for mode in MODES:
            order = best_first(x, mode)
            for k in some_k(n):
                assert_top_k(impl.top_k, x, k, mode, order)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["random", "ties", "special"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", LARGE)
def test_large_lengths(impl, n, dtype, kind, mode):
    x = row(kind, n, dtype)
    order = best_first(x, mode)
    few = impl.NAME == "reference" and n > 4096  # it sorts everything each time
    for k in (50,) if few else some_k(n):
        assert_top_k(impl.top_k, x, k, mode, order)


@pytest.mark.slow_reference
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [100, 4097, 65537])
@pytest.mark.parametrize(
    "kind",
    [
        "ascending",
        "descending",
        "constant",
        "all -inf",
        "all NaN",
        "organ pipe",
        "inverted organ pipe",
        "few at the end",
        "ties",
        "periodic",
        "many +inf",
        "few above -inf",
        "few in NaN",
        "last of NaN",
    ],
)
def test_orders_of_the_input(impl, kind, n, mode):
    x = row(kind, n)
    order = best_first(x, mode)
    few = impl.NAME == "reference" and n > 4097
    for k in (50,) if few else some_k(n):
        assert_top_k(impl.top_k, x, k, mode, order)


@pytest.mark.slow_reference
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["random", "ties", "periodic", "ascending"])
def test_every_k(impl, kind, mode):
    for n in (1, 2, 33, 200, 2100):
        x = row(kind, n)
        order = best_first(x, mode)
        all_of_them = n < 300 if impl.NAME != "reference" else n < 40
        for k in range(0, n + 1, 1 if all_of_them else 19):
            assert_top_k(impl.top_k, x, k, mode, order)


@pytest.mark.slow_reference
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint64"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9])
def test_ties_at_the_end_of_the_range(impl, share, dtype, mode):
    """Nothing comes before a tied largest (or smallest) value: the rest of the row is no matter."""
    x = row("random", 20000, dtype)
    ends = (np.inf, -np.inf) if x.dtype.kind == "f" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
    x[np.random.default_rng(1).random(x.size) < share] = ends[mode == "smallest"]
    order = best_first(x, mode)
    for k in (1, 7, 50, 400, 1300, 9000):
        assert_top_k(impl.top_k, x, k, mode, order)


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("n", [31, 32, 33, 63, 70, 100, 2047, 2048, 2060, 4130])
def test_the_first_one_wherever_it_is(impl, n, dtype):
    """Alone, or before others that are as large: in the same lane of a vector, in another."""
    for place in sorted({*range(0, n, max(1, n // 9)), n - 33, n - 32, n - 2, n - 1}):
        for other in (place, place + 1, place + 32, place + 2048, n - 1):
            x = np.zeros(n, dtype)
            x[[place % n, max(place, other) % n]] = 1
            first = int(x.argmax())
            for logits, mode in ((x, "largest"), (-x, "smallest")):
                values, indices = impl.top_k(logits, 1, mode=mode)
                assert (values[0], indices[0]) == (logits[first], first)
            if dtype != "int64":
                assert impl.sample(x, temperature=0) == first
                x[(place + 7) % n] = np.nan
                assert impl.sample(x, temperature=0, on_invalid="flag") == -1
                assert impl.top_k(x, 1).indices[0] == np.nanargmax(x)


@pytest.mark.parametrize("place", [0, 255, 256, 1023, 9000, 19999])
def test_larger_ones_after_many_ties(impl, place):
    """What exceeds the ties is found after as many of them as are wanted, too."""
    x = np.zeros(20000, dtype=np.float32)
    x[place:] += np.arange(20000 - place) % 3 == 0
    x[place] = 2
    order = best_first(x, "largest")
    for k in (1, 2, 50, 300, 1000, 5000, 19000):
        assert_top_k(impl.top_k, x, k, "largest", order)


@pytest.mark.parametrize("length", [5, 100, 5000])
def test_one_entry_is_found_wherever_it_is(impl, length):
    for place in {*range(0, length, 97), *range(min(length, 70)), length - 1}:
        x = np.zeros(length, dtype=np.float32)
        x[place] = 1
        assert impl.top_k(x, 1).indices[0] == place
        x[place] = -1
        assert impl.top_k(x, 1, mode="smallest").indices[0] == place


def test_equal_entries_the_lower_index_wins(impl):
    x = np.array([1, 3, 2, 3, 1, 3, 2], dtype=np.float32)
    assert impl.top_k(x, 2).indices.tolist() == [1, 3]
    assert impl.top_k(x, 4).indices.tolist() == [1, 3, 5, 2]
    assert impl.top_k(x, 4, sorted=False).indices.tolist() == [1, 2, 3, 5]
    assert impl.top_k(x, 3, mode="smallest").indices.tolist() == [0, 4, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [5, 40, 3000])
def test_zeros_are_equal_and_keep_their_sign(impl, n, dtype, mode):
    x = np.zeros(n, dtype=dtype_of(dtype))
    x[::2] = -0.0
    values, indices = impl.top_k(x, n - 1, mode=mode)
    assert indices.tolist() == list(range(n - 1))
    np.testing.assert_array_equal(np.signbit(values), np.arange(n - 1) % 2 == 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [6, 40, 3000])
def test_nan_comes_last_and_by_index(impl, n, dtype, mode):
    x = np.full(n, np.nan, dtype=dtype_of(dtype))
    for k in (1, 3, n):
        assert_top_k(impl.top_k, x, k, mode)
    x[n - 1], x[2] = -np.inf, np.inf
    first = [2, n - 1] if mode == "largest" else [n - 1, 2]
    for k in range(1, 6):  # the third and later ones are NaN
        assert impl.top_k(x, k, mode=mode).indices.tolist() == [*first, 0, 1, 3][:k]
        assert_top_k(impl.top_k, x, k, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_of_either_sign_comes_last(impl, sign, mode):
    x = np.array([1, np.copysign(np.nan, sign), 3, -np.inf, np.inf, 2], dtype=np.float32)
    want = [4, 2, 5, 0, 3, 1] if mode == "largest" else [3, 0, 5, 2, 4, 1]
    assert impl.top_k(x, 6, mode=mode).indices.tolist() == want


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 37, 1025])
def test_dtype_is_kept(impl, n, dtype, mode):
    x = row("random", n, dtype)
    for k in some_k(n):
        assert_top_k(impl.top_k, x, k, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("n", [9, 2000])
def test_extreme_integers(impl, n, dtype, mode):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    middle = 1 << 53 if np.dtype(dtype).itemsize == 8 else 100  # 2**53 + 1 is no float64
    few = np.array([low, high, low + 1, high - 1, middle, middle + 1, 0, 1], dtype=dtype)
    x = np.random.default_rng(0).choice(few, n)
    x[-1] = high if mode == "largest" else low
    for k in (1, 2, n // 2, n):
        assert_top_k(impl.top_k, x, k, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_extreme_floats(impl, dtype, mode):
    info = ml_dtypes.finfo(dtype_of(dtype))
    tiny = info.smallest_subnormal
    few = [info.max, info.min, tiny, -tiny, info.tiny, -info.tiny, 0, -0.0, np.inf, -np.inf]
    x = np.array([float(v) for v in few] * 9).astype(dtype_of(dtype))
    for k in (1, 5, 45, 90):
        assert_top_k(impl.top_k, x, k, mode)


def test_lists_and_scalars(impl):
    values, indices = impl.top_k([1, 3, 2], 2)
    assert values.dtype == np.asarray([1]).dtype
    assert values.tolist() == [3, 2]
    assert indices.tolist() == [1, 2]
    assert impl.top_k(5.0, 1).values.tolist() == [5.0]  # 0-d: a row of one
    assert impl.top_k(np.float32(5), 0).indices.shape == (0,)


@pytest.mark.parametrize(
    "x", [np.ones(3, complex), np.ones(3, object), np.array(["a"]), np.ones(3, "M8[s]")]
)
def test_dtypes_without_an_order_are_refused(impl, x):
    with pytest.raises(TypeError, match="dtype " + str(x.dtype).replace("[", r"\[")):
        impl.top_k(x, 1)


# ---- properties and time -------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=300),
    st.lists(st.integers(-3, 3), min_size=1, max_size=300),
    st.lists(st.floats(width=32), min_size=1, max_size=80),
)


@given(numbers=NUMBERS, data=st.data())
def test_same_as_the_reference(compiled, reference, numbers, data):
    dtype = data.draw(st.sampled_from(FLOATS), "dtype")
    with np.errstate(over="ignore"):
        x = np.array(numbers, dtype=np.float64).astype(dtype_of(dtype))
    k = data.draw(st.integers(0, x.size), "k")
    mode = data.draw(st.sampled_from(MODES), "mode")
    for function in (reference.top_k, compiled.top_k):
        assert_top_k(function, x, k, mode)


@pytest.mark.parametrize(
    "kind", ["ascending", "descending", "constant", "all -inf", "organ pipe", "few at the end"]
)
def test_no_order_of_the_input_is_slow(impl, kind):
    """The promise is twice the time of a random row; three times here, for the noise."""
    if impl.NAME == "reference":
        pytest.skip("the reference sorts")
    rows = {name: row(name, 128256).copy() for name in ("random", kind)}
    best = dict.fromkeys(rows, np.inf)
    for _ in range(10):  # until a quiet moment has been found for both
        for _ in range(20):
            for name, x in rows.items():
                start = time.perf_counter()
                impl.top_k(x, 50)
                best[name] = min(best[name], time.perf_counter() - start)
        if best[kind] <= 3 * best["random"]:
            return
    pytest.fail(f"{kind}: {best[kind] * 1e6:.0f} us, random: {best['random'] * 1e6:.0f} us")
