"""top_k and sample on dask arrays: indices and ids do not depend on the chunks."""

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsoftmax import dask as functions
from fastsoftmax import sample, top_k

pytestmark = pytest.mark.best_alone

RNG = np.random.default_rng(5)
TIES = RNG.integers(0, 4, (3, 200)) * np.array([[1.0], [-0.0], [2.5]])
TIES[1, ::7] = np.nan
TIES[2, ::3] = -np.inf


@pytest.mark.parametrize("dtype", ["f4", "i8", "u1", "?", ml_dtypes.bfloat16])
def test_top_k(on_chunks, impl, dtype, pieces):
    """Ties, NaN and k of more than a chunk has, from chunks of any size; axis 0, too."""
    x = np.nan_to_num(TIES, neginf=-9) if np.dtype(dtype).kind in "iu?" else TIES
    x = np.abs(x).astype(dtype) if np.dtype(dtype).kind == "u" else x.astype(dtype)
    modes = ("largest", "smallest")
    for seed, (count, k, mode) in enumerate(zip((1, 9, 12), (3, 40, 200), 2 * modes, strict=False)):
        d = da.from_array(x, chunks=((2, 1), pieces(200, count, seed)))
        same(on_chunks.top_k(d, k, mode=mode), impl.top_k(x, k, mode=mode))
    same(on_chunks.top_k(d, 2, axis=0, mode=mode, sorted=False),
         impl.top_k(x, 2, axis=0, mode=mode, sorted=False))  # fmt: skip


def same(lazy, wanted):
    assert [a.shape for a in lazy] == [a.shape for a in wanted]
    assert [a.dtype for a in lazy] == [a.dtype for a in wanted]
    got = dask.compute(lazy)[0]
    assert type(got) is type(wanted)
    np.testing.assert_array_equal(got.indices, wanted.indices)
    assert got.values.tobytes() == np.ascontiguousarray(wanted.values).tobytes()


@pytest.mark.slow
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
    st.integers(0, 40),
    st.integers(2, 5),
)
def test_top_k_of_any_chunks(values, places, k, split_every):
    """The tree is of any shape, too."""
    x = np.array(values, float)
    k = min(k, x.size)
    sizes = tuple(np.diff([0, *sorted(min(p, x.size) for p in places), x.size]).tolist())
    lazy = functions.top_k(da.from_array(x, chunks=(sizes,)), k, split_every=split_every)
    with dask.config.set(scheduler="synchronous"):
        same(lazy, top_k(x, k))


def test_k_is_none_of_none(on_chunks):
    x = da.zeros((3, 7), chunks=2)
    values, indices = dask.compute(*on_chunks.top_k(x, 0))
    assert values.shape == indices.shape == (3, 0)


# ---- draws ---------------------------------------------------------------------------------------

LOGITS = (RNG.standard_normal((4, 700)) * 3).astype(np.float32)
POSITION = np.arange(4)


SLOW = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("f8", "f2", "i4")]


@pytest.mark.parametrize("dtype", ["f4", *SLOW])
@pytest.mark.parametrize("shift", [0, -5000])
def test_a_race_in_parts(on_chunks, impl, dtype, shift, pieces):
    """From chunks that begin anywhere, at any temperature, absolute scores or not."""
    x = (LOGITS + shift).astype(dtype)
    temperatures = (1.0, 0, 0.02, np.inf, np.array([0, 0.5, 1, 9]))
    for seed, temperature in enumerate(temperatures):
        for count in (1, 7):
            d = da.from_array(x, chunks=((1, 3), pieces(700, count, seed)))
            arguments = {"seed": [1, 2, 3, -4], "position": POSITION, "temperature": temperature}
            lazy = on_chunks.sample(d, **arguments)
            assert lazy.shape == (4,)
            assert lazy.dtype == np.int64
            wanted = impl.sample(x, method="race", **arguments)
            np.testing.assert_array_equal(lazy.compute(), wanted)


def test_the_lower_id_wins_among_equals(on_chunks):
    x = da.from_array(np.array([[0, 2, 1, 2, 2], [3, 3, 3, 3, 3.0]]), chunks=(1, 2))
    ids = on_chunks.sample(x, seed=1, position=2, temperature=0).compute()
    assert ids.tolist() == [1, 0]


@pytest.mark.slow
@given(
    st.integers(1, 3000),
    st.lists(st.integers(0, 3000), max_size=6),
    st.integers(0, 2**64 - 1),
    st.sampled_from([1.0, 0, 0.3, 1e-3]),
)
def test_a_race_of_any_chunks(n, places, seed, temperature):
    x = np.random.default_rng(n).integers(-9, 9, n).astype(float)
    sizes = tuple(np.diff([0, *sorted(min(p, n) for p in places), n]).tolist())
    arguments = {"seed": seed, "position": 3, "temperature": temperature}
    with dask.config.set(scheduler="synchronous"):
        drawn = functions.sample(da.from_array(x, chunks=(sizes,)), **arguments).compute()
    assert drawn == sample(x, method="race", **arguments)


def test_filters_of_whole_rows(on_chunks, impl):
    d = da.from_array(LOGITS, chunks=(2, -1))
    parameters = {"top_k": [1, 5, 9, 0], "top_p": 0.9, "temperature": 0.8, "min_keep": 2}
    for more in (
        {"method": "race"},
        {"method": "inverse", "size": 3},
        {"method": "race", "size": 2},
    ):
        arguments = {"seed": 4, "position": POSITION, **parameters, **more}
        lazy = on_chunks.sample(d, **arguments)
        wanted = impl.sample(LOGITS, **arguments)
        assert lazy.shape == wanted.shape
        np.testing.assert_array_equal(lazy.compute(), wanted)


@pytest.mark.parametrize("size", [700, 300])
def test_invalid_rows(on_chunks, size):
    x = np.stack([LOGITS] * 2)
    x[0, 3, 650], x[1, 1], x[1, 2, 5] = np.nan, -np.inf, np.inf
    d = da.from_array(x, chunks=(1, 2, size))
    draw = {"seed": 1, "position": np.arange(8).reshape(2, 4)}
    ids = on_chunks.sample(d, on_invalid="flag", **draw).compute()
    assert (ids == -1).tolist() == [[False, False, False, True], [False, True, True, False]]
    for i, why in (((0, 3), "NaN"), ((1, 1), "nothing above -inf"), ((1, 2), "+inf")):
        lazy = on_chunks.sample(d, **draw)[i]
        with pytest.raises(ValueError, match="logits has") as error:
            lazy.compute()
        assert f"{why} in row {i}" in str(error.value)
