"""Reading and writing .npy files; what is wrong with one becomes a `CliError`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DTYPES = "float16, float32, float64, integers or bool"


class CliError(Exception):
    """A mistake in what the user gave: one line on stderr, no traceback, exit code 2."""


def load_array(path: str) -> np.ndarray:
    """Return the array in the .npy file `path`, or raise a `CliError` that says what is wrong."""
    from numpy.lib import format as npy

    try:
        with open(path, "rb") as file:
            # Looked at first: NumPy takes anything without this mark for a pickle.
            start = file.read(6)
            if not start:
                raise CliError(f"{path}: the file is empty; a .npy file (numpy.save) is needed")
            if start.startswith(b"PK"):
                raise CliError(f"{path}: this is a .npz archive; give one of its arrays as a .npy")
            if start != b"\x93NUMPY":
                raise CliError(f"{path}: not a .npy file (it starts with {start!r}); "
                               "a file written by numpy.save is needed")
            file.seek(0)
            array = npy.read_array(file, allow_pickle=False)
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}") from None
    except CliError:
        raise
    except Exception as error:  # NumPy's reader has one for each way to be damaged
        if "Object arrays" in str(error):
            raise CliError(f"{path}: dtype object is stored as a pickle, which is never loaded "
                           f"because it can run code; allowed: {DTYPES}") from None
        why = " ".join(str(error).split()) or type(error).__name__
        raise CliError(f"{path}: damaged .npy file: {why}") from None
    if array.dtype.kind not in "fiub":
        raise CliError(f"{path}: dtype {array.dtype} is not supported; allowed: {DTYPES}")
    if array.size == 0:
        raise CliError(f"{path}: shape {array.shape} has no elements")
    return array


def check_output(path: str | None, force: bool) -> None:
    """Raise a `CliError` if `path` must not be written; `force` lets it replace a file."""
    if path is None:
        return
    if not path.endswith(".npy"):
        raise CliError(f"--output {path}: the name must end in .npy")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise CliError(f"--output {path}: not a regular file")
    if os.path.exists(path) and not force:
        raise CliError(f"--output {path}: the file exists; --force replaces it")


def save_array(path: str, array: np.ndarray) -> None:
    """Write `array` to a file beside `path` and rename that: `path` never holds half a file."""
    import numpy as np

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
    """Make what the library finds wrong with an array a `CliError` about the file `path`."""
    try:
        yield
    except (TypeError, ValueError, MemoryError) as error:
        raise CliError(f"{path}: {error}") from None
