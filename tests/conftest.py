"""Fixtures that all test modules share: the implementations under test."""

import platform

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


@pytest.fixture
def compiled(impl):
    """An implementation that has kernels: the reference takes one row after the other, copied."""
    if impl.NAME == "reference":
        pytest.skip("the reference has no regimes, layouts or threads")
    return impl


@pytest.fixture
def fused(impl):
    """An implementation whose kernels have a fused multiply-add, and so the same bits."""
    arm = platform.machine().lower() in ("aarch64", "arm64")
    if impl.NAME not in (("baseline",) if arm else ("avx2", "avx512")):
        pytest.skip("x86-64's baseline has no fused multiply-add, the reference no kernel")
    return impl
