"""Without a compiler: FASTSOFTMAX_PURE=1 installs the reference; otherwise the build says so."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.packaging.sources import copy_sources
from tests.processes import python

pytestmark = pytest.mark.slow

WARNINGS = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastsoftmax
    fastsoftmax.softmax([1.0, 2.0])
    fastsoftmax.Sampler.vllm(top_k=1)([1.0, 2.0])
print(fastsoftmax.show_config(mode="dicts")["implementation"], *(w.message for w in caught))
"""


def bdist_wheel(folder, **environment):
    """Build a wheel of a copy of the sources in a folder; return the finished process."""
    command = [sys.executable, "setup.py", "-q", "bdist_wheel"]
    env = os.environ | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_a_pure_wheel_is_for_any_platform_and_warns_once(tmp_path):
    built = bdist_wheel(copy_sources(tmp_path / "sources"), FASTSOFTMAX_PURE="1")
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "sources" / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    package = tmp_path / "installed" / "fastsoftmax"
    result = python(WARNINGS, package=package)
    assert result.returncode == 0, result.stderr
    implementation, message = result.stdout.split(maxsplit=1)
    assert implementation == "reference"
    assert message.count("fastsoftmax runs its slow pure-Python reference") == 1
    assert "pip install --force-reinstall --no-binary fastsoftmax fastsoftmax" in message
    assert not python(WARNINGS, impl="reference", package=package).stdout.split()[1:]


def test_without_a_compiler_the_build_fails_and_says_what_to_do(tmp_path):
    built = bdist_wheel(copy_sources(tmp_path), CC="/nowhere/cc", FASTSOFTMAX_PURE="0")
    assert built.returncode != 0
    last = built.stderr.strip().splitlines()[-1]
    assert "there is no '/nowhere/cc'" in last
    assert "FASTSOFTMAX_PURE=1" in last


def test_a_broken_compiler_is_an_error(tmp_path):
    built = bdist_wheel(copy_sources(tmp_path), CC="false", FASTSOFTMAX_PURE="")
    assert built.returncode != 0
    assert "error: 'false" in built.stderr
