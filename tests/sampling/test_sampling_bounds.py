"""Sampling kernels: ids outside the row, rows that change meanwhile, overflow, min_p to the bit."""

import ctypes
import importlib
import threading
import time

import numpy as np
import pytest

from tests.oracles import Uniforms

INF = np.inf


class TokenLogprobsCall(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("n", ctypes.c_ssize_t),
        ("packed", ctypes.c_void_p),
        ("temperature", ctypes.c_void_p),
        ("temperature_stride", ctypes.c_ssize_t),
        ("m", ctypes.c_ssize_t),
        ("ids", ctypes.c_void_p),
        ("logprobs", ctypes.c_void_p),
    ]


class TopLogprobsCall(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("n", ctypes.c_ssize_t),
        ("packed", ctypes.c_void_p),
        ("temperature", ctypes.c_void_p),
        ("temperature_stride", ctypes.c_ssize_t),
        ("k", ctypes.c_ssize_t),
        ("logprobs", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
    ]


class FilterLogitsCall(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("n", ctypes.c_ssize_t),
        ("packed", ctypes.c_void_p),
        ("filters", ctypes.c_void_p),
        ("filter_stride", ctypes.c_ssize_t),
        ("every_tie", ctypes.c_int),
        ("largest", ctypes.c_double),
        ("workspace", ctypes.c_void_p),
        ("spare", ctypes.c_void_p),
    ]


FILTERS = np.dtype(
    [
        ("temperature", "f8"),
        ("top_k", "i8"),
        ("top_p", "f8"),
        ("log_min_p", "f8"),
        ("min_keep", "i8"),
    ]
)
PLACES = "sample", "filter_logits", "support", "token_logprobs", "top_logprobs"


def kernel(impl, name):
    """Return a `rows_fn` of a compiled implementation's table, and what must outlive it."""
    module = importlib.import_module(f"fastsoftmax._kernels.sample_{impl.NAME}")
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(module.kernels, b"fastsoftmax.SamplingKernels")
    pointer = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[PLACES.index(name)]
    words = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_ssize_t] + 3 * [ctypes.c_void_p]
    return ctypes.CFUNCTYPE(ctypes.c_int, *words)(pointer)


def token_logprobs(impl, x, ids, temperature):
    y = np.empty(ids.shape, x.dtype)
    t = np.array([temperature])
    call = TokenLogprobsCall(
        int(x.dtype == np.float64), x.shape[1], None, t.ctypes.data, 0, ids.shape[1],
        ids.ctypes.data, y.ctypes.data,
    )  # fmt: skip
    rows = kernel(impl, "token_logprobs")
    assert rows(ctypes.addressof(call), 0, len(x), x.ctypes.data, None, None) == 0
    return y


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0, 1e-300, INF])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_id_outside_the_row_has_no_log_probability(compiled, dtype, temperature):
    x = np.random.default_rng(0).normal(size=(3, 100)).astype(dtype)
    inside = np.tile(np.array([0, 7, 99]), (3, 1))
    want = token_logprobs(compiled, x, inside, temperature)
    np.testing.assert_array_equal(want, compiled.token_logprobs(x, inside, temperature=temperature))
    outside = inside.copy()
    outside[:, 1] = -1, 100, 2**62
    got = token_logprobs(compiled, x, outside, temperature)
    assert np.isnan(got[:, 1]).all()
    np.testing.assert_array_equal(got[:, [0, 2]], want[:, [0, 2]])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0, 1e-300, INF])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [3, 100, 5000, 40_000])
def test_top_logprobs_in_one_call(compiled, n, dtype, temperature):
    x = np.random.default_rng(n).normal(size=(4, n)).astype(dtype)
    x[1, n // 2] = np.nan
    x[2] = -INF
    for k in (1, 3, min(n, 20)):
        y, indices = np.empty((4, k), dtype), np.empty((4, k), np.int64)
        t = np.array([temperature])
        call = TopLogprobsCall(
            int(dtype == np.float64), n, None, t.ctypes.data, 0, k, y.ctypes.data,
            indices.ctypes.data,
        )  # fmt: skip
        rows = kernel(compiled, "top_logprobs")
        assert rows(ctypes.addressof(call), 0, 4, x.ctypes.data, None, None) == 0
        want = compiled.top_k(x, k).indices
        np.testing.assert_array_equal(indices, want)
        np.testing.assert_array_equal(y, token_logprobs(compiled, x, want, temperature))


@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.9999}, {"log_min_p": -1e6}])
@pytest.mark.parametrize("n", [4, 5000])
def test_quotients_fit_a_type_of_smaller_range(compiled, n, filters):
    """A float16 row in float32: what would be 65504 twice is (x - max) / T instead."""
    x = np.full((2, n), -100, np.float32)
    x[0, :4] = x[1, :4] = 20.25, 19.5, 10, -3
    f = np.array((1e-4, 0, 1.0, -INF, 1), FILTERS)
    for name, value in filters.items():
        f[name] = value
    y = np.empty_like(x)
    memory = np.empty(8 * (n + 5 * 4 * n + 10_000), np.uint8)
    reserve = np.array([memory.ctypes.data, memory.size, 1])  # a Reserve
    spare = np.zeros(3, np.int64)
    reserves = reserve.ctypes.data, spare.ctypes.data
    call = FilterLogitsCall(0, n, None, f.ctypes.data, 0, 0, 65504, *reserves)
    rows = kernel(compiled, "filter_logits")
    assert rows(ctypes.addressof(call), 0, 2, x.ctypes.data, None, y.ctypes.data) == 0
    kept = y > -INF
    assert kept[:, 0].all()
    want = np.maximum((x.astype(float) - 20.25) / 1e-4, -65504)
    np.testing.assert_allclose(y[kept], want[kept], rtol=1e-6)
    if not filters:
        assert kept.all()
    f["temperature"] = 20.25 / 65503  # the first fits, and those below -65504 too where removed
    assert rows(ctypes.addressof(call), 0, 2, x.ctypes.data, None, y.ctypes.data) == 0
    shifted = n > 4 and not {"top_k", "top_p"} & set(filters)
    assert y[0, 0] == (0 if shifted else pytest.approx(65503))


def test_float32_and_float64_quotients_do_not_overflow(compiled):
    x = np.array([3e38, 2.9e38, 1, -3e38], np.float32)
    y = compiled.filter_logits(x, temperature=0.5)
    np.testing.assert_allclose(y, [0, -2e37, -3.4028235e38, -3.4028235e38], rtol=1e-6)
    y = compiled.filter_logits(x.astype(np.float64) * 1e269, temperature=0.1)
    np.testing.assert_allclose(y[:2], [0, -1e307], rtol=1e-6)
    assert y[3] == -np.finfo(np.float64).max
    y = compiled.filter_logits(x, temperature=0.5, top_k=1)
    assert y.tolist() == [0, -INF, -INF, -INF]


# ---- min_p ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.3, 40.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_what_min_p_keeps_to_the_bit(compiled, offset, dtype, temperature):
    """The threshold is where the documented comparison changes, at every number near it."""
    g = np.random.default_rng(1)
    x = (g.normal(size=20_000) + offset).astype(dtype)
    x[0] = x.max() + 1
    for p in (0.5, 0.05, 1e-3, 1e-9, 1.0):
        bound = dtype(float(x[0]) + np.log(p) * temperature)
        for value in (bound, np.nextafter(bound, dtype(INF)), np.nextafter(bound, dtype(-INF)), 0):
            x[7] = value
            d = x.astype(float) - float(x.max())
            kept = d * (1 / temperature) >= np.log(p)
            y = compiled.filter_logits(x, min_p=p, temperature=temperature)
            np.testing.assert_array_equal(y > -INF, kept)
            w = np.where(kept, np.exp(d / temperature), 0)
            ends = np.cumsum(w)
            for u in (0.0, 0.3, 0.7, 1 - 2**-53):
                want = min(np.searchsorted(ends, u * ends[-1], side="right"), kept.nonzero()[0][-1])
                got = compiled.sample(x, min_p=p, temperature=temperature, rng=Uniforms([u]))
                assert got == want


# ---- rows that change meanwhile ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n", [1100, 20_000])
def test_rows_that_another_thread_writes(compiled, n):
    """Results may be wrong; ids and counts are in range, and nothing else is written."""
    g = np.random.default_rng(2)
    kinds = [
        g.normal(size=n), np.zeros(n), np.where(g.random(n) < 0.5, np.nan, 1), np.full(n, -INF),
        np.where(g.random(n) < 0.01, INF, g.normal(size=n)), 1e-42 * g.normal(size=n),
        3 * g.normal(size=n),
    ]  # fmt: skip
    x = np.zeros(n, np.float32)
    ids = np.zeros(64, np.int64)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for kind in kinds:
                x[:] = kind
                ids[:] = np.arange(64)

    thread = threading.Thread(target=write)
    thread.start()
    options = {"on_invalid": "flag", "rng": 0}
    end = time.monotonic() + 0.7
    try:
        while time.monotonic() < end:
            for f in (
                {}, {"top_p": 0.9}, {"top_p": 0.5, "min_p": 1e-3}, {"min_p": 1e-5}, {"top_k": 40},
                {"top_p": 0.9, "min_keep": 50}, {"min_p": 0.5, "min_keep": 300},
            ):  # fmt: skip
                drawn = compiled.sample(x, **f, **options)
                assert -1 <= drawn < n
                many = compiled.sample_with_logprobs(x, size=5, **f, **options).ids
                assert ((-1 <= many) & (many < n)).all()
                found = compiled.support(x, **f)
                assert ((0 <= found.indices) & (found.indices < n)).all()
                assert compiled.filter_logits(x, **f).shape == (n,)
            compiled.filter_logits(x, top_k=40, ties="all")
            compiled.token_logprobs(np.broadcast_to(x, (64, n)), ids)
            compiled.top_logprobs(x, 20)
    finally:
        stop.set()
        thread.join()
