"""A program frozen by PyInstaller, which finds our hooks by their entry point."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.sources import copy_sources
from tests.processes import PACKAGE

PROGRAM = Path(__file__).with_name("frozen.py")


@pytest.mark.weekly
def test_a_frozen_program_does_what_it_did(tmp_path):
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "fastsoftmax")
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    run = {"env": env, "capture_output": True, "text": True, "check": True, "timeout": 600}
    sources = copy_sources(tmp_path / "sources")
    command = [sys.executable, "setup.py", "-q", "dist_info", "--output-dir", str(site)]
    subprocess.run(command, cwd=sources, **run)
    freeze = [sys.executable, "-m", "PyInstaller", "--log-level=WARN", str(PROGRAM)]
    subprocess.run(freeze, cwd=tmp_path, **run)

    plain = subprocess.run([sys.executable, "-P", str(PROGRAM)], cwd=tmp_path, **run).stdout
    shutil.rmtree(site)  # what is missing must not be found there
    frozen = subprocess.run([tmp_path / "dist" / "frozen" / "frozen"], cwd=tmp_path, **run).stdout
    assert frozen == plain
    assert "'baseline'" in frozen
    assert "the ids of the 50 most likely agree" in frozen
