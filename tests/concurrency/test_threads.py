"""workers=: the same bits from any number of threads, and what the argument may be."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _threads, get_workers, set_workers
from fastsoftmax._front import long_row
from tests.concurrency.workers import CALLS, bits, targets
from tests.processes import output

CPUS = _threads.cpus_to_use()
WORKERS = (2, 3, -1)


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_same_bits(compiled, many, divided, name):
    one = bits(CALLS[name](compiled, many))
    assert not divided, "one worker is the default"
    for workers in (1, *WORKERS):
        assert bits(CALLS[name](compiled, many, workers=workers)) == one
        assert bool(divided) == (workers != 1 and (workers > 0 or CPUS > 1))
        if divided:
            assert sum(rows for _, rows in divided) == len(many)
        divided.clear()
    with set_workers(3):
        assert bits(CALLS[name](compiled, many)) == one
    assert divided


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(0, 5), (1, 40), (2, 300_000), (3, 0), (2, 1, 3, 40)])
def test_same_bits_of_few_rows(impl, name, shape):
    if impl.NAME == "reference" and np.prod(shape) > 1000:
        shape = (*shape[:-1], 1000)
    if 0 in shape and name in ("cross_entropy", "cross_entropy_with_grad") and shape[-1] == 0:
        pytest.skip("no target is in range")
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    one = bits(CALLS[name](impl, x))
    for workers in WORKERS:
        assert bits(CALLS[name](impl, x, workers=workers)) == one


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, "bfloat16"])
def test_same_bits_of_other_dtypes(compiled, many, divided, name, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    with np.errstate(all="ignore"):
        x = many.astype(dtype)
    assert bits(CALLS[name](compiled, x, workers=2)) == bits(CALLS[name](compiled, x))
    # The losses copy half types piece by piece, in one thread.
    assert divided or ("cross" in name and dtype != np.float64)


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_same_bits_of_strided_rows(compiled, many, divided, name):
    for x in (many[::-2], many[:, ::-1], many.reshape(2, 1500, 1000).swapaxes(0, 1)):
        assert bits(CALLS[name](compiled, x, workers=2)) == bits(CALLS[name](compiled, x))


def test_same_bits_along_other_axes_and_with_where(compiled, many, divided):
    where = np.arange(1000) % 3 > 0
    for how in ({"axis": 0}, {"axis": None}, {"where": where}, {"where": where, "axis": 0}):
        one = compiled.softmax(many, **how)
        assert compiled.softmax(many, workers=2, **how).tobytes() == one.tobytes()
    assert divided


def test_same_bits_with_a_temperature_for_each_row(compiled, many, divided):
    t = np.random.default_rng(2).uniform(0, 2, len(many))
    t[:5] = 0, 1, np.inf, 1e-30, 0.5
    one = compiled.softmax(many, temperature=t)
    assert compiled.softmax(many, temperature=t, workers=2).tobytes() == one.tobytes()
    assert divided


def test_same_bits_in_place_and_into_out(compiled, many, divided):
    one = compiled.softmax(many)
    y = many.copy()
    assert compiled.softmax(y, out=y, workers=2) is y
    assert y.tobytes() == one.tobytes()
    y = np.zeros((6000, 1000), dtype=np.float32)[::2]
    compiled.softmax(many, out=y, workers=2)
    assert y.tobytes() == one.tobytes()
    grad = compiled.cross_entropy_with_grad(many, targets(many)).grad
    y = many.copy()
    compiled.cross_entropy_with_grad(y, targets(many), out=y, workers=2)
    assert y.tobytes() == grad.tobytes()
    assert len(divided) >= 6


@pytest.mark.best_alone
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2_000_003, 1_003_520, 1_003_521])
def test_same_bits_of_a_long_row(compiled, divided, monkeypatch, dtype, n):
    shared = []
    share = long_row.share
    monkeypatch.setattr(
        long_row, "share", lambda call, *how: shared.append(how) or share(call, how[0], 1e7, 3)
    )
    x = (np.random.default_rng(3).standard_normal((2, n)) * 4).astype(dtype)
    x[1, -1] = x[1, 5] = 30  # two largest, in the first block and in the last one
    x[1, 7] = -np.inf
    x = np.concatenate([x] * (1 if dtype == np.float64 or n > 2_000_000 else 2), axis=1)
    for t in (1.0, 0.3, [2.0, 0.7], 0.0, np.inf):
        in_parts = t != 0 and t != np.inf
        for function in (compiled.softmax, compiled.log_softmax):
            one = function(x, temperature=t)
            shared.clear()
            assert function(x, temperature=t, workers=2).tobytes() == one.tobytes()
            assert bool(shared) == in_parts
            y = x.copy()
            function(y, temperature=t, out=y, workers=2)
            assert y.tobytes() == one.tobytes()
            assert bool(divided) != in_parts, "whole rows are shared out, or parts of each"
            divided.clear()
    shared.clear()
    assert compiled.logsumexp(x, workers=2).tobytes() == compiled.logsumexp(x).tobytes()
    assert shared
    assert not divided, "the rows are not shared out"


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_long_row_without_probabilities(compiled, special):
    x = np.zeros(3_000_000, dtype=np.float32)
    x[1_234_567] = special
    if special == -np.inf:
        x[:] = special
    for function in (compiled.softmax, compiled.log_softmax, compiled.logsumexp):
        np.testing.assert_array_equal(function(x, workers=2), function(x))


def test_little_work_is_not_shared(compiled, divided):
    x = np.ones((30, 1000), dtype=np.float32)
    for call in CALLS.values():
        call(compiled, x, workers=2)
    assert not divided


# ---- the argument --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [0, -CPUS - 1, 1.0, "2", True])
def test_bad_numbers_are_named(impl, name, bad):
    x = np.ones((2, 3))
    error = ValueError if type(bad) is int else TypeError
    with pytest.raises(error, match=rf"workers is {bad!r}; allowed are .*1 and above.*-{CPUS}"):
        CALLS[name](impl, x, workers=bad)
    out = np.full((2, 3), 7.0)
    with pytest.raises(error):
        impl.softmax(x, out=out, workers=bad)
    assert (out == 7).all()
    with pytest.raises(error, match=f"workers is {bad!r}"), set_workers(bad):
        pass


def test_negative_numbers_count_from_the_cpus(impl):
    assert [_threads.count(n) for n in (1, CPUS, -1, -CPUS, np.int8(5))] == [1, CPUS, CPUS, 1, 5]
    assert impl.softmax([0.0, 0.0], workers=np.int64(-1)).tolist() == [0.5, 0.5]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_negative_numbers_count_the_cpus_that_the_process_may_use():
    code = (
        "import os\nfrom fastsoftmax import get_workers, set_workers\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "with set_workers(-1):\n    print(get_workers())"
    )
    assert output(code) == ["1"]


def test_set_workers_nests_and_ends():
    assert get_workers() == 1
    with set_workers(3):
        with set_workers(-1):
            assert get_workers() == CPUS
        assert get_workers() == 3
        with pytest.raises(KeyError), set_workers(2):
            raise KeyError
        assert get_workers() == 3
    assert get_workers() == 1
    with pytest.raises(TypeError, match="workers is None"), set_workers(None):
        pass


def test_set_workers_holds_in_its_thread_and_task_alone():
    with set_workers(3), ThreadPoolExecutor(1) as pool:
        assert pool.submit(get_workers).result() == 1

    async def task(n):
        with set_workers(n):
            await asyncio.sleep(0.01)
            return get_workers()

    async def both():
        return await asyncio.gather(task(2), task(5))

    assert asyncio.run(both()) == [2, 5]
    assert get_workers() == 1


def test_a_block_may_be_entered_again():
    few, many = set_workers(2), set_workers(5)
    assert get_workers() == 1
    for _ in range(2):
        with few:  # not the latest one made
            assert get_workers() == 2
            with many, few, few:  # inside itself
                assert get_workers() == 2
            assert get_workers() == 2
        assert get_workers() == 1


def test_a_block_may_be_entered_by_several_at_once():
    block = set_workers(3)

    def enter():
        with block:
            return get_workers()

    async def task():
        with block:
            await asyncio.sleep(0)
            return get_workers()

    async def tasks():
        return [*await asyncio.gather(task(), task()), get_workers()]

    assert asyncio.run(tasks()) == [3, 3, 1]
    with block, ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result(timeout=60) == 3
    assert get_workers() == 1


def test_a_block_that_a_generator_left_late():
    def inside():
        with set_workers(2):
            yield

    generator = inside()
    next(generator)
    with set_workers(5):
        generator.close()
        assert get_workers() == 5
    assert get_workers() == 1
    set_workers(2).__exit__(None, None, None)  # not entered


# ---- threads and forks ---------------------------------------------------------------------------


def test_many_callers_at_once(compiled, many):
    one = compiled.softmax(many)

    def call(workers):
        return all(
            compiled.softmax(many, workers=workers).tobytes() == one.tobytes() for _ in range(5)
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, (1, 2, 3, 4, 2, 3), timeout=60))


def test_a_helper_that_comes_late_finds_nothing():
    shared = _threads._Shared(lambda *_: pytest.fail("called"), 10, 1e9, 2)
    shared._start = 10
    shared.close()
    shared.help()
    shared = _threads._Shared(lambda *_: pytest.fail("called"), 10, 1e9, 2)
    shared.close()  # after an error
    shared.help()


def test_no_thread_to_be_had(compiled, many, monkeypatch):
    def start_new_thread(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads, "_pools", {})
    monkeypatch.setattr(_threads, "start_new_thread", start_new_thread)
    assert compiled.softmax(many, workers=3).tobytes() == compiled.softmax(many).tobytes()


def test_nothing_of_a_call_is_kept(compiled, many):
    x, y = many.copy(), np.empty_like(many)
    before = sys.getrefcount(x), sys.getrefcount(y)
    for _ in range(20):
        compiled.softmax(x, out=y, workers=2)
    assert (sys.getrefcount(x), sys.getrefcount(y)) == before


def test_public_names():
    assert fastsoftmax.set_workers is set_workers
    assert fastsoftmax.get_workers is get_workers
