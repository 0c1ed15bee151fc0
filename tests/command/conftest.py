"""Running the ``fastsoftmax`` command in this process, with and without a terminal."""

import io
import sys

import numpy as np
import pytest

from fastsoftmax._command import cli


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def __init__(self, encoding="utf-8"):
        super().__init__()
        self.name_of_encoding = encoding

    @property
    def encoding(self):
        return self.name_of_encoding

    def isatty(self):
        return True


@pytest.fixture
def call(capsys):
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*argv):
        code = cli.main([str(a) for a in argv])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def on_terminal(monkeypatch):
    """Run the command with a terminal for stdout: exit code, what it shows."""

    def run(*argv, encoding="utf-8", **environment):
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        screen = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", screen)
        return cli.main([str(a) for a in argv]), screen.getvalue()

    return run


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(0, 3, (3, 7)).astype(np.float32)


@pytest.fixture
def file(tmp_path, x):
    path = tmp_path / "x.npy"
    np.save(path, x)
    return path
