"""Damaged .npy and .npz files, and options, into the command: exit code 0, or 2 with one line."""

import contextlib
import io
import struct
import warnings
import zipfile

import numpy as np
from hypothesis import strategies as st

from fastsoftmax._command import cli

from .judge import FindingError
from .world import words

_DESCR = ["<f4"] * 40 + ["", "<f4,<f4", "(2,)<f4"]
_DESCR += words(">f8 <f2 |b1 <i8 |u1 |O <c8 |S3 <U2 <M8[s] |V5 <f16 f4 x4 <f0 <f999999999")
_SHAPES = words("""
(6,) (2,3) (3,2) () (1,6) (0,) (2,0) (6) 6 (-1,) (-2,-3) (6,)* (2**9,) (True,6) (6.0,) ('6',) None
(1,)*40 (99999999999,) (9223372036854775807,) (9223372036854775808,) (4611686018427387904,4)
(18446744073709551616,) (1099511627776,0) [2,3] {6} ((2,3),) ((((((((6,),),),),),),),) (2,3,
""")
_OTHERS = ["True", "False", "1", "None", "'a'", "()"]
_TEXTS = ["", "{", "{}", "()", "[]", "'", "'''", "((((((((((", "{'descr': '<f4'}", "1", "\\", "\0"]
_TEXTS += ["(" * 500, "-" * 3000 + "1", "{'a':" * 90, "[" * 99 + "]" * 99, "\n\n", "é", "1" * 5000]


@st.composite
def headers(draw):
    """Return the text of a header."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.one_of(st.sampled_from(_TEXTS), st.text(max_size=40)))
    fields = {
        "descr": repr(draw(st.sampled_from(_DESCR))),
        "fortran_order": draw(st.sampled_from(["False", "True"] * 9 + _OTHERS)),
        "shape": draw(st.sampled_from(["(6,)", "(2,3)"] * 15 + _SHAPES)),
    }
    if draw(st.integers(0, 7)) == 0:
        fields["descr"] = draw(st.sampled_from(["[('a','<f4')]", "{}", "(1,)", "None", "['<f4']"]))
    change = draw(st.integers(0, 9))
    if change == 0:
        del fields[draw(st.sampled_from(sorted(fields)))]
    elif change == 1:
        fields["more"] = "1"
    return "{" + "".join(f"{k!r}: {v}, " for k, v in fields.items()) + "}"


@st.composite
def contents(draw):
    """Return the bytes of a file, or of an archive of two."""
    if draw(st.integers(0, 4)):
        return draw(arrays())
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", draw(st.sampled_from([0, 8, 12]))) as archive:
        for name in draw(st.lists(st.sampled_from(["a.npy", "a", "b.npy", "\n.npy"]), unique=True)):
            archive.writestr(name, draw(arrays()))
    return damaged(draw, bytearray(memory.getvalue()))


@st.composite
def arrays(draw):
    """Return the bytes of a file of one array."""
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return b"\x93NUMPY" + draw(st.binary(max_size=200))
    line = draw(headers()).encode("utf-8", "surrogatepass") + b"\n"
    version = draw(st.sampled_from([1, 1, 1, 2, 3, 0, 4, 255]))
    length = draw(st.sampled_from([0] * 15 + [1, -1, 9999, 65000, 10**9]))
    size = max(0, len(line) + length)
    packed = struct.pack("<H", min(size, 65535)) if version == 1 else struct.pack("<I", size)
    data = np.arange(6, dtype="f4").tobytes() * draw(st.sampled_from([0, 1, 1, 1, 2]))
    file = b"\x93NUMPY" + bytes([version, draw(st.sampled_from([0, 0, 0, 1]))]) + packed
    return damaged(draw, bytearray(file + line + data))


def damaged(draw, file):
    """Return bytes of which some may be others or missing."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        file[draw(st.integers(0, len(file) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        del file[draw(st.integers(0, len(file))) :]
    return bytes(file)


_OPTIONS = words("""
--axis=0 --axis=-1 --axis=all --axis=99 --axis=x --axis=9999999999999999999999 --temperature=0
--temperature=inf --temperature=nan --temperature=-1 --temperature=1e999 --temperature=1e-300
--log --k=0 --k=3 --k=-1 --k=99999999999999999999 --k=1e3 --smallest --top-k=2 --top-k=-2
--top-p=0 --top-p=0.5 --top-p=2 --min-p=1 --min-p=nan --seed=0 --seed=-1
--seed=99999999999999999999999 --draws=2 --draws=0 --draws=x --force --output= --output=/
--key=a --key= --header --output=x.txt --output=/nowhere/x.npy --axis= --axis=١ --axis=1_0 --spam
""")


@st.composite
def commands(draw):
    """Return the words of a command, with FILE for the file, and what is in that file."""
    name = draw(st.sampled_from(["softmax", "top-k", "sample"]))
    options = draw(st.lists(st.sampled_from(_OPTIONS), max_size=2)) if draw(st.booleans()) else []
    return (name, "FILE", *options), draw(contents())


def judge_file(command, path):
    """Run a command on a file at `path`; raise a FindingError where it does what it may not."""
    words, content = command
    path.write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("error")
        try:
            code = cli.main([str(path) if word == "FILE" else word for word in words])
        except BaseException as error:
            raise FindingError(f"{type(error).__name__}: {error}") from error
    said = err.getvalue()
    if code == 0 and not said:
        return 0
    lines = [line for line in said.splitlines() if not line.startswith(("usage: ", " "))]
    if code != 2 or len(lines) != 1 or out.getvalue():
        raise FindingError(f"exit code {code}, stderr {said!r}, stdout {out.getvalue()[:99]!r}")
    return 2
