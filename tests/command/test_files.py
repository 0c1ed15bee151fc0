"""The commands that read a .npy file: what they print and write, and what they refuse."""

import io

import numpy as np
import pytest

import fastsoftmax


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
        (b"PK\x03\x04", "damaged .npz file"),
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


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("1 2 3\n4 5 6\n", ""),
        ("# softmax of x.npy\n1 2 3\n4 5 6\n", ""),
        ("1,2,3\n4,5,6\n", ", delimiter=','"),
        ("cat,dog,horse\n1,2,3\n4,5,6\n", ", delimiter=',', skiprows=1"),
        ("a\tb\tc d\n1\t2\t3\n4\t5\t6\n", ", delimiter='\\t', skiprows=1"),
    ],
)
def test_text_is_told_how_to_become_an_array(call, tmp_path, monkeypatch, text, arguments):
    path = tmp_path / "x.csv"
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    code, out, err = call("softmax", path)
    assert (code, out) == (2, "")
    advice = err.partition("numpy.save is needed: ")[2]
    assert advice == f"numpy.save('scores.npy', numpy.loadtxt({str(path)!r}{arguments}))\n"
    exec(advice, {"numpy": np})
    np.testing.assert_array_equal(np.load("scores.npy"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("content", ["{}\n", "words, words\nand words\n", "\n\n", "\0\1", "a"])
def test_other_text_is_not(call, tmp_path, content):
    path = tmp_path / "x.txt"
    path.write_text(content)
    assert call("softmax", path)[2].endswith("a file written by numpy.save is needed\n")


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
    assert err == (
        f"fastsoftmax sample: {path}: NaN in row 1; "
        "allowed are rows of finite numbers and -inf, one of them finite\n"
    )
    np.save(path, [-np.inf])
    assert call("sample", path)[2].startswith(f"fastsoftmax sample: {path}: nothing above -inf in ")


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
    assert (
        err == f"fastsoftmax {command}: --output {target}: the file exists; --force replaces it\n"
    )
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
