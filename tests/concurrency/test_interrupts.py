"""Ctrl-C in every function within a second, told by shares of the work: of rows, and within one."""

import gc
import signal
import threading
import time

import numpy as np
import pytest

from fastsoftmax import _threads, get_workers, set_workers, show_config
from tests import modules
from tests.calls import CALLS, codes
from tests.concurrency.looks import longest_without

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")


@pytest.fixture(scope="module")
def rows():
    """Eight million elements: four times what is worked on between two looks."""
    few = np.random.default_rng(0).standard_normal((32, 4096), dtype=np.float32)
    return np.tile(few, (64, 1))


@pytest.mark.best_alone
@pytest.mark.slow_modules
@pytest.mark.parametrize("name", CALLS)
def test_between_rows(compiled, rows, name, monkeypatch):
    if name.startswith("quantized."):  # whose codes are worked on by 16 M
        rows = codes(rows)
        monkeypatch.setattr(modules.of(compiled).quantized, "_CALL", 1 << 21)
    CALLS[name](compiled, rows[:2])
    shares = []
    for _ in range(3):  # the machine may be busy
        share, _ = longest_without(lambda: CALLS[name](compiled, rows))
        shares.append(share)
        if share < 0.7:
            return
    pytest.fail(f"no look for signals during {min(shares):.0%} of the call")


def normal(n, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(n, dtype=np.float32).astype(dtype)


#: Work on one row that is more than a pass or two over it, and grows beyond a second.
WITHIN_A_ROW = {
    "sample replace=False": (
        1 << 17,
        "f4",
        lambda f, x: f.sample(x, size=x.size, replace=False, rng=0),
    ),
    "sample few replace=False": (
        1 << 24,
        "f4",
        lambda f, x: f.sample(x, size=x.size >> 12, replace=False, rng=0),
    ),
    "sample size": (100, "f4", lambda f, x: f.sample(x, size=1 << 21, rng=0)),
    "top_k sorted": (1 << 22, "f4", lambda f, x: f.top_k(x, x.size)),
    "top_k": (1 << 23, "f4", lambda f, x: f.top_k(x, x.size // 4, sorted=False)),
    "rank": (1 << 22, "f4", lambda f, x: f.rank(x, np.arange(600))),
    "filter_logits top_k": (1 << 23, "f4", lambda f, x: f.filter_logits(x, top_k=x.size // 2)),
    "support": (1 << 22, "f4", lambda f, x: f.support(x)),
    "softmax of float16": (1 << 24, "f2", lambda f, x: f.softmax(x)),
    "top_k of float16": (1 << 25, "f2", lambda f, x: f.top_k(x, 100)),
}


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("name", WITHIN_A_ROW)
def test_within_a_row(compiled, name):
    n, dtype, call = WITHIN_A_ROW[name]
    x = normal(n, dtype)
    assert min(longest_without(lambda: call(compiled, x))[0] for _ in range(3)) < 0.7


def test_rank_of_many_ids_takes_a_sort(compiled):
    """Four times the ids of four times the elements: not sixteen times the work."""

    def took(n):
        x, ids = normal(n), np.arange(n)
        times = []
        for _ in range(3):
            start = time.thread_time()
            compiled.rank(x, ids)
            times.append(time.thread_time() - start)
        return min(times)

    assert took(1 << 16) < 10 * took(1 << 14)


def test_rank_is_the_same_by_a_sort(impl):
    x = normal(2000).round(1)
    x[5], x[17], x[18], x[3] = np.nan, np.nan, -np.inf, np.inf
    ids = np.resize(np.arange(2000), 2500)
    want = np.concatenate([impl.rank(x, part) for part in np.split(ids, 10)])
    np.testing.assert_array_equal(impl.rank(x, ids), want)
    order = np.empty(2000, np.int64)
    order[impl.top_k(x, 2000).indices] = np.arange(2000)
    np.testing.assert_array_equal(want[:2000], order)


class StopError(Exception):
    """Raised by the signal handler, or on purpose."""


def test_an_error_interrupts_who_helps(compiled):
    """A thread that works on one long row ends early once the caller has failed."""
    caller, begun, ends = threading.current_thread(), threading.Event(), []
    x = normal(1 << 21)

    def call(start, stop):
        if threading.current_thread() is caller:
            begun.wait(10)
            raise StopError
        begun.set()
        for _ in range(20):
            try:
                compiled.top_k(x, x.size)
            except _threads.StoppedError:
                ends.append(start)
                raise

    with pytest.raises(StopError):
        _threads.share(call, 2, 1.0, 2)
    assert ends


def test_results_after_an_interrupt(compiled):
    """Nothing is left of it: the next call gives what it gives, and raises nothing."""
    x = normal(1 << 21)
    want = compiled.top_k(x, x.size).indices.tobytes()

    def stop(*_):
        raise StopError

    before = signal.signal(signal.SIGALRM, stop)

    def call_until_the_signal(delay):
        signal.setitimer(signal.ITIMER_REAL, delay)
        for _ in range(50):
            compiled.top_k(x, x.size)

    try:
        for delay in (0.005, 0.03, 0.06):
            with pytest.raises(StopError):
                call_until_the_signal(delay)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert compiled.top_k(x, x.size).indices.tobytes() == want


def test_no_number_of_workers_is_left_set():
    """Wherever in a block's beginning or end the handler raises, and while its error is kept."""
    if not show_config(mode="dicts")["built"]:
        pytest.skip("blocks that are not compiled can be interrupted")
    errors = []

    def stop(*_):
        raise StopError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        gc.disable()  # an error raised in one of its callbacks is lost
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4)
                for _ in range(10_000):
                    with set_workers(3):
                        pass
            except StopError as error:
                errors.append(error)
                assert get_workers() == 1
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(errors) > 10
