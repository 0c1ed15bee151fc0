"""The command line of ``fastsoftmax``, and the commands that work on a file of arrays.

Exit codes: 0 done, 1 a check failed (``demo``, ``selftest``), 2 a mistake in what was given.
NumPy is imported by the commands that need it, so ``--help`` stays quick.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from .files import DTYPES, CliError, blaming, check_output, load_array, name_of, save_array
from .terminal import BOLD, Screen

if TYPE_CHECKING:
    import numpy as np

WHOLE = "a whole number from 0 up"
ROWS_ON_TERMINAL = 10  # a summary; a pipe or --output gets everything


def axis_for(text: str, array: np.ndarray, path: str, also: str = "") -> int:
    """Return the ``--axis`` that `text` names for `array`, read from `path`, or raise a `CliError`.

    `also` ends the list of what is allowed.
    """
    ndim = max(array.ndim, 1)
    try:
        axis = int(text)
    except ValueError:
        axis = ndim
    if not -ndim <= axis < ndim:
        raise CliError(f"--axis {text}: {path} has shape {array.shape}; "
                       f"allowed: {-ndim} to {ndim - 1}{also}")
    return axis


def save_or_print(
    options: argparse.Namespace, array: np.ndarray, heading: str, lines: Iterable[str]
) -> int:
    """Save `array` where ``--output`` says, else print its `lines`; on a terminal the first ones.

    A `heading` is printed on a terminal, elsewhere if ``--header`` asks for it.
    """
    screen = Screen(sys.stdout)
    if options.output is not None:
        save_array(options.output, array)
        if options.output != "-":
            screen.say(f"{options.output}: {array.dtype}, shape {array.shape}")
        return 0
    if screen.terminal:
        screen.say(screen.paint(heading, BOLD))
    elif options.header:
        screen.say(f"# {heading}")
    for number, line in enumerate(lines):
        if screen.terminal and number == ROWS_ON_TERMINAL:
            screen.say("... (the rest goes to a pipe or to --output)")
            break
        screen.say(line)
    return 0


# ---- commands ----------------------------------------------------------------------------------


def run_softmax(options: argparse.Namespace) -> int:
    """Run ``softmax FILE``: print probabilities, or their logarithms with ``--log``."""
    import numpy as np

    import fastsoftmax

    check_output(options.output, options.force)
    x = load_array(options.file, options.key)
    whole = options.axis == "all"
    axis = None if whole else axis_for(options.axis, x, name_of(options.file), ", or all")
    function = fastsoftmax.log_softmax if options.log else fastsoftmax.softmax
    with blaming(options.file):
        y = function(x, axis, temperature=options.temperature)
    name = "log_softmax" if options.log else "softmax"
    heading = f"{name} of {name_of(options.file)}: {x.dtype} {x.shape}, axis {options.axis}"
    if Screen(sys.stdout).terminal:
        rows = y.reshape(1, -1) if axis is None else np.moveaxis(np.atleast_1d(y), axis, -1)
        lines = row_bars(rows.reshape(-1, rows.shape[-1]), options.log)
    else:
        lines = (" ".join(map(str, row)) for row in y.reshape(-1, y.shape[-1] if y.ndim else 1))
    return save_or_print(options, y, heading, lines)


def row_bars(rows: np.ndarray, log: bool) -> Iterator[str]:
    """Yield for each of the `rows` its five largest entries, as index, value and bar.

    The bar of a logarithm (`log`) is that of its probability.
    """
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
    """Run ``top-k FILE``: print each row's k largest (or smallest) entries as "row index value"."""
    import numpy as np

    import fastsoftmax

    check_output(options.output, options.force)
    x = np.atleast_1d(load_array(options.file, options.key))
    file = name_of(options.file)
    axis = axis_for(options.axis, x, file)
    length = x.shape[axis]
    if options.k > length:
        raise CliError(f"--k {options.k}: the rows of {file} along axis {options.axis} "
                       f"have {length} entries; allowed: 0 to {length}")
    mode: Literal["largest", "smallest"] = "smallest" if options.smallest else "largest"
    with blaming(options.file):
        values, indices = fastsoftmax.top_k(x, options.k, axis=axis, mode=mode)
    # One array with two named fields, so that one .npy file holds both.
    both = np.empty(values.shape, dtype=[("values", values.dtype), ("indices", indices.dtype)])
    both["values"], both["indices"] = values, indices
    rows = np.moveaxis(both, axis, -1).reshape(-1, options.k) if options.k else both[:0]
    heading = f"row, index, value of the {options.k} {mode} in {file}: {x.dtype} {x.shape}"
    return save_or_print(options, both, heading, (
        "\n".join(f"{number} {entry['indices']} {entry['values']}" for entry in row)
        for number, row in enumerate(rows)))


def run_sample(options: argparse.Namespace) -> int:
    """Run ``sample FILE``: print one line of drawn ids for each row."""
    import numpy as np

    import fastsoftmax

    check_output(options.output, options.force)
    x = np.atleast_1d(load_array(options.file, options.key))
    filters = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    rng = np.random.default_rng(options.seed)
    with blaming(options.file):
        draws = [fastsoftmax.sample(x, **filters, rng=rng) for _ in range(options.draws)]
    ids = np.stack(draws, axis=-1)
    heading = f"ids drawn for each row of {name_of(options.file)}: {x.dtype} {x.shape}"
    rows = ids.reshape(-1, options.draws)
    return save_or_print(options, ids, heading, (" ".join(map(str, row)) for row in rows))


def run_info(options: argparse.Namespace) -> int:
    """Run ``info``: print which implementation was chosen, and why."""
    import fastsoftmax

    if options.json:
        print(json.dumps(fastsoftmax.show_config(mode="dicts"), indent=2, default=str))
    else:
        fastsoftmax.show_config()
        print(f"{'environment':>14}: FASTSOFTMAX_IMPL=NAME asks for another one that is runnable")
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Run ``demo``."""
    from .demo import demo

    return demo(options, Screen(sys.stdout))


def run_selftest(options: argparse.Namespace) -> int:
    """Run ``selftest``."""
    from .selftest import selftest

    return selftest(Screen(sys.stdout))


# ---- arguments ---------------------------------------------------------------------------------


def number(
    convert: type[int] | type[float], low: float, high: float, allowed: str
) -> Callable[[str], float]:
    """Return an argparse type: a number from `low` to `high`; an error says `allowed`."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = convert(text)
            if low <= value <= high:  # False for NaN
                return value
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give {allowed}")

    return parse


def add_temperature(parser: argparse.ArgumentParser, default: float = 1.0) -> None:
    """Give `parser` the option ``--temperature``."""
    parser.add_argument(
        "--temperature", metavar="T", default=default,
        type=number(float, 0, float("inf"), "a number from 0 up"),
        help="divide the scores by T: below 1 sharpens, above 1 flattens (default %(default)s)")


def add_sampling(
    parser: argparse.ArgumentParser, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, min_p: float | None = None, seed: int | None = None, draws: int = 1,
) -> None:
    """Give `parser` the options of `fastsoftmax.sample`, with these defaults."""
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
                        default=seed, help="of the random numbers (default %(default)s)")
    parser.add_argument("--draws", metavar="N", default=draws,
                        type=number(int, 1, 10**6, "a whole number from 1 to 1000000"),
                        help="how many to draw for each row (default %(default)s)")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("file", metavar="FILE", help=f"an array of {DTYPES}: a .npy file, a .npz "
                       "archive, or - for standard input")
    files.add_argument("--key", metavar="NAME", help="which array of a .npz archive")
    files.add_argument("--output", metavar="OUT.npy", help="write the result there as a .npy file "
                       "(-: to standard output), not as text")
    files.add_argument("--force", action="store_true", help="let --output replace a file")
    files.add_argument("--header", action="store_true",
                       help="begin the text with a line, after #, that says what it is")

    parser = argparse.ArgumentParser(prog="fastsoftmax", description="Softmax, top-k and sampling.")
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, example: str,
                *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=list(parents),
                                   epilog=f"example: {example}")
        made.set_defaults(run=run)
        return made

    demo = command("demo", run_demo, "a language model's real scores: what each setting does, "
                   "and a check against the reference",
                   "fastsoftmax demo --row peaked --temperature 1.5")
    demo.add_argument("--row", choices=["peaked", "middling", "flat"], default="middling",
                      help="which scores are followed step by step (default %(default)s)")
    add_sampling(demo, temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=0, draws=20)
    softmax = command("softmax", run_softmax, "softmax of an array",
                      "fastsoftmax softmax logits.npy --temperature 0.7 --output p.npy", files)
    softmax.add_argument("--axis", default="-1", help="a number, or all (default %(default)s)")
    add_temperature(softmax)
    softmax.add_argument("--log", action="store_true", help="log_softmax instead")
    top_k = command("top-k", run_top_k, "the k largest entries of each row",
                    "fastsoftmax top-k scores.npz --key logits --k 5 --header", files)
    top_k.add_argument("--axis", default="-1", help="a number (default %(default)s)")
    top_k.add_argument("--k", metavar="K", type=number(int, 0, sys.maxsize, WHOLE), default=10,
                       help="how many (default %(default)s)")
    top_k.add_argument("--smallest", action="store_true", help="the smallest instead")
    sample = command("sample", run_sample, "draw ids from each row (last axis) of scores",
                     "fastsoftmax sample - --top-p 0.9 --seed 1 < logits.npy", files)
    add_sampling(sample)
    info = command("info", run_info, "version, chosen implementation, and why",
                   "FASTSOFTMAX_IMPL=avx2 fastsoftmax info")
    info.add_argument("--json", action="store_true", help="print JSON")
    command("selftest", run_selftest, "check this build against the reference (a few seconds)",
            "fastsoftmax selftest")
    return parser


def run(argv: list[str] | None) -> int:
    """Run the command line `argv` and return the exit code: 2 for what the user got wrong."""
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
    # Python has None for a stream that is closed; print and argparse take None for stdout.
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    if sys.stdout is None:
        print("fastsoftmax: standard output is closed", file=sys.stderr)
        return 2
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
