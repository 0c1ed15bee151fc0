"""No kernel reads or writes beyond a row, at the end of a page or while another thread writes."""

import sys

import pytest

from tests.processes import output

GUARDED = """
import ctypes, mmap
import numpy as np
from fastsoftmax import _dispatch

impl = _dispatch.load({name!r})
libc = ctypes.CDLL(None, use_errno=True)
page, pages = mmap.PAGESIZE, 20
memory = mmap.mmap(-1, (pages + 1) * page)
room = np.frombuffer(memory, dtype=np.uint8)
start = room.ctypes.data
assert libc.mprotect(ctypes.c_void_p(start + pages * page), page, 0) == 0

def at_the_end(x):
    place = room[pages * page - x.nbytes : pages * page].view(x.dtype).reshape(x.shape)
    place[...] = x
    return place

rng = np.random.default_rng(0)
for dtype in ("f4", "f8"):
    for n in (1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 255, 256, 257, 511, 513, 2047, 2049, 8191):
        for x in (rng.normal(size=n), np.zeros(n), np.full(n, -np.inf), np.full(n, np.nan)):
            x = at_the_end(x.astype(dtype))
            for k in {{0, 1, n // 65, n // 20, n // 2, n}}:
                impl.top_k(x, k)
                impl.top_k(x, k, mode="smallest")
                for more in ({{}}, {{"top_p": 0.9}}, {{"min_p": 0.1}}, {{"temperature": 0}}):
                    impl.sample(x, top_k=k, rng=0, on_invalid="flag", **more)
                    impl.sample_with_logprobs(x, top_k=k, rng=0, on_invalid="flag", **more)
                    impl.filter_logits(x, top_k=k, ties="all", **more)
                    impl.support(x, top_k=k, **more)
            impl.token_logprobs(x, [0, n - 1])
            impl.rank(x, [0, n - 1])
            impl.filter_logits(x, top_p=0.9, out=x)
print("survived")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_rows_at_the_end_of_a_page(impl):
    if impl.NAME == "reference":
        pytest.skip("is NumPy")
    assert output(GUARDED.format(name=impl.NAME), impl="reference") == ["survived"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_the_guard_catches_a_read_too_many():
    code = GUARDED.format(name="reference").split("rng =")[0]
    code += "x = at_the_end(np.zeros(4)); ctypes.string_at(x.ctypes.data + x.nbytes, 1)"
    with pytest.raises(AssertionError):
        output(code, impl="reference")


COLUMNS = """
for dtype in ("f4", "f8"):
    for shape in ((1, 3, 8), (1, 33, 17), (2, 5, 100), (9, 7, 5), (40, 9, 7), (1, 2, 300)):
        x = rng.normal(size=shape).astype(dtype)
        place = at_the_end(x)
        impl.logsumexp(place, axis=1)
        for function in (impl.softmax, impl.log_softmax):
            for temperature in (1.0, 0.7):
                expected = function(x, axis=1, temperature=temperature)
                assert (function(at_the_end(x), axis=1, temperature=temperature) == expected).all()
                function(x, axis=1, temperature=temperature, out=place)
                assert (place == expected).all()
                function(at_the_end(x), axis=1, temperature=temperature, out=place)
                assert (place == expected).all()
print("survived")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_columns_at_the_end_of_a_page(impl):
    if impl.NAME == "reference":
        pytest.skip("is NumPy")
    code = GUARDED.format(name=impl.NAME).split("for dtype")[0] + COLUMNS
    assert output(code, impl="reference") == ["survived"]


MUTATED = """
import threading, time
import numpy as np
from fastsoftmax import _dispatch

impl = _dispatch.load({name!r})
x = np.zeros(100_000, dtype=np.float32)
stop = time.monotonic() + 0.6

def write():
    rng = np.random.default_rng(0)
    while time.monotonic() < stop:
        x[:] = rng.choice([0, 1, np.nan, -np.inf, 5])
        x[rng.integers(0, x.size, 2000)] = rng.normal(size=2000) * 9

writer = threading.Thread(target=write)
writer.start()
while time.monotonic() < stop:
    for k in (1, 50, 3000, 60_000):
        assert ((i := impl.top_k(x, k).indices) >= 0).all() and (i < x.size).all()
        for more in ({{}}, {{"top_p": 0.9}}, {{"temperature": 0}}):
            assert -1 <= impl.sample(x, top_k=k, on_invalid="flag", rng=0, **more) < x.size
            impl.filter_logits(x, top_k=k, ties="all", **more)
            impl.support(x, top_k=k, **more)
    impl.sample_with_logprobs(x, size=600, rng=0, on_invalid="flag")
    impl.token_logprobs(x, 5, temperature=0)
    pair = np.broadcast_to(x, (2, x.size))
    for method in ("chain", "block"):
        for more in ({{}}, {{"top_p": 0.9}}, {{"temperature": 0}}):
            more = {{"method": method, "on_invalid": "flag", **more}}
            assert (impl.verify([5], pair, pair[:1], rng=0, **more).ids < x.size).all()
    found = impl.beam_step(pair, [0, 0], 50, on_invalid="flag")
    assert (found.ids < x.size).all()
writer.join()
print("survived")
"""


@pytest.mark.slow
def test_a_thread_that_writes_into_the_row_does_no_harm(impl):
    """What comes out means nothing, but no memory beside the row is touched."""
    assert output(MUTATED.format(name=impl.NAME), impl="reference") == ["survived"]
