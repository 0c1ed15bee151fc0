"""Every test of this folder runs with each implementation."""

import pytest

from fastsoftmax._sampler import program
from fastsoftmax.steps import candidates


@pytest.fixture(autouse=True)
def _each_implementation(impl, monkeypatch):
    monkeypatch.setattr(candidates, "fast", impl)
    monkeypatch.setattr(program, "chains", getattr(impl, "chains", None))
