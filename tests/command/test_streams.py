"""Standard input and output for files, archives of arrays, a heading of text, help and info."""

import io
import sys

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax._command import cli
from tests.command.conftest import Terminal


def npy(array):
    """Return the bytes of a .npy file."""
    memory = io.BytesIO()
    np.save(memory, array)
    return memory.getvalue()


@pytest.fixture
def on_input(monkeypatch):
    """Put bytes on standard input."""

    def put(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


# ---- standard input and output -------------------------------------------------------------------


def test_standard_input(call, on_input, file, x):
    for command, *options in (["softmax"], ["top-k", "--k", 2], ["sample", "--seed", 1]):
        on_input(npy(x))
        assert call(command, "-", *options) == call(command, file, *options)


def test_standard_output(capsysbinary, file, x):
    assert cli.main(["softmax", str(file), "--output", "-"]) == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    np.testing.assert_array_equal(np.load(io.BytesIO(out)), fastsoftmax.softmax(x))


def test_a_pipe_of_commands(capsysbinary, on_input, file, x):
    assert cli.main(["softmax", str(file), "--log", "--output", "-"]) == 0
    on_input(capsysbinary.readouterr().out)
    assert cli.main(["top-k", "-", "--k", "2", "--output", "-"]) == 0
    both = np.load(io.BytesIO(capsysbinary.readouterr().out))
    np.testing.assert_array_equal(both["indices"], fastsoftmax.top_k(x, 2).indices)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"1 2 3\n", "not a .npy file"),
        (npy(np.zeros(3))[:-1], "damaged .npy file"),
        (npy(np.array([np.nan])), "NaN in the row"),
        (npy(np.zeros((2, 3))), None),
    ],
)
def test_errors_name_standard_input(call, on_input, content, says):
    on_input(content)
    argv = ["sample", "-"] if says else ["softmax", "-", "--axis", 2]
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    want = f"sample: standard input: {says}" if says else "softmax: --axis 2: standard input has"
    assert err.startswith(f"fastsoftmax {want}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("stdin", [None, Terminal()])
def test_no_standard_input(call, monkeypatch, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, err = call("softmax", "-")
    assert (code, out) == (2, "")
    assert "pipe a .npy file into it" in err


def test_no_bytes_on_a_terminal(on_terminal, file, capsys):
    code, shown = on_terminal("softmax", file, "--output", "-")
    assert (code, shown) == (2, "")
    assert "standard output is a terminal" in capsys.readouterr().err


# ---- archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(call, tmp_path, on_input, file, x, save):
    path = tmp_path / "x.npz"
    save(path, logits=x, other=np.zeros(3))
    want = call("softmax", file)
    assert call("softmax", path, "--key", "logits") == want
    on_input(path.read_bytes())
    assert call("softmax", "-", "--key", "logits") == want
    save(path, x)  # the only one
    assert call("softmax", path) == want


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ("ab", [], "a .npz archive of a, b; --key takes one of these"),
        ("ab", ["--key", "c"], "--key c: {} is a .npz archive of a, b"),
        ("ab", ["--key", ""], "--key : {} is a .npz archive of a, b"),
        ("abcdefghijk", [], "archive of a, b, c, d, e, f, g, h, i, ...; --key"),
        ("", [], "a .npz archive of nothing; --key"),
        ("\n\t", [], r"a .npz archive of '\n', '\t'; --key"),
    ],
)
def test_keys(call, tmp_path, arrays, options, says):
    path = tmp_path / "x.npz"
    np.savez(path, **dict.fromkeys(arrays, np.zeros(3)))
    code, out, err = call("softmax", path, *options)
    assert (code, out) == (2, "")
    assert says.format(path) in err
    assert err.count("\n") == 1


def test_a_key_of_a_single_array(call, file):
    code, _, err = call("softmax", file, "--key", "a")
    assert code == 2
    assert f"--key a: {file} is a .npy file, which holds one array" in err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-30], "damaged .npz file"),
        (lambda data: data.replace(b"\x93NUMPY", b"spam12"), "damaged .npz file"),
        (lambda data: data.replace(b"'<f8'", b"'|O8'"), "damaged .npz file"),
    ],
)
def test_damaged_archives(call, tmp_path, change, says):
    path = tmp_path / "x.npz"
    np.savez(path, np.zeros(3))
    path.write_bytes(change(path.read_bytes()))
    code, out, err = call("softmax", path)
    assert (code, out) == (2, "")
    assert f"{path}: {says}" in err
    assert err.count("\n") == 1


def test_objects_in_archives_are_not_loaded(call, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, np.array([{}]))
    assert "stored as a pickle, which is never loaded" in call("softmax", path)[2]


# ---- text ----------------------------------------------------------------------------------------


def test_header(call, file, x):
    for command, start in (
        ("softmax", "softmax of"),
        ("top-k", "row, index, value of the 2 largest in"),
        ("sample", "ids drawn for each row of"),
    ):
        options = ["--k", 2] if command == "top-k" else ["--seed", 1] * (command == "sample")
        _, plain, _ = call(command, file, *options)
        _, out, _ = call(command, file, "--header", *options)
        first, rest = out.split("\n", 1)
        assert first.startswith(f"# {start} {file}: float32 (3, 7)")
        assert rest == plain
        assert np.loadtxt(io.StringIO(out)).size == np.loadtxt(io.StringIO(plain)).size


@pytest.mark.parametrize("command", ["demo", "softmax", "top-k", "sample", "info", "selftest"])
def test_help_shows_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    example = out.split("example: ")[1]
    assert f"fastsoftmax {command}" in example


def test_info_names_the_environment_variable(call):
    assert "environment: FASTSOFTMAX_IMPL=NAME asks for another" in call("info")[1]
