"""The sdist: the same bits wherever it is made, and of what git knows alone."""

import os
import subprocess
import sys
import tarfile

import pytest

from tests.packaging.sources import copy_sources, is_executable, sources

pytestmark = pytest.mark.slow

#: What a build, a test and an editor leave.
PRODUCTS = (
    "fastsoftmax/_front/softmax.c",
    "fastsoftmax/_front/softmax.cpython-311-x86_64-linux-gnu.so",
    "fastsoftmax/__pycache__/__init__.cpython-311.pyc",
    "build/lib/fastsoftmax/__init__.py",
    ".hypothesis/examples/1",
)
#: What only our own repository needs.
LEFT_OUT = (".ci", ".github", ".gitignore", "recipe")
EGG_INFO = ("PKG-INFO", "SOURCES.txt", "entry_points.txt", "requires.txt", "top_level.txt")
GENERATED = {
    "PKG-INFO",
    "setup.cfg",
    *(f"fastsoftmax.egg-info/{name}" for name in (*EGG_INFO, "dependency_links.txt")),
}


def sdist(folder, *, umask, products=(), epoch=None):
    """Return the bytes of the sdist of a copy of the sources, made under a umask."""
    copy_sources(folder, umask=umask)
    for product in products:
        (folder / product).parent.mkdir(parents=True, exist_ok=True)
        (folder / product).touch()
    env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "setup.py", "-q", "sdist"]
    env |= {} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, cwd=folder, env=env, umask=umask, check=True)
    (archive,) = (folder / "dist").iterdir()
    return archive


def test_the_same_bits_wherever_and_whenever(tmp_path):
    one = sdist(tmp_path / "one", umask=0o022)
    other = sdist(tmp_path / "another" / "folder", umask=0o077, products=PRODUCTS)
    assert one.read_bytes() == other.read_bytes()

    dated = sdist(tmp_path / "dated", umask=0o022, epoch=1_700_000_000)
    with tarfile.open(one) as archive, tarfile.open(dated) as later:
        members = archive.getmembers()
        assert {m.mtime for m in later} == {1_700_000_000}
        assert [m.name for m in members] == sorted(m.name for m in later)
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    modes = {m.name.partition("/")[2]: m.mode for m in members}
    known = {str(p): is_executable(p) for p in sources() if p.parts[0] not in LEFT_OUT}
    assert {name for name in modes if name not in GENERATED} == {*known}
    assert {name for name, mode in modes.items() if mode != 0o644} == {p for p in known if known[p]}
