"""`out` of a float type other than the result's, in every function that has it."""

import tracemalloc

import numpy as np
import pytest

from tests.arrays import bfloat16

FLOATS = np.array([[0.5, 2.0, 1.0], [1.0, -1.0, 0.0]], dtype=np.float32)


def outputs(impl, scores=FLOATS):
    """Return each function that takes `out` as one of `x` and `out` alone, by its name."""
    p = {char: impl.softmax(scores).astype(char) for char in "efd"}
    log_p = {char: np.log(p["d"]).astype(char) for char in "efd"}
    mask = scores != 1
    return {
        "softmax": lambda x, out: impl.softmax(x, out=out),
        "softmax of columns": lambda x, out: impl.softmax(x, 0, out=out),
        "softmax where": lambda x, out: impl.softmax(x, where=mask, out=out),
        "log_softmax": lambda x, out: impl.log_softmax(x, temperature=[1.0, 2.0], out=out),
        "filter_logits": lambda x, out: impl.filter_logits(x, top_k=2, temperature=3.0, out=out),
        "gradient": lambda x, out: impl.cross_entropy_with_grad(x, [0, 1], out=out).grad,
        "softmax_backward": lambda x, out: impl.softmax_backward(x, p[x.dtype.char], out=out),
        "log_softmax_backward": lambda x, out: impl.log_softmax_backward(
            x, log_p[x.dtype.char], out=out
        ),
    }


class Traced:
    """What a block allocates at most at once."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *error):
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


NAMES = list(outputs(__import__("fastsoftmax")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("given", ["float16", "float32", "float64"])
def test_out_of_another_float_type(impl, name, given, target):
    target = bfloat16() if target == "bfloat16" else np.dtype(target)
    function, x = outputs(impl)[name], FLOATS.astype(given)
    if not np.can_cast(given, target, "same_kind"):
        pytest.skip("NumPy does not cast float16 and bfloat16 into each other")
    want = function(x, None).astype(np.float64)
    for make in (np.empty, lambda *args: np.empty(*args, order="F")):
        out = make(x.shape, target)
        assert function(x, out) is out
        eps = max(np.finfo(given).eps, 2.0**-7 if target.kind == "V" else np.finfo(target).eps)
        np.testing.assert_allclose(out.astype(np.float64), want, rtol=eps, atol=eps)
    if target == np.dtype(np.float64) and given == "float32":
        np.testing.assert_allclose(out, want, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [3, 20000])
def test_what_is_computed_is_rounded_once(compiled, name, n):
    """By blocks: nothing of the array's size is allocated."""
    scores = np.resize(FLOATS, (2, n))
    function = outputs(compiled, scores)[name]
    for given, target in (("f", "d"), ("f", "e"), ("d", "f"), ("d", "e"), ("d", ">f4")):
        x, out = scores.astype(given), np.empty((2, n), target)
        want = function(x, None).astype(target)
        with Traced() as traced:
            function(x, out)
        np.testing.assert_array_equal(out, want)
        assert n == 3 or traced.peak < x.nbytes / 4
    if "backward" not in name:  # whose other input would be another one
        x, out = scores.astype("e"), np.empty((2, n))
        function(x, out)
        np.testing.assert_array_equal(out, function(x.astype("f"), None))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["int64", "bool", "complex128", "longdouble", "object", "U4"])
def test_out_of_a_type_that_is_not_allowed(impl, name, target):
    out = np.zeros(FLOATS.shape, dtype=target)
    with pytest.raises(TypeError, match=f"^out has dtype {out.dtype}; allowed is float32"):
        outputs(impl)[name](FLOATS, out)
    assert (out == np.zeros_like(out)).all()


def test_bfloat16_does_not_fit_float16(impl):
    """NumPy's same_kind rule allows neither of the two from the other."""
    out = np.zeros(3, dtype=np.float16)
    with pytest.raises(TypeError, match=r"^out has dtype float16; allowed is bfloat16"):
        impl.softmax(np.zeros(3, dtype=bfloat16()), out=out)


def test_filtered_logits_overflow_the_dtype_of_out(impl):
    x = np.array([3e5, 200032, 0, -1e5], dtype=np.float32)
    out = np.empty(4, dtype=np.float16)
    impl.filter_logits(x, temperature=2.0, out=out)
    assert out.tolist() == [0, -49984, -65504, -65504]
