"""The ``fastsoftmax`` command: look at the library, use it on a .npy file, check the build.

Exit codes: 0 done, 1 a check failed (``demo``, ``selftest``), 2 a mistake in what was given.
NumPy and the demo's data are imported by the commands that need them, so ``--help`` stays quick.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    import numpy as np

DTYPES = "float16, float32, float64, integers or bool"
WHOLE = "a whole number from 0 up"
ROWS_ON_TERMINAL = 10  # a summary; a pipe or --output gets everything


class CliError(Exception):
    """A mistake in what the user gave: one line on stderr, no traceback, exit code 2."""


class Screen:
    """What a text stream can show: colours and bars on a terminal, plain text elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.color = (
            self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self.encoding = stream.encoding or "ascii"
        self.blocks = " ▏▎▍▌▋▊▉█" if self.showable("▏█") == "▏█" else " #"
        self.width = shutil.get_terminal_size().columns

    def showable(self, text: str) -> str:
        """`text` with everything the stream's encoding lacks written as an escape."""
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def say(self, text: str = "") -> None:
        """Print one line."""
        print(self.showable(text).rstrip(), file=self.stream)

    def paint(self, text: str, code: str) -> str:
        """`text` in an ANSI colour, where colours are wanted."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def bar(self, fraction: float, width: int) -> str:
        """A bar `width` cells long at `fraction` 1; empty when not on a terminal."""
        if not self.terminal:
            return ""
        steps = len(self.blocks) - 1
        full, rest = divmod(round(fraction * max(width, 0) * steps), steps)
        return self.paint(self.blocks[-1] * full + (self.blocks[rest] if rest else ""), "36")


# ---- files -------------------------------------------------------------------------------------


def load_array(path: str) -> np.ndarray:
    """The array in a .npy file, or a `CliError` that says what is wrong with the file."""
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
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise CliError(f"{path}: dtype object is stored as a pickle, which is never loaded "
                           f"because it can run code; allowed: {DTYPES}") from None
        raise CliError(f"{path}: damaged .npy file: {error}") from None
    if array.dtype.kind not in "fiub":
        raise CliError(f"{path}: dtype {array.dtype} is not supported; allowed: {DTYPES}")
    if array.size == 0:
        raise CliError(f"{path}: shape {array.shape} has no elements")
    return array


def check_output(path: str | None, force: bool) -> None:
    """Refuse an output that could not be written, before any work is done."""
    if path is None:
        return
    if not path.endswith(".npy"):
        raise CliError(f"--output {path}: the name must end in .npy")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise CliError(f"--output {path}: not a regular file")
    if os.path.exists(path) and not force:
        raise CliError(f"--output {path}: the file exists; --force replaces it")


def save_array(path: str, array: np.ndarray) -> None:
    """Write `array` beside `path` and rename: `path` never holds half a file."""
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
def blame(path: str) -> Iterator[None]:
    """What the library finds wrong with an array is the file's fault, not a crash."""
    try:
        yield
    except (TypeError, ValueError, MemoryError) as error:
        raise CliError(f"{path}: {error}") from None


def axis_for(text: str, array: np.ndarray, path: str, also: str = "") -> int:
    """``--axis`` as a number, checked; `also` ends the list of what is allowed."""
    ndim = max(array.ndim, 1)
    try:
        axis = int(text)
    except ValueError:
        axis = ndim
    if not -ndim <= axis < ndim:
        raise CliError(f"--axis {text}: {path} has shape {array.shape}; "
                       f"allowed: {-ndim} to {ndim - 1}{also}")
    return axis


def deliver(
    options: argparse.Namespace, array: np.ndarray, heading: str, lines: Iterable[str]
) -> int:
    """Save the result where --output asks for it, else print it: all of it when piped."""
    screen = Screen(sys.stdout)
    if options.output is not None:
        save_array(options.output, array)
        screen.say(f"{options.output}: {array.dtype}, shape {array.shape}")
        return 0
    if screen.terminal:
        screen.say(screen.paint(heading, "1"))
    for number, line in enumerate(lines):
        if screen.terminal and number == ROWS_ON_TERMINAL:
            screen.say("... (the rest goes to a pipe or to --output)")
            break
        screen.say(line)
    return 0


# ---- commands ----------------------------------------------------------------------------------


def run_softmax(options: argparse.Namespace) -> int:
    """``softmax FILE``: probabilities, or their logarithms with ``--log``."""
    import numpy as np

    import fastsoftmax

    check_output(options.output, options.force)
    x = load_array(options.file)
    whole = options.axis == "all"
    axis = None if whole else axis_for(options.axis, x, options.file, ", or all")
    function = fastsoftmax.log_softmax if options.log else fastsoftmax.softmax
    with blame(options.file):
        y = function(x, axis, temperature=options.temperature)
    name = "log_softmax" if options.log else "softmax"
    heading = f"{name} of {options.file}: {x.dtype} {x.shape}, axis {options.axis}"
    if Screen(sys.stdout).terminal:
        rows = y.reshape(1, -1) if axis is None else np.moveaxis(np.atleast_1d(y), axis, -1)
        lines = row_bars(rows.reshape(-1, rows.shape[-1]), options.log)
    else:
        lines = (" ".join(map(str, row)) for row in y.reshape(-1, y.shape[-1] if y.ndim else 1))
    return deliver(options, y, heading, lines)


def row_bars(rows: np.ndarray, log: bool) -> Iterator[str]:
    """For each row its five largest entries, as index, value and bar."""
    import numpy as np

    import fastsoftmax

    screen = Screen(sys.stdout)
    for number, row in enumerate(rows):
        values, indices = fastsoftmax.top_k(row, min(5, row.size))
        parts = [f"row {number}: the {len(values)} largest of {row.size}"]
        for value, index in zip(values, indices, strict=True):
            share = float(np.exp(value) if log else value)
            bar = screen.bar(share, screen.width - 26) if np.isfinite(share) else ""
            parts.append(f"{index:>10}  {value:<12.6g} {bar}")
        yield "\n".join(parts)


def run_top_k(options: argparse.Namespace) -> int:
    """``top-k FILE``: the k largest (or smallest) entries of each row, as "row index value"."""
    import numpy as np

    import fastsoftmax

    check_output(options.output, options.force)
    x = np.atleast_1d(load_array(options.file))
    axis = axis_for(options.axis, x, options.file)
    length = x.shape[axis]
    if options.k > length:
        raise CliError(f"--k {options.k}: the rows of {options.file} along axis {options.axis} "
                       f"have {length} entries; allowed: 0 to {length}")
    mode: Literal["largest", "smallest"] = "smallest" if options.smallest else "largest"
    with blame(options.file):
        values, indices = fastsoftmax.top_k(x, options.k, axis=axis, mode=mode)
    # One array with two named fields, so that one .npy file holds both.
    both = np.empty(values.shape, dtype=[("values", values.dtype), ("indices", indices.dtype)])
    both["values"], both["indices"] = values, indices
    rows = np.moveaxis(both, axis, -1).reshape(-1, options.k) if options.k else both[:0]
    heading = f"row, index, value of the {options.k} {mode} in {options.file}: {x.dtype} {x.shape}"
    return deliver(options, both, heading, (
        "\n".join(f"{number} {entry['indices']} {entry['values']}" for entry in row)
        for number, row in enumerate(rows)))


def run_sample(options: argparse.Namespace) -> int:
    """``sample FILE``: one line of drawn ids for each row."""
    import numpy as np

    import fastsoftmax

    check_output(options.output, options.force)
    x = np.atleast_1d(load_array(options.file))
    knobs = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    rng = np.random.default_rng(options.seed)
    with blame(options.file):
        draws = [fastsoftmax.sample(x, **knobs, rng=rng) for _ in range(options.draws)]
    ids = np.stack(draws, axis=-1)
    heading = f"ids drawn for each row of {options.file}: {x.dtype} {x.shape}"
    rows = ids.reshape(-1, options.draws)
    return deliver(options, ids, heading, (" ".join(map(str, row)) for row in rows))


def run_info(options: argparse.Namespace) -> int:
    """``info``: which implementation was chosen, and why."""
    import fastsoftmax

    if options.json:
        print(json.dumps(fastsoftmax.show_config(mode="dicts"), indent=2, default=str))
    else:
        fastsoftmax.show_config()
    return 0


def run_shown(options: argparse.Namespace) -> int:
    """``demo`` and ``selftest``: see `fastsoftmax._demo`."""
    from fastsoftmax import _demo

    command = _demo.demo if options.command == "demo" else _demo.selftest
    return command(options, Screen(sys.stdout))


# ---- arguments ---------------------------------------------------------------------------------


def number(
    convert: type[int] | type[float], low: float, high: float, allowed: str
) -> Callable[[str], float]:
    """An argparse type that accepts low <= value <= high and says what is allowed."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = convert(text)
            if low <= value <= high:  # False for NaN
                return value
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give {allowed}")

    return parse


def add_temperature(parser: argparse.ArgumentParser, default: float = 1.0) -> None:
    """``--temperature``."""
    parser.add_argument(
        "--temperature", metavar="T", default=default,
        type=number(float, 0, float("inf"), "a number from 0 up"),
        help="divide the scores by T: below 1 sharpens, above 1 flattens (default %(default)s)")


def add_knobs(
    parser: argparse.ArgumentParser, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, min_p: float | None = None, seed: int | None = None, draws: int = 1,
) -> None:
    """Everything `fastsoftmax.sample` can be told, with these defaults."""
    whole = number(int, 0, sys.maxsize, WHOLE)
    share = number(float, 0, 1, "a number from 0 to 1")
    add_temperature(parser, temperature)
    parser.add_argument("--top-k", metavar="K", type=whole, default=top_k,
                        help="keep the K most likely (0: all; default %(default)s)")
    parser.add_argument("--top-p", metavar="P", type=share, default=top_p,
                        help="keep the fewest whose probabilities reach P (default %(default)s)")
    parser.add_argument("--min-p", metavar="P", type=share, default=min_p,
                        help="drop what is below P times the most likely (default %(default)s)")
    parser.add_argument("--seed", metavar="N", type=number(int, 0, float("inf"), WHOLE),
                        default=seed, help="the same seed draws the same (default %(default)s)")
    parser.add_argument("--draws", metavar="N", default=draws,
                        type=number(int, 1, 10**6, "a whole number from 1 to 1000000"),
                        help="how many to draw for each row (default %(default)s)")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("file", metavar="FILE.npy", help=f"an array: {DTYPES}")
    files.add_argument("--output", metavar="OUT.npy", help="write the result there")
    files.add_argument("--force", action="store_true", help="let --output replace a file")

    parser = argparse.ArgumentParser(prog="fastsoftmax", description="Softmax, top-k and sampling.")
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str,
                *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=list(parents))
        made.set_defaults(run=run)
        return made

    demo = command("demo", run_shown, "a language model's real scores: what each setting does, "
                   "and a check against the reference")
    demo.add_argument("--row", choices=["peaked", "middling", "flat"], default="middling",
                      help="which scores are followed step by step (default %(default)s)")
    add_knobs(demo, temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=0, draws=20)
    softmax = command("softmax", run_softmax, "softmax of an array", files)
    softmax.add_argument("--axis", default="-1", help="a number, or all (default %(default)s)")
    add_temperature(softmax)
    softmax.add_argument("--log", action="store_true", help="log_softmax instead")
    top_k = command("top-k", run_top_k, "the k largest entries of each row", files)
    top_k.add_argument("--axis", default="-1", help="a number (default %(default)s)")
    top_k.add_argument("--k", metavar="K", type=number(int, 0, sys.maxsize, WHOLE), default=10,
                       help="how many (default %(default)s)")
    top_k.add_argument("--smallest", action="store_true", help="the smallest instead")
    sample = command("sample", run_sample, "draw ids from each row (last axis) of scores", files)
    add_knobs(sample)
    info = command("info", run_info, "version, chosen implementation, and why")
    info.add_argument("--json", action="store_true", help="the same as JSON")
    command("selftest", run_shown, "check this build against the reference (a few seconds)")
    return parser


def run(argv: list[str] | None) -> int:
    """Parse and do; errors of the user become exit code 2."""
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
        if not options.version and options.command is None:
            parser.error("give a command, or --help")
    except SystemExit as stop:  # argparse has printed what there is to say
        return int(stop.code or 0)
    if options.version:
        import fastsoftmax

        print(f"fastsoftmax {fastsoftmax.__version__}")
        return 0
    try:
        return int(options.run(options))
    except CliError as error:
        print(f"fastsoftmax {options.command}: {error}", file=sys.stderr)
        return 2


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default ``sys.argv[1:]``) and return the exit code."""
    try:
        code = run(argv)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader (`| head`) has enough
            return 0
        print(f"fastsoftmax: standard output: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code
