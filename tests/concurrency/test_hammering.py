"""Many threads in every function at once, with arrays of their own and with one for all."""

import threading

import numpy as np
import pytest

from fastsoftmax import steps
from tests.calls import CALLS, bits

THREADS = 8


def at_once(work):
    """Run ``work(i)`` in THREADS threads that start together; raise the first error of any."""
    barrier, errors = threading.Barrier(THREADS), []

    def run(i):
        try:
            barrier.wait(30)
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def numbers(i, dtype):
    x = np.random.default_rng(i).standard_normal((5, 97)) * 3
    return x.astype(np.float32).astype(dtype)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_same_bits_as_alone(impl, name):
    call = CALLS[name]
    dtypes = ("f4", "f2", "f8", "i2")
    shared = numbers(100, "f4")
    own = [numbers(i, dtypes[i % 4]) for i in range(THREADS)]
    want = bits(call(impl, shared)), [bits(call(impl, x)) for x in own]
    times = 2 if impl.NAME == "reference" else 8

    def work(i):
        for _ in range(times):
            assert bits(call(impl, shared)) == want[0]
            assert bits(call(impl, own[i])) == want[1][i]

    at_once(work)


def test_parameters_do_not_meet(compiled):
    """What a call remembers of its parameters is not another thread's."""
    x = numbers(0, "f4")
    min_p = [0.01 * (i + 1) for i in range(THREADS)]
    want = [compiled.filter_logits(x, min_p=p).tobytes() for p in min_p]

    def work(i):
        for _ in range(400):
            assert compiled.filter_logits(x, min_p=min_p[i]).tobytes() == want[i]

    at_once(work)


def test_a_sampler_for_all():
    from fastsoftmax import Sampler

    sampler = Sampler(steps.Temperature(0.7), steps.TopK(20), steps.TopP(0.9))
    x = numbers(1, "f4")
    want = sampler(x, rng=5).tolist()

    def work(_):
        for _ in range(10):
            assert sampler(x, rng=5).tolist() == want

    at_once(work)


def test_workers_from_many_callers(compiled):
    x = np.random.default_rng(0).standard_normal((600, 1000), dtype=np.float32)
    want = compiled.softmax(x, temperature=0.7).tobytes()

    def work(i):
        for _ in range(3):
            assert compiled.softmax(x, temperature=0.7, workers=2 + i % 3).tobytes() == want

    at_once(work)
