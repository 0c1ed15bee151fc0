"""What test modules share."""

import numpy as np
import pytest

from fastsoftmax import _dispatch


class Uniforms(np.random.Generator):
    """A generator the uniforms of which are known beforehand."""

    def __init__(self, uniforms):
        super().__init__(np.random.PCG64(0))
        self.uniforms = np.asarray(uniforms, dtype=np.float64)

    def random(self, size=None, *args, **kwargs):
        assert np.prod(size) == self.uniforms.size, "one uniform a row"
        return self.uniforms.reshape(size).copy()


@pytest.fixture(params=_dispatch.NAMES, scope="session")
def impl(request):
    """Each implementation in turn: an object with the public functions as attributes."""
    try:
        return _dispatch.load(request.param)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def reference():
    """Return the oracle."""
    return _dispatch.load("reference")
