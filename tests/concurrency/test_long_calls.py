"""Calls that take long: signals get through within blocks and columns, indices have 64 bits."""

import signal
import time

import numpy as np
import pytest

HUGE = 2**31 + 33


class StopError(Exception):
    """Raised by the signal handler."""


def time_to_stop(call, after):
    """Return how long `call` took, whose signal handler raises `after` some seconds."""

    def stop(*_):
        raise StopError

    def call_with_timer():  # on a busy machine the signal may come before the call
        signal.setitimer(signal.ITIMER_REAL, after)
        call()

    before = signal.signal(signal.SIGALRM, stop)
    try:
        start = time.perf_counter()
        with pytest.raises(StopError):
            call_with_timer()
        return time.perf_counter() - start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def assert_stops_on_the_way(call):
    """Assert that a signal takes effect before half of the time that the call takes."""
    start = time.perf_counter()
    call()
    whole = time.perf_counter() - start
    assert time_to_stop(call, 0.01) < whole / 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_signal_gets_through_one_long_panel(compiled):
    x = np.zeros((1 << 24, 8), dtype=np.float32)  # nobody has written them: they take no memory
    assert_stops_on_the_way(lambda: compiled.logsumexp(x, axis=0))


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("layout", ["rows that repeat", "short rows", "columns", "halves"])
def test_a_signal_gets_through_blocks(compiled, layout):
    zeros = np.zeros((1 << 19, 512), dtype=np.float32)  # nobody has written them
    x = {
        "rows that repeat": np.broadcast_to(zeros[0].repeat(8), (1 << 16, 4096)),
        "short rows": zeros[:, :500],
        "columns": zeros.reshape(1 << 12, 1 << 16)[:, 1:].T,
        "halves": zeros.view(np.float16)[:, :512],
    }[layout]
    assert_stops_on_the_way(lambda: compiled.logsumexp(x))


@pytest.mark.best_alone
@pytest.mark.slow
def test_a_row_of_more_than_2_to_the_31(compiled):
    # Zeros that nobody has written take no memory.
    x = np.zeros(HUGE, dtype=np.float32)
    assert compiled.logsumexp(x) == np.float32(np.log(HUGE))
    x[HUGE - 2] = 30
    assert compiled.top_k(x, 1).indices.tolist() == [HUGE - 2]
    assert compiled.sample(x, top_k=1, rng=0) == HUGE - 2
