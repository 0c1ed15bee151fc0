"""Chunks, and the implementation that works on them."""

import dask
import dask.array as da
import numpy as np
import pytest

from fastsoftmax import dask as functions
from fastsoftmax.dask import chunk_losses, chunks


@pytest.fixture(autouse=True)
def scheduler():
    """Chunks are worked on by this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def on_chunks(impl, monkeypatch):
    """`fastsoftmax.dask` with each implementation in turn."""
    for module in (chunks, chunk_losses):
        monkeypatch.setattr(module, "active", impl)
    return functions


@pytest.fixture(scope="session")
def never():
    """Return arrays like one whose chunks must not be computed."""

    def fail(block):
        raise AssertionError("a chunk was computed")

    def make(shape, chunks, dtype=np.float32):
        x = da.zeros(shape, chunks=chunks, dtype=dtype)
        return x.map_blocks(fail, dtype=dtype, meta=np.empty((0,) * len(shape), dtype))

    return make


@pytest.fixture(scope="session")
def never_small(never):
    """Return a small array whose chunks must not be computed."""
    return never((4, 6), (2, 3))


@pytest.fixture(scope="session")
def pieces():
    """Return a function that cuts an axis of n into chunks at random places, some of them empty."""

    def cut(n, count, seed):
        places = np.sort(np.random.default_rng(seed).integers(0, n + 1, count - 1))
        return tuple(int(size) for size in np.diff([0, *places, n]))

    return cut
