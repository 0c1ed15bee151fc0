"""The tests on builds and in tools that see each access to memory."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.sanitize
def test_no_sanitizer_reports_anything():
    # Nothing is caught here: pytest shows what the script says where it fails.
    assert subprocess.run([HERE / "sanitize"], timeout=3 * 3600).returncode == 0
