"""Arguments with code of their own run it before anything is measured, and change nothing after."""

import numpy as np
import pytest


class Reshapes:
    """An argument whose conversion gives an array another shape."""

    def __init__(self, array, value, shape=(1, -1)):
        self.array, self.value, self.shape = array, value, shape

    def convert(self):
        self.array.shape = self.shape
        return self.value

    def __index__(self):
        return self.convert()

    def __bool__(self):
        return bool(self.convert())

    def __float__(self):
        return float(self.convert())

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.convert())


CALLS = {
    "top_k k": lambda f, x: f.top_k(x, Reshapes(x, 3)),
    "top_k axis": lambda f, x: f.top_k(x, 3, axis=Reshapes(x, 0)),
    "top_k sorted": lambda f, x: f.top_k(x, 3, sorted=Reshapes(x, True)),
    "top_k workers": lambda f, x: f.top_k(x, 3, workers=Reshapes(x, 1)),
    "softmax axis": lambda f, x: f.softmax(x, Reshapes(x, 0)),
    "softmax where": lambda f, x: f.softmax(x, where=Reshapes(x, True)),
    "softmax temperature": lambda f, x: f.softmax(x, temperature=Reshapes(x, 2.0)),
    "softmax workers": lambda f, x: f.softmax(x, workers=Reshapes(x, 1)),
    "logsumexp keepdims": lambda f, x: f.logsumexp(x, keepdims=Reshapes(x, True)),
    "sample top_k": lambda f, x: f.sample(x, top_k=Reshapes(x, 2), rng=1),
    "sample min_keep": lambda f, x: f.sample(x, min_keep=Reshapes(x, 2), rng=1),
    "sample size": lambda f, x: f.sample(x, size=Reshapes(x, 2), rng=1),
    "sample replace": lambda f, x: f.sample(x, size=2, replace=Reshapes(x, True), rng=1),
    "rank ids": lambda f, x: f.rank(x, Reshapes(x, np.arange(50))),
    "token_logprobs ids": lambda f, x: f.token_logprobs(x, Reshapes(x, np.arange(50))),
    "token_logprobs temperature": lambda f, x: f.token_logprobs(
        x, np.arange(50), temperature=Reshapes(x, 2.0)
    ),
    "top_logprobs n": lambda f, x: f.top_logprobs(x, Reshapes(x, 2)),
    "verify draft_ids": lambda f, x: f.verify(Reshapes(x, np.zeros(49, int)), x, rng=1),
    "verify draft_logits": lambda f, x: f.verify(
        np.zeros(49, int), x, Reshapes(x, np.zeros((49, 60))), rng=1
    ),
    "verify top_k": lambda f, x: f.verify(np.zeros(49, int), x, top_k=Reshapes(x, 2), rng=1),
    "beam_step scores": lambda f, x: f.beam_step(x, Reshapes(x, np.zeros(50)), 3),
    "beam_step beams": lambda f, x: f.beam_step(x, np.zeros(50), Reshapes(x, 3)),
    "beam_step length": lambda f, x: f.beam_step(x, np.zeros(50), 3, length=Reshapes(x, 2)),
    "support min_keep": lambda f, x: f.support(x, min_keep=Reshapes(x, 2)),
    "filter_logits top_p": lambda f, x: f.filter_logits(x, top_p=Reshapes(x, 0.5)),
    "cross_entropy axis": lambda f, x: f.cross_entropy(x, np.arange(50), axis=Reshapes(x, -1)),
    "cross_entropy targets": lambda f, x: f.cross_entropy(x, Reshapes(x, np.arange(50))),
    "cross_entropy weight": lambda f, x: f.cross_entropy(
        x, np.arange(50), weight=Reshapes(x, np.ones(60))
    ),
    "cross_entropy ignore_index": lambda f, x: f.cross_entropy_with_grad(
        x, np.arange(50), ignore_index=Reshapes(x, -1)
    ),
    "softmax_backward temperature": lambda f, x: f.softmax_backward(
        x, x.copy(), temperature=Reshapes(x, 2.0)
    ),
}


#: Of results for the one shape or for the other: none is longer than all of the input.
SIZES = range(1, 6001)


@pytest.mark.slow_reference
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(1, -1), (-1, 1), (25, 120)])
def test_an_argument_that_reshapes_the_input(impl, name, shape, monkeypatch):
    """The call gives a result of the one shape or of the other, or an error; memory is whole."""
    monkeypatch.setattr(Reshapes.__init__, "__defaults__", (shape,))
    guard = np.full((70, 60), 7.0)
    x = guard[10:60]
    x[...] = np.random.default_rng(0).normal(size=x.shape)
    try:
        result = CALLS[name](impl, x)
    except (TypeError, ValueError, IndexError, np.exceptions.AxisError):
        result = None
    assert (guard[:10] == 7).all()
    assert (guard[60:] == 7).all()
    for part in result if isinstance(result, tuple) else [result]:
        assert part is None or np.asarray(part).size in SIZES


def test_families_are_not_made_without_kernels(compiled):
    for function in (compiled.softmax, compiled.top_k, compiled.sample, compiled.cross_entropy):
        family = type(function.__self__)
        with pytest.raises(TypeError):
            family.__new__(family)
        with pytest.raises((TypeError, AttributeError, ValueError)):
            family.__new__(family, "none", *[None] * 3)
