"""Forks, children, imports in many threads at once, and subinterpreters."""

import multiprocessing
import os
import sys
import warnings

import numpy as np
import pytest

import fastsoftmax
from tests.processes import output, python

X = np.random.default_rng(0).standard_normal((1500, 400), dtype=np.float32)


def digest(workers):
    """Return the bits of a softmax; in a child of `multiprocessing`."""
    return fastsoftmax.softmax(X, temperature=0.7, workers=workers).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(method):
    want = digest(2)  # the pool has threads before the fork
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map_async(digest, [1, 2, 3, 2]).get(60) == [want] * 4


FORK_DURING_WORK = """
import os, signal, threading, warnings
import numpy as np
from fastsoftmax import softmax
warnings.simplefilter("ignore")
x = np.random.default_rng(0).standard_normal((1500, 400), dtype=np.float32)
want = softmax(x, temperature=0.7).tobytes()
done = threading.Event()
def work():
    while not done.is_set():
        softmax(x, temperature=0.7, workers=2)
threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads:
    t.start()
try:
    for _ in range(20):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(softmax(x, temperature=0.7, workers=2).tobytes() != want)
        assert os.waitpid(child, 0)[1] == 0
finally:
    done.set()
for t in threads:
    t.join()
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_while_threads_share_work():
    assert output(FORK_DURING_WORK) == ["done"]


IMPORTS = """
import threading
barrier = threading.Barrier(8)
def work(i):
    barrier.wait()
    if i % 2:
        from fastsoftmax import Sampler, softmax
    else:
        import fastsoftmax.steps
        from fastsoftmax import softmax
    got.append(softmax([0.0, 0.0]).tolist())
got = []
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(len(got), got == [[0.5, 0.5]] * 8)
"""


def test_imports_in_many_threads_at_once():
    assert output(IMPORTS) == ["8", "True"]


#: A second interpreter either works, or says ImportError; what was there works on.
SUBINTERPRETER = """
import sys, warnings
import fastsoftmax
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
import warnings
warnings.simplefilter("ignore")
try:
    import fastsoftmax
    print("works", fastsoftmax.softmax([0.0, 0.0])[0], flush=True)
except ImportError as error:
    print("ImportError", len(str(error)) > 0, flush=True)
'''
other = interpreters.create(*{arguments})
if sys.version_info >= (3, 13):
    interpreters.exec(other, code)
else:
    interpreters.run_string(other, code)
interpreters.destroy(other)
print(fastsoftmax.softmax([0.0, 0.0])[0])
"""


@pytest.mark.parametrize("arguments", ["()", "('legacy',)"])
def test_subinterpreters_work_or_say_why(arguments):
    if arguments != "()" and sys.version_info < (3, 13):
        pytest.skip("has one kind of interpreters")
    done = python(SUBINTERPRETER.format(arguments=arguments))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] in (["works", "0.5"], ["ImportError", "True"]), done.stderr
    assert done.stdout.split()[2:] == ["0.5"]
