"""The ``fastsoftmax`` command: what it prints, what it refuses, and that its checks can fail."""

import io
import itertools
import json
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _dispatch, _reference
from fastsoftmax._command import cli, demo, selftest
from tests.conftest import Uniforms

ESCAPE = "\x1b"


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


def module(*argv, **how):
    """`python -m fastsoftmax` in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "fastsoftmax", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **how)


def header(text):
    """Return the start of a .npy file with this header, and some data."""
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(24)


def numbers(text, dtype):
    return np.loadtxt(io.StringIO(text), dtype=dtype, ndmin=2)


# ---- softmax, top-k, sample on a file ------------------------------------------------------------


@pytest.mark.parametrize("axis", ["-1", "0", "all"])
@pytest.mark.parametrize("log", [False, True])
def test_softmax_prints_every_bit(call, file, x, axis, log):
    function = fastsoftmax.log_softmax if log else fastsoftmax.softmax
    want = function(x, None if axis == "all" else int(axis), temperature=0.5)
    options = ["--axis", axis, "--temperature", 0.5, *["--log"] * log]
    code, out, err = call("softmax", file, *options)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(numbers(out, np.float32), want)


def test_softmax_output(call, file, x, tmp_path):
    target = tmp_path / "p.npy"
    code, out, _ = call("softmax", file, "--output", target)
    assert code == 0
    assert out == f"{target}: float32, shape (3, 7)\n"
    np.testing.assert_array_equal(np.load(target), fastsoftmax.softmax(x))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.npy", "x.npy"]


@pytest.mark.parametrize("value", [2.0, [1.0, 2.0], [[[1.0, 2.0]]]])
def test_any_number_of_axes(call, tmp_path, value):
    path = tmp_path / "x.npy"
    np.save(path, np.array(value))
    for command in ("softmax", "sample", "top-k"):
        code, out, err = call(command, path, *(["--k", 1] if command == "top-k" else []))
        assert (code, err) == (0, "")
        assert len(out.splitlines()) == 1
    want = np.atleast_1d(fastsoftmax.softmax(np.array(value))).ravel()
    np.testing.assert_array_equal(numbers(call("softmax", path)[1], float).ravel(), want)


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("axis", [-1, 0])
def test_top_k(call, file, x, axis, smallest, tmp_path):
    mode = "smallest" if smallest else "largest"
    values, indices = fastsoftmax.top_k(x, 2, axis=axis, mode=mode)
    options = ["--k", 2, "--axis", axis, *["--smallest"] * smallest]
    code, out, err = call("top-k", file, *options)
    assert (code, err) == (0, "")
    row, index, value = numbers(out, np.float64).T
    np.testing.assert_array_equal(row, np.repeat(np.arange(x.size // x.shape[axis]), 2))
    np.testing.assert_array_equal(index, np.moveaxis(indices, axis, -1).ravel())
    np.testing.assert_array_equal(value.astype(np.float32), np.moveaxis(values, axis, -1).ravel())

    target = tmp_path / "k.npy"
    assert call("top-k", file, *options, "--output", target)[0] == 0
    saved = np.load(target)
    np.testing.assert_array_equal(saved["values"], values)
    np.testing.assert_array_equal(saved["indices"], indices)


def test_top_0_prints_nothing(call, file):
    assert call("top-k", file, "--k", 0) == (0, "", "")


def test_sample_is_the_library_s(call, file, x, tmp_path):
    knobs = {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "min_p": 0.01}
    options = [w for n, v in knobs.items() for w in (f"--{n.replace('_', '-')}", v)]
    rng = np.random.default_rng(5)
    want = np.stack([fastsoftmax.sample(x, **knobs, rng=rng) for _ in range(4)], axis=-1)
    code, out, err = call("sample", file, *options, "--seed", 5, "--draws", 4)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(numbers(out, np.int64), want)
    np.testing.assert_array_equal(want[:, 0], fastsoftmax.sample(x, **knobs, rng=5))
    target = tmp_path / "ids.npy"
    call("sample", file, *options, "--seed", 5, "--draws", 4, "--output", target)
    np.testing.assert_array_equal(np.load(target), want)


def test_each_knob_reaches_the_library(call, file, monkeypatch):
    seen = []

    def spy(logits, **knobs):
        seen.append({name: value for name, value in knobs.items() if name != "rng"})
        return np.zeros(logits.shape[:-1], dtype=np.int64)

    monkeypatch.setattr(fastsoftmax, "sample", spy)
    call("sample", file)
    call("sample", file, "--temperature", "inf", "--top-k", 3, "--top-p", 0.5, "--min-p", 0.1)
    assert seen == [
        {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None},
        {"temperature": np.inf, "top_k": 3, "top_p": 0.5, "min_p": 0.1},
    ]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["softmax", "sample", "top-k"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"1 2 3\n", "not a .npy file"),
        (b"PK\x03\x04", ".npz archive"),
        (b"\x93NUMPY\x01\x00", "damaged .npy file"),
        # NumPy's reader raises TokenError, SyntaxError, and a ValueError with two lines of text.
        (header("{'descr': '<f4', 'shape': (2, 3), }]"), "damaged .npy file: "),
        (header("{'descr': ',f4', 'fortran_order': False, 'shape': (6,)}"), "damaged .npy file: "),
        (header("{'descr': '<f4', }" + " " * 20_000), "damaged .npy file: Header info length"),
        (np.array([{}, []], dtype=object), "object is stored as a pickle"),
        (np.zeros(3, complex), "dtype complex128 is not supported; allowed: float16, float32"),
        (np.array(["a"]), "dtype <U1 is not supported; allowed: float16, float32"),
        (np.zeros(1, "M8[D]"), "is not supported"),
        (np.zeros((2, 0)), "shape (2, 0) has no elements"),
    ],
)
def test_bad_files(call, tmp_path, command, content, message):
    path = tmp_path / "bad.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    code, out, err = call(command, path)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastsoftmax {command}: {path}: ")
    assert message in err
    assert err.count("\n") == 1


def test_truncated_file_and_directory(call, file, tmp_path):
    file.write_bytes(file.read_bytes()[:-4])
    code, _, err = call("softmax", file)
    assert code == 2
    assert f"{file}: damaged .npy file" in err
    code, _, err = call("softmax", tmp_path)
    assert code == 2
    assert f"{tmp_path}: Is a directory" in err


def test_a_row_that_cannot_be_drawn_from_is_named(call, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([[0.0, 1.0], [np.nan, 0.0]]))
    code, out, err = call("sample", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastsoftmax sample: {path}: ")
    assert "1" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["softmax", "FILE", "--temperature", "-1"], ["--temperature", "-1", "from 0 up"]),
        (["softmax", "FILE", "--temperature", "nan"], ["--temperature", "nan", "from 0 up"]),
        (["softmax", "FILE", "--axis", "2"], ["--axis 2", "x.npy", "(3, 7)", "-2 to 1, or all"]),
        (["softmax", "FILE", "--axis", "b"], ["--axis b", "-2 to 1, or all"]),
        (["top-k", "FILE", "--axis", "all"], ["--axis all", "-2 to 1"]),
        (["top-k", "FILE", "--k", "8"], ["--k 8", "x.npy", "7 entries", "0 to 7"]),
        (["top-k", "FILE", "--k", "-1"], ["--k", "-1", "from 0 up"]),
        (["sample", "FILE", "--top-p", "1.5"], ["--top-p", "1.5", "from 0 to 1"]),
        (["sample", "FILE", "--min-p", "x"], ["--min-p", "x", "from 0 to 1"]),
        (["sample", "FILE", "--top-k", "2.5"], ["--top-k", "2.5", "whole number"]),
        (["sample", "FILE", "--draws", "0"], ["--draws", "0", "1 to 1000000"]),
        (["sample", "FILE", "--seed", "-3"], ["--seed", "-3", "from 0 up"]),
        (["softmax", "FILE", "--output", "p.txt"], ["--output p.txt", "end in .npy"]),
        (["softmax", "FILE", "--output", "no/such/p.npy"], ["no/such/p.npy", "No such file"]),
        (["demo", "--row", "round"], ["--row", "round", "peaked", "middling", "flat"]),
        (["nothing"], ["nothing", "softmax"]),
        ([], ["give a command"]),
    ],
)
def test_bad_arguments(call, file, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*[file if a == "FILE" else a for a in argv])
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    for word in words:
        assert word in err.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("command", ["softmax", "sample", "top-k"])
def test_output_is_replaced_only_with_force(call, file, tmp_path, command):
    target = tmp_path / "out.npy"
    target.write_bytes(b"precious")
    options = ["--k", 2] if command == "top-k" else []
    code, out, err = call(command, file, "--output", target, *options)
    assert (code, out) == (2, "")
    assert err == f"fastsoftmax {command}: --output {target}: the file exists; " \
                  "--force replaces it\n"
    assert target.read_bytes() == b"precious"
    assert call(command, file, "--output", target, "--force", *options)[0] == 0
    assert np.load(target).shape[0] == 3


def test_output_that_is_a_directory(call, file, tmp_path):
    (tmp_path / "d.npy").mkdir()
    code, _, err = call("softmax", file, "--output", tmp_path / "d.npy", "--force")
    assert code == 2
    assert "not a regular file" in err


def test_failed_write_leaves_the_old_file(call, file, tmp_path, monkeypatch):
    def half(stream, array, **_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    target = tmp_path / "out.npy"
    target.write_bytes(b"precious")
    monkeypatch.setattr(np, "save", half)
    code, _, err = call("softmax", file, "--output", target, "--force")
    assert code == 2
    assert "No space left" in err
    assert target.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npy", "x.npy"]


# ---- demo ----------------------------------------------------------------------------------------


def test_demo_data():
    data = demo.load()
    assert data.names == ["peaked", "middling", "flat"]
    assert data.logits.shape == (3, 49152)
    assert data.logits.dtype == np.float32
    p = _reference.softmax(data.logits.astype(float)).max(axis=-1)
    assert p[0] > 0.9 > 0.75 > p[1] > 0.6 > 0.2 > p[2]
    top = _reference.top_k(data.logits[1], 3).indices
    assert [data.token(i) for i in top] == ['" the"', '" a"', '" that"']
    assert data.prefixes[1].endswith("the next word is drawn from")
    assert data.token(0) == '"<|endoftext|>"'


def test_demo_table(call):
    code, out, err = call("demo")
    assert (code, err) == (0, "")
    assert ESCAPE not in out
    assert max(map(len, out.splitlines())) <= 80
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    assert lines["token"] == ["token", "score", "as", "scored", "T", "0.8", "top-k", "40",
                              "top-p", "0.95", "min-p", "0.05", "drawn"]
    assert lines["tokens"] == ["tokens", "left", "49152", "49152", "40", "3", "2", "20"]
    table = out[out.index("Before"):]
    the, that, this = (next(s for s in table.splitlines() if f'" {word}"' in s)
                       for word in ("the", "that", "this"))
    assert the.split()[2:] == ["21.76", "70.5%", "84.0%", "84.3%", "86.7%", "90.3%", "16"]
    assert that.split()[-3:] == ["3.9%", "removed", "-"]
    assert this.split()[-4:] == ["0.5%", "removed", "-", "-"]
    checks = out[out.index("Checked"):].splitlines()[1:]
    assert len(checks) == 4
    assert all(line.startswith("  ok  ") for line in checks)


@pytest.mark.parametrize("row", ["peaked", "middling", "flat"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"temperature": 0},
        {"temperature": np.inf, "top_k": 5},
        {"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0.01},
        {"temperature": 1, "top_k": 0, "top_p": 0.9, "min_p": 0},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.5, "min_p": 0},
        {"top_p": 0, "min_p": 1},
    ],
)
def test_demo_stages_are_what_sample_does(call, row, knobs):
    words = [w for n, v in knobs.items() for w in (f"--{n.replace('_', '-')}", v)]
    code, out, _ = call("demo", "--row", row, "--draws", 20, "--seed", 3, *words)
    assert code == 0, out
    data = demo.load()
    options = cli.build_parser().parse_args(["demo", *map(str, words)])
    row = data.logits[data.names.index(row)]
    order, made = demo.stages(row, options)
    left, p = made[-1].left, made[-1].probs
    assert p.sum() == pytest.approx(1)
    assert not p[left:].any()
    # In the reference the middle of a survivor's share of [0, 1) must draw that survivor.
    ids = np.sort(order[:left])
    ends = np.cumsum(p[np.argsort(order)][ids])
    for i in (0, len(ids) // 2, len(ids) - 1):
        u = ((ends[i - 1] if i else 0) + ends[i]) / 2
        drawn = _reference.sample(
            row,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            rng=Uniforms([u]),
        )
        assert drawn == ids[i]


def test_demo_draws_follow_the_seed(call):
    def drawn(seed):
        out = call("demo", "--row", "flat", "--seed", seed)[1]
        return out[out.index("Drawn"):out.index("Checked")].split("\n", 1)[1]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_demo_check_fails_on_wrong_probabilities(call, monkeypatch):
    right = fastsoftmax.softmax
    monkeypatch.setattr(fastsoftmax, "softmax",
                        lambda x, *a, **k: right(x, *a, **k) * x.dtype.type(1 + 45 * 2**-24))
    code, out, _ = call("demo")
    assert code == 1
    # The planted 45 u come on top of the kernel's own error, which is no part of the reference's.
    _, found, rest = out.partition("FAILED  probabilities: largest deviation ")
    assert found
    assert float(rest.split()[0]) >= 40
    assert out.count("FAILED") == 1


def test_demo_check_fails_on_wrong_ids(call, monkeypatch):
    monkeypatch.setattr(fastsoftmax, "sample", lambda logits, **_: np.full(len(logits), 7))
    code, out, _ = call("demo")
    assert code == 1
    assert "FAILED  sample: the first 20 ids agree" in out
    assert "FAILED  sample: all 20 ids are among the 2 tokens left" in out


def test_demo_check_fails_on_wrong_order(call, monkeypatch):
    right = fastsoftmax.top_k

    def swapped(x, k, **how):
        values, indices = right(x, k, **how)
        if x.ndim > 1:
            indices[:, [0, 1]] = indices[:, [1, 0]]
        return fastsoftmax.TopK(values, indices)

    monkeypatch.setattr(fastsoftmax, "top_k", swapped)
    code, out, _ = call("demo")
    assert code == 1
    assert "FAILED  top-k" in out


# ---- selftest and info ---------------------------------------------------------------------------


def test_selftest(call):
    code, out, err = call("selftest")
    assert (code, err) == (0, "")
    names = _dispatch.runnable()
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", name] for name in names]
    for line in out.splitlines():
        share = line.partition("largest error ")[2].partition("% of the bound")[0]
        assert 0 < float(share) <= 100


def nonzero(p, x):
    return np.where(np.isneginf(x) & (p == 0), np.float32(1e-40), p)


def drifting(p, x):
    with np.errstate(invalid="ignore"):
        d = np.where(p > 0, x.max(axis=-1, keepdims=True) - x, 0)
        return (p * (1 + 3 * d.astype(float) * 2**-24)).astype(np.float32)


BROKEN = {
    "softmax off by 40 u": ("softmax", lambda right, x, **k: right(x, **k) * np.float32(1.0000024)),
    "softmax without NaN": ("softmax", lambda right, x, **k: np.nan_to_num(right(x, **k))),
    "softmax not 0 at -inf": ("softmax", lambda right, x, **k: nonzero(right(x, **k), x)),
    "softmax off by 3 |d| u": ("softmax", lambda right, x, **k: drifting(right(x, **k), x)),
    "log_softmax": ("log_softmax", lambda right, x, **k: right(x, **k) + np.float32(1e-5)),
    "logsumexp": ("logsumexp", lambda right, x, **k: right(x, **k) + np.float32(1e-4)),
    "top_k": ("top_k", lambda right, x, k, **h: fastsoftmax.TopK(*(a[..., ::-1] for a in
                                                                  right(x, k, **h)))),
    "sample": ("sample", lambda right, x, **k: right(x, **k) % 40),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_selftest_fails_on_a_wrong_build(call, monkeypatch, fault):
    name, wrong = BROKEN[fault]
    functions = {n: getattr(_reference, n)
                 for n in ("softmax", "log_softmax", "logsumexp", "top_k", "sample")}
    right, cases = functions[name], selftest.cases
    monkeypatch.setattr(selftest, "cases", lambda: itertools.islice(cases(), 40))  # sooner done
    functions[name] = lambda *a, **k: wrong(right, *a, **k)
    monkeypatch.setattr(_dispatch, "runnable", lambda: ("reference", "broken"))
    monkeypatch.setattr(_dispatch, "load", lambda which: _reference if which == "reference"
                        else SimpleNamespace(**functions))
    code, out, _ = call("selftest")
    assert code == 1
    good, bad = out.splitlines()
    assert good.startswith("ok  reference")
    assert bad.startswith("FAILED  broken")
    assert f"first: {name}" in bad


def test_info(call, capsys):
    fastsoftmax.show_config()
    want = capsys.readouterr().out
    assert call("info") == (0, want, "")
    code, out, err = call("info", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == fastsoftmax.show_config(mode="dicts")


def test_version(call):
    assert call("--version") == (0, f"fastsoftmax {fastsoftmax.__version__}\n", "")


def test_help_names_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for command in ("demo", "softmax", "top-k", "sample", "info", "selftest"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_one_command_s_defaults_stay_its_own():
    parser = cli.build_parser()
    demo, sample = parser.parse_args(["demo"]), parser.parse_args(["sample", "x.npy"])
    assert (demo.temperature, demo.top_k, demo.draws) == (0.8, 40, 20)
    assert (sample.temperature, sample.top_k, sample.draws) == (1.0, None, 1)


# ---- terminals and pipes -------------------------------------------------------------------------


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
    with subprocess.Popen([sys.executable, "-W", "ignore", "-m", "fastsoftmax", "demo"],
                          stdout=side, stderr=side, env=environment) as process:
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
    command = [sys.executable, "-W", "ignore", "-m", "fastsoftmax",
               *[str(path) if a == "FILE" else a for a in argv]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def in_shell(redirection, *argv):
    """Run ``python -m fastsoftmax`` through a shell that closes streams before."""
    command = [sys.executable, "-W", "ignore", "-m", "fastsoftmax", *argv]
    done = subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *command],
                          capture_output=True, text=True, timeout=60)
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
        done = subprocess.run([sys.executable, "-W", "ignore", "-m", "fastsoftmax", "info"],
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "fastsoftmax: standard output: No space left on device\n"
