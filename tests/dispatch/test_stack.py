"""Small stacks: every public function, in a thread that has little.

Where a stack overflows the process ends, so each implementation has one of its own.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax._docs import FUNCTIONS
from tests.calls import CALLS

ROOTS = [str(Path(fastsoftmax.__file__).parents[1]), str(Path(__file__).resolve().parents[2])]
SIZE = 96 * 1024  # bytes; a thread of musl has 128 KiB, the least of glibc on aarch64


def along_axes(f, x):
    """Call what takes any axis on rows, columns (fewer than 10,000) and strided views of x."""
    few = x[:, :10_000]
    views = ((x, -1), (few, 0), (x[:, ::2], -1), (few[::-1], 0), (np.asfortranarray(few), 0))
    for a, axis in views:
        for function in (f.softmax, f.log_softmax):
            function(a, axis)
            function(a, axis, temperature=0.7)
            function(a, axis, temperature=np.resize((0.5, 2), a.shape[1 + axis]))
        f.softmax(a, axis, temperature=1e-33, return_lse=True)
        f.logsumexp(a, axis)
        f.logsumexp(a, axis, b=a, return_sign=True)
        f.logmeanexp(a, axis)
        f.entropy(a, axis)
        f.entropy(a, axis, temperature=1e-33)
        f.kl_divergence(a, a, axis, where=a > 0)
        f.row_stats(a, axis=axis, top=2)
        f.row_stats(a, axis=axis, temperature=1e33)
        f.top_k(a, 2, axis=axis)


def along_rows(f, x, rng):
    """Call what takes rows alone."""
    ids = rng.integers(0, x.shape[1], len(x))
    f.softmax(x, where=x > x.mean())
    for filters in ({}, {"top_k": 5, "top_p": 0.9}, {"top_p": 0.99}, {"min_p": 0.01}):
        f.sample(x, **filters, rng=rng)
        f.sample_with_logprobs(x, **filters, rng=rng)
        f.filter_logits(x, **filters)
        f.support(x, **filters)
    f.top_logprobs(x, 2)
    for method in ("chain", "block"):
        for filters in ({}, {"top_k": 5, "top_p": 0.9}, {"top_p": 0.99}, {"min_p": 0.01}):
            filters = {"method": method, **filters}
            f.verify(ids[:, None], np.stack([x, x], 1), x[:, None], rng=rng, **filters)
    f.beam_step(x[None], np.zeros((1, len(x))), 3)
    f.token_logprobs(x, ids)
    f.rank(x, ids)
    f.cross_entropy(x, ids)
    f.cross_entropy_with_grad(x, ids)
    f.cross_entropy_with_grad(x, f.softmax(x))
    f.softmax_backward(x, x)
    f.log_softmax_backward(x, x)


def call_everything(f):
    """Call each public function in each dtype, on arrays of each regime."""
    rng = np.random.default_rng(0)
    for name, call in CALLS.items():
        if name.split()[0] not in FUNCTIONS:  # those are called below
            for shape in ((3, 7), (40, 300), (2, 70_000)):
                call(f, rng.standard_normal(shape, np.float32))
    for dtype in ("float32", "float64", "float16"):
        for shape in ((3, 7), (70, 12), (9, 40), (40, 300), (5, 1000), (2, 5000), (2, 70000)):
            x = rng.standard_normal(shape).astype(dtype)
            along_axes(f, x)
            along_rows(f, x, rng)
        x = rng.standard_normal((2, 50, 300)).astype(dtype)
        each = rng.uniform(0.5, 2, (2, 300))
        for function in (f.softmax, f.log_softmax):
            function(x, 1, temperature=each)
            function(x, 1)


def in_thread(work):
    """Do `work` in a thread with a stack of SIZE, or the least there is; return what it raised."""
    raised = []

    def target():
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threading.stack_size(max(SIZE, os.sysconf("SC_THREAD_STACK_MIN")))
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return raised


@pytest.mark.skipif(sys.platform == "win32", reason="Windows rounds a thread's stack up")
def test_a_thread_of_96_kib_can_call_everything(compiled):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
    command = [sys.executable, __file__, compiled.NAME]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


if __name__ == "__main__":
    implementation = fastsoftmax._dispatch.load(sys.argv[1])
    sys.exit(str(found[0]) if (found := in_thread(lambda: call_everything(implementation))) else 0)
