"""Fixtures that the tests of the softmax family share."""

import pytest


@pytest.fixture(params=["softmax", "log_softmax"])
def f(impl, request):
    """softmax or log_softmax of an implementation."""
    return getattr(impl, request.param)


@pytest.fixture(params=["softmax", "log_softmax", "logsumexp"])
def g(impl, request):
    """Any function of the family."""
    return getattr(impl, request.param)
