"""filter_logits and support: every wrong argument."""

import numpy as np
import pytest

INF = np.inf


@pytest.mark.parametrize(
    ("name", "value", "error", "says"),
    [
        ("temperature", -1, ValueError, "-1.0; allowed is 0 to inf"),
        ("temperature", True, TypeError, "True; allowed are real numbers"),
        ("temperature", [1, 2, 3], ValueError, "(3,), which does not broadcast"),
        ("top_k", -1, ValueError, "-1; allowed is 0"),
        ("top_k", 2.0, TypeError, "2.0; allowed are integers"),
        ("top_p", 1.5, ValueError, "1.5; allowed is 0 to 1"),
        ("min_p", np.nan, ValueError, "nan; allowed is 0 to 1"),
        ("min_keep", 0, ValueError, "0; allowed is 1 and above"),
    ],
)
def test_wrong_parameters(impl, name, value, error, says):
    out = np.full((2, 3), 7.0)
    with pytest.raises(error) as caught:
        impl.filter_logits(np.zeros((2, 3)), out=out, **{name: value})
    assert str(caught.value).startswith(name)
    assert says in str(caught.value)
    assert (out == 7).all()
    with pytest.raises(error) as caught:
        impl.support(np.zeros((2, 3)), **{name: value})
    assert says in str(caught.value)


@pytest.mark.parametrize("ties", ["lower", None, 1, "ALL"])
def test_wrong_ties(impl, ties):
    with pytest.raises(ValueError, match=r"^ties is .*'index', 'all'"):
        impl.filter_logits([1.0], ties=ties)


def test_wrong_out(impl):
    x = np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"out has shape \(3, 2\); allowed is \(2, 3\)"):
        impl.filter_logits(x, out=np.empty((3, 2), dtype=np.float32))
    with pytest.raises(TypeError, match="out has dtype int64; allowed is float32"):
        impl.filter_logits(x, out=np.empty((2, 3), dtype=np.int64))
    with pytest.raises(TypeError, match="out is a list"):
        impl.filter_logits(x, out=[0])
    fixed = np.full((2, 3), 7, dtype=np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        impl.filter_logits(x, out=fixed)
    assert (fixed == 7).all()


@pytest.mark.parametrize("dtype", ["complex64", "object", "U1", "M8[s]"])
def test_wrong_logits(impl, dtype):
    for function in (impl.filter_logits, impl.support):
        with pytest.raises(TypeError, match=r"^logits has dtype"):
            function(np.zeros((2, 3), dtype=dtype))
