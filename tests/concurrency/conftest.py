"""Fixtures that tests of threads share."""

import threading

import numpy as np
import pytest

from fastsoftmax import _threads


@pytest.fixture
def divided(monkeypatch):
    """All that has two rows is shared, in blocks of a row or few; yields the blocks as taken."""
    blocks = []
    share = _threads.share

    def spy(call, size, work, threads):
        def noted(start, stop):
            blocks.append((threading.current_thread().name, stop - start))
            call(start, stop)

        share(noted, size, 1e9, threads)

    monkeypatch.setattr(_threads, "share", spy)
    return blocks


@pytest.fixture(scope="module")
def many():
    """Rows that are worth sharing."""
    x = np.random.default_rng(0).standard_normal((3000, 1000), dtype=np.float32) * 4
    x[7, 3], x[11], x[12, 5], x[13] = np.nan, -np.inf, np.inf, 0
    return x
