"""Reading and writing .npy files, and reading .npz; what is wrong becomes a `CliError`."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

DTYPES = "float16, float32, float64, integers or bool"


class CliError(Exception):
    """A mistake in what the user gave: one line on stderr, no traceback, exit code 2."""


def name_of(path: str) -> str:
    """Return what errors call the file `path`."""
    return "standard input" if path == "-" else path


def opened(path: str) -> BinaryIO:
    """Return the file `path`, or what there is on standard input for ``-``."""
    if path != "-":
        return open(path, "rb")
    if sys.stdin is None:
        raise CliError("standard input is closed; pipe a .npy file into it")
    if sys.stdin.isatty():
        raise CliError("standard input is a terminal; pipe a .npy file into it")
    return io.BytesIO(sys.stdin.buffer.read())


def load_array(path: str, key: str | None = None) -> np.ndarray:
    """Return an array from a file, or raise a `CliError` that says what is wrong.

    Parameters
    ----------
    path : str
        A .npy file, or a .npz archive of such; ``-`` for standard input.
    key : str, optional
        Which array of an archive; one that has a single array needs none.
    """
    name, kind = name_of(path), "npy"
    try:
        with opened(path) as file:
            # Looked at first: NumPy takes anything without this mark for a pickle.
            start = file.read(6)
            if not start:
                raise CliError(f"{name}: the file is empty; a .npy file (numpy.save) is needed")
            file.seek(0)
            if start.startswith(b"PK"):
                kind = "npz"
                array = from_archive(file, name, key)
            elif start != b"\x93NUMPY":
                raise CliError(f"{name}: not a .npy file (it starts with {start!r}); a file "
                               "written by numpy.save is needed"
                               f"{how_to_convert(path, file.read(2**16))}")
            elif key is not None:
                raise CliError(f"--key {key}: {name} is a .npy file, which holds one array")
            else:
                array = npy().read_array(file, allow_pickle=False)
    except OSError as error:
        raise CliError(f"{name}: {error.strerror or error}") from None
    except CliError:
        raise
    except Exception as error:  # NumPy's reader has one for each way to be damaged
        if "Object arrays" in str(error):
            raise CliError(f"{name}: dtype object is stored as a pickle, which is never loaded "
                           f"because it can run code; allowed: {DTYPES}") from None
        why = " ".join(str(error).split()) or type(error).__name__
        raise CliError(f"{name}: damaged .{kind} file: {why}") from None
    if array.dtype.kind not in "fiub":
        raise CliError(f"{name}: dtype {array.dtype} is not supported; allowed: {DTYPES}")
    if array.size == 0:
        raise CliError(f"{name}: shape {array.shape} has no elements")
    return array


def how_to_convert(path: str, start: bytes) -> str:
    """Return how the file `path`, whose `start` is lines of numbers, is made a .npy file, or ""."""
    lines = [line for line in start.decode(errors="replace").splitlines()
             if line.strip()[:1] not in ("", "#")]  # loadtxt leaves these out
    delimiter = next((mark for mark in ",;\t" if lines and mark in lines[0]), None)
    arguments = [repr(path if path != "-" else "/dev/stdin")]
    arguments += [f"delimiter={delimiter!r}"] * (delimiter is not None)
    for names, line in enumerate(lines[:2]):  # the first line may be the columns' names
        with contextlib.suppress(ValueError):
            [float(word) for word in line.split(delimiter)]
            arguments += ["skiprows=1"] * names
            return f": numpy.save('scores.npy', numpy.loadtxt({', '.join(arguments)}))"
    return ""


def npy() -> Any:
    """Return NumPy's module of the .npy format."""
    from numpy.lib import format as module

    return module


def from_archive(file: BinaryIO, name: str, key: str | None) -> np.ndarray:
    """Return the array called `key`, or the only one, of the .npz archive `file`, called `name`."""
    import zipfile

    with zipfile.ZipFile(file) as archive:
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}
        shown = [key if key.isprintable() else ascii(key) for key in members]
        arrays = ", ".join(shown[:9]) + ", ..." * (len(shown) > 9) or "nothing"
        if key is None and len(members) != 1:
            raise CliError(f"{name}: a .npz archive of {arrays}; --key takes one of these")
        if key is not None and key not in members:
            raise CliError(f"--key {key}: {name} is a .npz archive of {arrays}")
        with archive.open(members[key] if key else next(iter(members.values()))) as member:
            return npy().read_array(member, allow_pickle=False)


def check_output(path: str | None, force: bool) -> None:
    """Raise a `CliError` if `path` must not be written; `force` lets it replace a file."""
    if path == "-" and sys.stdout.isatty():
        raise CliError("--output -: standard output is a terminal, and a .npy file is no text")
    if path is None or path == "-":
        return
    if not path.endswith(".npy"):
        raise CliError(f"--output {path}: the name must end in .npy")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise CliError(f"--output {path}: not a regular file")
    if os.path.exists(path) and not force:
        raise CliError(f"--output {path}: the file exists; --force replaces it")


def save_array(path: str, array: np.ndarray) -> None:
    """Write `array` to a file beside `path` and rename that: `path` never holds half a file.

    Write to standard output for ``-``.
    """
    import numpy as np

    if path == "-":
        memory = io.BytesIO()  # NumPy asks a file where it stands, which a pipe cannot tell
        np.save(memory, array, allow_pickle=False)
        sys.stdout.buffer.write(memory.getbuffer())
        return
    path = os.path.realpath(path)  # a link stays a link
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(temporary, path)
    except OSError as error:
        raise CliError(f"--output {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@contextlib.contextmanager
def blaming(path: str) -> Iterator[None]:
    """Make what the library finds wrong with an array a `CliError` about the file `path`.

    In the command's words: no argument of a function is named, and rows have numbers.
    """
    try:
        yield
    except (TypeError, ValueError, MemoryError) as error:
        text = re.sub(r"^(logits|x) has |  *\(or pass [^)]*\)", "", str(error))
        text = re.sub(r"row \((\d+),\)", r"row \1", text)
        raise CliError(f"{name_of(path)}: {text}") from None
