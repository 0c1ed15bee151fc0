"""Every function gives the same bits in any floating-point environment, and leaves it as it was."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _threads
from tests import environments
from tests.calls import OWN, bits, classes, other
from tests.environments import (
    ENDS,
    MACHINE,
    MACHINES,
    MODES,
    TRAPS,
    Environment,
    control,
    libm,
    read,
    rows,
)

pytestmark = pytest.mark.skipif(MACHINE is None, reason="glibc's fenv_t on x86-64 and aarch64")

ROOT = Path(__file__).parents[2]
LENGTHS = (2, 9, 33, 700, 5000)

#: Arguments that are converted on the way: one a row, of other types, subnormal; what is summed.
MORE = {
    "temperatures": lambda f, x: f.softmax(x, temperature=PARAMETERS[: len(x)]),
    "subnormal temperature": lambda f, x: f.log_softmax(x, temperature=PARAMETERS[1]),
    "filters a row": lambda f, x: f.filter_logits(
        x, temperature=PARAMETERS[: len(x)], top_p=PARAMETERS[: len(x)].astype(np.float16)
    ),
    "min_p a row": lambda f, x: f.sample(x, min_p=list(MIN_P[: len(x)]), seed=4, position=1),
    "subnormal min_p": lambda f, x: f.support(x, min_p=5e-324),
    "mean": lambda f, x: f.cross_entropy(x, classes(x), weight=WEIGHTS[: x.shape[1]]),
    "sum": lambda f, x: f.cross_entropy(x, other(x), weight=WEIGHTS[: x.shape[1]], reduction="sum"),
    "gradient of mean": lambda f, x: f.cross_entropy_with_grad(x, classes(x), label_smoothing=0.1),
}
PARAMETERS = np.linspace(0.3, 1, 7).astype(np.float32)
PARAMETERS[1] = 1e-40  # as the logits of this row
MIN_P = np.linspace(0, 1, 7) ** 2
WEIGHTS = np.resize([1e-40, 0.1, 3.3], 5000).astype(np.float32)

FORMS = OWN | MORE
call = pytest.mark.parametrize("call", FORMS.values(), ids=FORMS)


def inputs():
    """Yield arrays of each type, of rows that go each way."""
    for dtype in ENDS:
        for n in LENGTHS:
            yield rows(n, dtype)


def test_the_environment_is_really_another():
    tiny, few = np.array([1e-310]), np.linspace(-1, 1, 99)
    thirds = few / 3
    assert (tiny * 0.5)[0] > 0
    for mode, word in MODES.items():
        with Environment(word):
            flushed, rounded = (tiny * 0.5)[0], few / 3
        if "halves" not in mode:
            assert flushed == 0 or (rounded != thirds).any(), mode


def check(impl, call, x):
    """Check that a call gives the same bits in every environment, and leaves it as it was."""
    want = bits(call(impl, x))
    for mode, word in MODES.items():
        with Environment(word):
            before = control(read())
            got = bits(call(impl, x))
            after = control(read())
        assert after == before, mode
        assert got == want, (mode, x.dtype, x.shape)


@call
def test_same_bits_in_every_environment(compiled, call):
    for x in inputs():
        check(compiled, call, x)


def test_planted_faults_are_seen():
    x = rows(33, "float32")
    check(None, lambda _, x: x.copy(), x)
    with pytest.raises(AssertionError, match="float32"):
        check(None, lambda _, x: x / np.float32(3), x)
    with pytest.raises(AssertionError, match=r"\w"), Environment(0):
        check(None, lambda _, x: [x.copy(), environments.turn(MODES["up"])][0], x)


@pytest.mark.parametrize("mode", MODES)
def test_status_bits_of_the_caller_stay(compiled, mode):
    x = np.array([[1e-40, 88.0, -np.inf, 1e30]], np.float32)
    with Environment(MODES[mode]):
        libm.feclearexcept(0x3F)
        before = read()
        compiled.softmax(x)
        assert read() == before


# ---- other threads -------------------------------------------------------------------------------


def in_workers(task, threads):
    """Do a task in each of the threads of this process's pool."""
    everyone = threading.Barrier(threads + 1)

    def once():
        task()
        everyone.wait()

    pool = _threads._pools.setdefault(os.getpid(), _threads._Pool())
    pool.hand(once, threads)
    everyone.wait()


@call
def test_workers_in_another_environment(compiled, call, divided):
    """The caller's environment is the default one, that of the threads that help is another."""
    arrays = [rows(n, dtype) for dtype in ENDS for n in (9, 3000)]
    wants = [bits(call(compiled, x)) for x in arrays]
    with fastsoftmax.set_workers(3):
        for mode, word in MODES.items():
            in_workers(lambda word=word: environments.turn(word), 2)
            try:
                for x, want in zip(arrays, wants, strict=True):
                    assert bits(call(compiled, x)) == want, (mode, x.dtype, x.shape)
            finally:
                in_workers(lambda word=word: environments.turn(word), 2)


# ---- another process -----------------------------------------------------------------------------

CONSTRUCTOR = """
#if defined(__x86_64__)
__attribute__((constructor)) static void set(void) {
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
}
#else
__attribute__((constructor)) static void set(void) {
    __asm__ volatile("msr fpcr, %0" : : "r"(1UL << 24));
}
#endif
"""

# Prints a digest of every function's results, each as soon as it is there.
DIGESTS = """
import hashlib
import numpy as np
from tests.calls import OWN, bits
from tests.environments import ENDS, rows, turn
arrays = {dtype: rows(33, dtype) for dtype in ENDS}
special = np.resize([0, 1, np.inf, -np.inf, np.nan, 2, 3], (7, 33)).astype(np.float32)
big = np.linspace(-1e38, 1e38, 70000, dtype=np.float32).reshape(2, -1)
arrays |= {"special": special, "big": big}
{before}
from fastsoftmax._dispatch import active as f
{after}
for kind, x in arrays.items():
    for name, call in OWN.items():
        if name == "Sampler":
            continue  # NumPy's arithmetic would trap
        print(kind, name, end=" ", flush=True)
        try:
            print(hashlib.sha256(repr(bits(call(f, x))).encode()).hexdigest(), flush=True)
        except ValueError as error:
            print(error, flush=True)
"""


def digests(impl, before="", after=""):
    """Return what a process prints that runs `before` and then imports, then runs `after`."""
    code = DIGESTS.replace("{before}", before).replace("{after}", after)
    env = {**os.environ, "FASTSOFTMAX_IMPL": impl, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", code]
    result = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, (result.stdout.splitlines()[-1:], result.stderr)
    return result.stdout


@pytest.fixture(scope="module")
def default(compiled):
    """Return what a process prints that changes nothing."""
    return digests(compiled.NAME)


@pytest.mark.slow
@pytest.mark.skipif(MACHINE is MACHINES["aarch64"], reason="hardly any of them has traps")
def test_traps(compiled, default):
    """What would trap in the kernels, or in a check of ours, would end the process."""
    bits = sum(TRAPS.values())
    assert digests(compiled.NAME, after=f"turn({bits})") == default
    with pytest.raises(AssertionError, match=r"SIGFPE|Floating point exception"):
        digests(compiled.NAME, after=f"turn({bits}); np.array([1.0]) / 0")


@pytest.mark.slow
def test_a_library_that_sets_the_environment_when_it_is_loaded(compiled, default, tmp_path):
    source, library = tmp_path / "set.c", tmp_path / "set.so"
    source.write_text(CONSTRUCTOR)
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    load = f"import ctypes; ctypes.CDLL({str(library)!r}); assert np.float64(1e-310) * 0.5 == 0"
    assert digests(compiled.NAME, before=load) == default
    assert digests(compiled.NAME, after=load) == default
