"""Fixtures that every test module shares."""

import pytest

from fastsoftmax import _dispatch


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
