"""Graphs: lazy, of few tasks, with the right shapes; arguments that are wrong; plain functions."""

import doctest

import dask
import dask.array as da
import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import dask as functions
from tests.calls import CALLS
from tests.processes import output

CALLS_OF_CHUNKS = {
    "softmax": lambda x: functions.softmax(x, temperature=np.ones(x.shape[0])),
    "softmax where": lambda x: functions.softmax(x, where=x > 0),
    "log_softmax": functions.log_softmax,
    "logsumexp": functions.logsumexp,
    "top_k": lambda x: functions.top_k(x, 2),
    "sample": lambda x: functions.sample(x, seed=1, position=np.arange(x.shape[0])),
    "cross_entropy": lambda x: functions.cross_entropy(x, np.zeros(x.shape[0], int)),
}


@pytest.mark.best_alone
@pytest.mark.parametrize("size", [9, 4])
@pytest.mark.parametrize("name", CALLS_OF_CHUNKS)
def test_nothing_is_computed(never, name, size):
    """And what shape, chunks and type a result is said to have, it has."""
    lazy = CALLS_OF_CHUNKS[name](never((6, 9), (4, size)))
    real = CALLS_OF_CHUNKS[name](da.zeros((6, 9), chunks=(4, size), dtype=np.float32))
    pairs = zip(lazy, real, strict=True) if name == "top_k" else [(lazy, real)]
    for a, b in pairs:
        assert (a.shape, a.chunks, a.dtype) == (b.shape, b.chunks, b.dtype)
        for i in np.ndindex(b.numblocks):
            block = np.asarray((b.blocks[i] if i else b).compute())
            assert block.dtype == b.dtype
            assert block.shape == tuple(c[j] for c, j in zip(b.chunks, i, strict=True))


def tasks(x):
    """Return how many calls the scheduler makes for an array."""
    (optimized,) = dask.optimize(x)
    return sum(type(task).__name__ != "Alias" for task in optimized.__dask_graph__().values())


def test_chunks_of_whole_rows_are_fused():
    """One task a chunk, with what comes before and behind."""
    x = da.ones((8, 9), chunks=(2, 9)) * 3
    assert tasks(functions.softmax(x) + 1) == tasks(x + 1) == 4
    assert tasks(functions.logsumexp(x)) == 4


def test_a_split_row_costs_two_tasks_a_chunk_and_a_tree():
    x = da.ones((2, 80), chunks=(2, 10))
    assert tasks(functions.softmax(x)) == 8 + 8 + 1 + 8  # chunks, sums, tree, results


def test_unknown_sizes():
    """Of chunks of rows, everywhere; along the rows, where no index is asked for."""
    whole = np.arange(60.0).reshape(6, 10)
    x = da.from_array(whole, chunks=(2, 5))
    rows = x[da.from_array(whole[:, 0] > 15, chunks=2)]
    kept = whole[whole[:, 0] > 15]
    np.testing.assert_allclose(functions.softmax(rows).compute(), fastsoftmax.softmax(kept))
    found = dask.compute(functions.top_k(rows, 2))[0]
    np.testing.assert_array_equal(found.indices, fastsoftmax.top_k(kept, 2).indices)
    drawn = functions.sample(rows, seed=1, position=0).compute()
    assert (drawn == fastsoftmax.sample(kept, seed=1, position=0, method="race")).all()
    columns = x[:, da.from_array(np.arange(10) > 3, chunks=5)]
    np.testing.assert_allclose(
        functions.logsumexp(columns).compute(), fastsoftmax.logsumexp(whole[:, 4:])
    )
    with pytest.raises(ValueError, match=r"x has chunks of unknown sizes along axis 1; call"):
        functions.top_k(columns, 1)
    with pytest.raises(ValueError, match=r"logits has chunks of unknown sizes along axis 1"):
        functions.sample(columns, seed=1, position=0)


X = da.zeros((4, 6), chunks=(2, 3))
WRONG = [
    (lambda: functions.softmax(np.zeros(3)), TypeError, "x is array.* allowed is a dask.array"),
    (lambda: functions.softmax(X.astype(complex)), TypeError, "x has dtype complex128"),
    (lambda: functions.softmax(X, 2), np.exceptions.AxisError, "axis 2"),
    (lambda: functions.softmax(X, temperature=-1), ValueError, "temperature is -1"),
    (lambda: functions.softmax(X, temperature=0), ValueError, "temperature is 0.0; .*1e-30 to"),
    (lambda: functions.softmax(X, temperature=[1, 2]), ValueError, "temperature has shape"),
    (lambda: functions.softmax(X, where=np.ones((4, 5), bool)), ValueError, "where has shape"),
    (lambda: functions.softmax(X, where=X), TypeError, "where has dtype float64; allowed is bool"),
    (lambda: functions.logsumexp(X, keepdims=1), TypeError, "keepdims is 1"),
    (lambda: functions.top_k(X, 7), ValueError, "k is 7; allowed is 0 to 6"),
    (lambda: functions.top_k(X, 2, mode="most"), ValueError, "mode is 'most'"),
    (lambda: functions.sample(X, seed=1, position=0, top_k=5), ValueError, "top_k is 5; .*rechunk"),
    (lambda: functions.sample(X, seed=1, position=0, size=5), ValueError, "size is 5; .*rechunk"),
    (lambda: functions.sample(X, seed=1, position=0, method="inverse"), ValueError, "method is 'i"),
    (lambda: functions.sample(X, seed=1.5, position=0), TypeError, "seed is 1.5"),
    (lambda: functions.cross_entropy(X, [0, 1]), ValueError, r"targets has shape \(2,\)"),
    (lambda: functions.cross_entropy(X, [True] * 4), TypeError, "targets has dtype bool"),
    (lambda: functions.cross_entropy(X, [0] * 4, weight=[1]), ValueError, "weight has shape"),
    (lambda: functions.cross_entropy(X, X, ignore_index=1), ValueError, "ignore_index is 1"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_what_is_wrong_is_told_before_anything_is_computed(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_temperature_that_is_computed_is_checked_then():
    for bad in (0.0, -1.0, np.nan):
        lazy = functions.softmax(X, temperature=da.full(4, bad, chunks=2))
        with pytest.raises(ValueError, match="temperature is"):
            lazy.compute(scheduler="synchronous")


#: Those whose array goes through no other function of NumPy before, and does not go on to SciPy.
ONE_ARRAY = [name for name in CALLS if not name.startswith(("verify", "beam", "scipy."))]


@pytest.mark.parametrize("name", ONE_ARRAY)
def test_plain_functions_say_where_dask_arrays_go(never_small, impl, name):
    """They never convert them without a word."""
    with pytest.raises(TypeError, match=r"that is yet to be computed; fastsoftmax\.dask"):
        CALLS[name](impl, never_small)


@pytest.mark.parametrize(
    "call",
    [
        lambda f, y: f.softmax(np.zeros((4, 6)), temperature=y[:, 0]),
        lambda f, y: f.softmax(np.zeros((4, 6)), where=y.astype(bool)),
        lambda f, y: f.cross_entropy(np.zeros((4, 6)), y[:, 0].astype(int)),
        lambda f, y: f.cross_entropy(np.zeros((4, 6)), [0] * 4, weight=y[0]),
        lambda f, y: f.sample(np.zeros((4, 6)), top_p=y[:, 0]),
        lambda f, y: f.sample(np.zeros((4, 6)), mask=y.astype(bool)),
        lambda f, y: f.sample(np.zeros((4, 6)), seed=y[:, 0].astype(int), position=0),
        lambda f, y: f.rank(np.zeros((4, 6)), y[:, 0].astype(int)),
        lambda f, y: f.verify(np.zeros((4, 2), int), y[:, None], seed=1, position=1),
        lambda f, y: f.beam_step(y, np.zeros(4), 2),
    ],
)
def test_so_do_their_other_arguments(never_small, impl, call):
    with pytest.raises(TypeError, match=r"fastsoftmax\.dask has functions"):
        call(impl, never_small)


@pytest.mark.slow
def test_dask_is_imported_when_asked_for():
    code = """
import sys, fastsoftmax
print('dask' in sys.modules)
sys.modules['dask'] = None
try:
    import fastsoftmax.dask
except ImportError as error:
    print("pip install 'fastsoftmax[dask]'" in str(error))
"""
    assert output(code) == ["False", "True"]


def test_the_examples_of_the_docstrings():
    for module in (functions.sums, functions.selection):
        failed, tried = doctest.testmod(module)
        assert failed == 0
        assert tried > 0
