"""Every function gives the same bits in any floating-point environment, and leaves it as it was."""

import ctypes
import platform
import struct

import numpy as np
import pytest

MACHINE = platform.machine()
libm = ctypes.CDLL(None)
pytestmark = pytest.mark.skipif(
    MACHINE not in ("x86_64", "aarch64") or not hasattr(libm, "fesetenv"),
    reason="glibc's fenv_t on x86-64 and aarch64",
)

# Where glibc's fenv_t has the control word, and what to set there: rounding down, up, to zero,
# flush-to-zero (with denormals-are-zero where that is a bit of its own).
OFFSET, MODES = {
    "x86_64": (28, {"down": 0x2000, "up": 0x4000, "zero": 0x6000, "flush": 0x8040}),
    "aarch64": (0, {"down": 2 << 22, "up": 1 << 22, "zero": 3 << 22, "flush": 1 << 24}),
}.get(MACHINE, (0, {}))


class Environment:
    """The calling thread's floating-point environment, with some control bits set inside."""

    def __init__(self, bits):
        self.bits = bits

    def __enter__(self):
        self.before = ctypes.create_string_buffer(64)
        assert libm.fegetenv(self.before) == 0
        changed = ctypes.create_string_buffer(self.before.raw, 64)
        (word,) = struct.unpack_from("<I", changed.raw, OFFSET)
        struct.pack_into("<I", changed, OFFSET, word | self.bits)
        assert libm.fesetenv(changed) == 0
        return self

    def __exit__(self, *error):
        assert libm.fesetenv(self.before) == 0

    @staticmethod
    def word():
        now = ctypes.create_string_buffer(64)
        libm.fegetenv(now)
        return struct.unpack_from("<I", now.raw, OFFSET)[0]


def rows():
    """Yield logits with denormal numbers, ties, large and small ones, and their float16.

    NumPy's own cast to float16 is a hardware instruction on aarch64: it heeds the rounding mode.
    """
    rng = np.random.default_rng(0)
    for n in (2, 9, 33, 700, 5000):
        x = rng.normal(size=(5, n)).astype(np.float32)
        x[1] *= 1e-40
        x[2] *= 60
        x[3] = x[3].round()
        x[4, ::2] = -np.inf
        yield x, x.astype(np.float16)


def results(impl, x, halves):
    """Return what each function gives for x, and softmax for its float16, as bytes."""
    n = x.shape[1]
    ids = np.arange(5) % n
    p = impl.softmax(x)
    made = [
        p,
        impl.softmax(x, temperature=0.7),
        impl.softmax(halves),
        impl.softmax(x.T, axis=0),
        impl.log_softmax(x),
        impl.log_softmax(x.astype(np.float64), temperature=3.3),
        impl.logsumexp(x),
        *impl.top_k(x, min(n, 7)),
        *impl.top_k(x, min(n, 2), mode="smallest"),
        impl.sample(x, seed=3, position=range(5)),
        impl.sample(x, seed=3, position=range(5), top_k=2, top_p=0.9),
        impl.sample(x, seed=3, position=range(5), min_p=0.1),
        *impl.sample_with_logprobs(x, seed=3, position=range(5), top_p=0.6),
        impl.filter_logits(x, temperature=0.7, top_p=0.8),
        *impl.support(x, top_p=0.8),
        impl.token_logprobs(x, ids),
        *impl.top_logprobs(x, min(n, 3)),
        impl.rank(x, ids),
        *impl.cross_entropy_with_grad(x, ids, label_smoothing=0.1),
        impl.cross_entropy(x, ids, weight=np.arange(n) + 1.0),
        impl.softmax_backward(x[:4], p[:4]),
        impl.log_softmax_backward(x[:4], impl.log_softmax(x[:4]), temperature=0.3),
    ]
    return [np.asarray(a).tobytes() for a in made]


@pytest.mark.parametrize("mode", MODES)
def test_same_bits_in_every_environment(compiled, mode):
    for x, halves in rows():
        want = results(compiled, x, halves)
        with Environment(MODES[mode]):
            before = Environment.word()
            got = results(compiled, x, halves)
            after = Environment.word()
        assert got == want
        assert after & ~0x3F == before & ~0x3F


@pytest.mark.parametrize("mode", MODES)
def test_status_bits_of_the_caller_stay(compiled, mode):
    x = np.array([[1e-40, 88.0, -np.inf, 1e30]], np.float32)
    with Environment(MODES[mode]):
        libm.feclearexcept(0x3F)
        before = Environment.word()
        compiled.softmax(x)
        assert Environment.word() == before


def test_the_environment_is_really_another():
    tiny = np.array([1e-310])
    with Environment(MODES["flush"]):
        flushed = (tiny * 0.5)[0]
    assert flushed == 0
    assert (tiny * 0.5)[0] > 0
