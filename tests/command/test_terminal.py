"""Terminals, pipes and closed streams: what reaches them, and the exit code."""

import os
import pty
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ESCAPE = "\x1b"


def module(*argv, **how):
    """`python -m fastsoftmax` in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "fastsoftmax", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **how)


def test_bars_and_colours_on_a_terminal(on_terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out = on_terminal("demo")
    assert code == 0
    assert ESCAPE in out
    the, second = (next(s for s in out.splitlines() if w in s) for w in ('" the"', '" a"'))
    assert the.count("█") == int(0.7051 * (80 - 28))
    assert second.count("█") < the.count("█") / 5


def test_no_color(on_terminal):
    _, out = on_terminal("demo", NO_COLOR="1")
    assert ESCAPE not in out
    assert "█" in out


def test_a_terminal_without_block_characters(on_terminal):
    code, out = on_terminal("demo", "--row", "flat", encoding="ascii")
    assert code == 0
    assert "####" in out
    assert out.isascii()


def test_softmax_summary_on_a_terminal(on_terminal, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.tile(np.log([[0.1, 0.9]]), (30, 1)))
    code, out = on_terminal("softmax", path, NO_COLOR="1", COLUMNS="76")
    assert code == 0
    assert out.startswith(f"softmax of {path}: float64 (30, 2), axis -1\nrow 0: the 2 largest of 2")
    assert f"         1  0.9          {'█' * 45}" in out
    assert out.count("row ") == 10
    assert out.endswith("... (the rest goes to a pipe or to --output)\n")


def test_a_real_terminal():
    """Through a pseudo-terminal, so that nothing of the detection is faked."""
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "fastsoftmax", "demo"],
        stdout=side,
        stderr=side,
        env=environment,
    ) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            shown += part
        os.close(main)
    assert process.returncode == 0
    assert "█".encode() in shown
    assert b"\x1b[" in shown


def test_piped_output_is_plain(file):
    for argv in (["demo"], ["softmax", file], ["sample", file], ["top-k", file, "--k", 2]):
        done = module(*argv, env={**os.environ, "PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0
        assert done.stderr == ""
        assert ESCAPE not in done.stdout
        assert done.stdout.isascii()


def test_errors_reach_the_shell(tmp_path):
    done = module("softmax", tmp_path / "no.npy")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"fastsoftmax softmax: {tmp_path}/no.npy: No such file or directory\n"


@pytest.mark.parametrize("argv", [["softmax", "FILE"], ["--help"]])
def test_a_closed_pipe_ends_quietly(tmp_path, argv):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((300, 300)))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "fastsoftmax",
        *[str(path) if a == "FILE" else a for a in argv],
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def in_shell(redirection, *argv):
    """Run ``python -m fastsoftmax`` through a shell that closes streams before."""
    command = [sys.executable, "-W", "ignore", "-m", "fastsoftmax", *argv]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("argv", [["info"], ["--help"], ["softmax", "no.npy"]])
def test_closed_stdout_is_an_error(argv):
    assert in_shell(">&-", *argv) == (2, "", "fastsoftmax: standard output is closed\n")


def test_nothing_can_be_said_where_all_is_closed():
    assert in_shell(">&- 2>&-", "info") == (2, "", "")


@pytest.mark.parametrize("argv", [["no-command"], ["softmax", "no.npy"]])
def test_errors_do_not_go_to_stdout_where_stderr_is_closed(argv):
    assert in_shell("2>&-", *argv) == (2, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_told():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "fastsoftmax", "info"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr == "fastsoftmax: standard output: No space left on device\n"
