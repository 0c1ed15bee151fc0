"""What `accuracy` measured, as tables in Markdown."""

import re

OURS = "fastsoftmax"
SIDES = (OURS, "torch", "onnxruntime", "scipy", "jax")
LONG = 10_000  # rows of so many and more are told apart

TEXT = """\
# How exact every result is, beside the peers

The largest error of any value in units in the last place (ulp) of the true value, in the dtype of
the input: 0.5 is a result rounded to the nearest number. The true values are exact to 2**-90
(`exact.py`, held against mpmath). A cell is the largest error over all rows of its kind (rows of 1
to 4097, `/` rows of 32,000 to a million, where there are two), and for fastsoftmax over five
traversals: rows alone, in a batch, along axis 0, packed from every other element, and masked.
{same}
Kinds of rows (`accuracy_rows.py`): random is 4 times standard normal; real is a language model's
scores; peaked and two levels are where a plain sum in the dtype fails; wide is 40 times standard
normal; near ties has half of its entries within 2 units in the last place of the largest.

{about}

## Where a peer is more exact

Cells of an operation, dtype, temperature, kind of rows and length in which the best of the peers is
better than fastsoftmax by more than half a unit in the last place; the widest of each kind.
Two things are behind them:

- In float32 at T = 1 what ln 2 lacks costs 0.046 |x - max| u (u is half a unit of 1): 4 u at the
  far end of what float32 holds. Peers round x - max instead, which is exact for rows far from 0.
- The exponentials of gradients are of x - max, rounded, as the peers' are, and what is below the
  smallest normal number is 0 there (last table), as JAX has it.

Elsewhere it is the luck of one rounding.
"""

TEXT_OF_SUMS = """\
Against 40 digits of mpmath, rows of 2 to 1000 (`accuracy_sums.py`); hard rows are those from wide
to near ties, and peaked. The divergence is that from a random row; SciPy's is put together of
`softmax`, `entr`, `rel_entr` and `logsumexp`, for codes of the logits as float32.
"""


def lines(about, found, different, most_likely, sums):
    """Yield the lines of ``ACCURACY.md``; `sums` as of `accuracy_sums.measure`."""
    moved = [name for name, count in different.items() if count]
    same = "The bits are the same in all five." if not moved else (
        f"The bits are the same in all but {', '.join(moved)}: there entries that do not count\n"
        "lie between those that do, and the sum has another order."
    )  # fmt: skip
    told = "\n".join(f"- {key}: {value}" for key, value in about.items())
    yield from TEXT.format(same=same, about=told).splitlines()
    yield from _table(["cell", OURS, "best peer", "cells"], _worse(found))
    yield "\n## The most likely token of real rows"
    rows = [[name, *map(short, errors)] for name, errors in most_likely.items()]
    yield from _table(["softmax float32, in u = 2**-24", "its probability", "sum of the row"], rows)
    for title, head, rows in tables(found):
        yield f"\n## {title}"
        yield from _table(head, rows)
    yield from lines_of_sums(sums)


def lines_of_sums(sums):
    """Yield the section of sums over rows."""
    yield "\n## Sums over rows, and logits of 8 bits"
    yield ""
    yield from TEXT_OF_SUMS.splitlines()
    rows = [[label, *map(short, cells)] for label, cells in sums.items()]
    yield from _table(["function", OURS, "scipy"], rows)


def tables(found):
    """Yield title, head and rows of each table: by kind at T = 1, by temperature, by length."""
    operations = list(dict.fromkeys(key[0] for key in found))
    for op in operations:
        rows = _rows(found, lambda key, op=op: (
            (key[1], key[3] if key[1] in ("float32", "float64") else "all kinds")
            if key[0] == op and key[2] == 1 else None
        ))  # fmt: skip
        yield f"{op} at T = 1", ["rows", *SIDES], rows
    for op in operations:
        rows = _rows(found, lambda key, op=op: (
            (key[1], f"T = {key[2]:g}") if key[0] == op and key[2] != 1 else None
        ), short_only=True)  # fmt: skip
        if rows:
            yield f"{op} at other temperatures, rows of 1 to 4097", ["rows", *SIDES], rows
    rows = _rows(found, lambda key: (
        (f"float32, n = {key[4]}",)
        if key[:4] == ("softmax", "float32", 1.0, "random") else None
    ), whole=True)  # fmt: skip
    yield "softmax of random rows by length", ["rows", *SIDES], rows
    rows = _rows(found, lambda key: (key[0], key[1]), whole=True, which=1)
    yield "Results below the smallest normal number", ["operation", *SIDES], rows


def _rows(found, label_of, *, short_only=False, whole=False, which=0):
    """Rows of a table: the largest errors of the keys that have the same label."""
    groups = {}
    for key, errors in found.items():
        label = label_of(key)
        if label is None or (short_only and key[4] >= LONG):
            continue
        for side, error in errors.items():
            cell = groups.setdefault(" ".join(label), {}).setdefault(side, {})
            part = not whole and key[4] >= LONG
            cell[part] = max(cell.get(part, 0.0), error[which])
    return [
        [label, *(" / ".join(short(cells[side][part]) for part in sorted(cells[side]))
                  if side in cells else "" for side in SIDES)]
        for label, cells in groups.items()
    ]  # fmt: skip


def _worse(found):
    """Rows of the table of cells in which a peer is better by more than half a unit."""
    groups = {}
    for (op, dtype, temperature, kind, n), errors in found.items():
        peers = [error[0] for side, error in errors.items() if side != OURS]
        ours = errors[OURS][0]
        if peers and ours > min(peers) + 0.5:
            label = f"{op} {dtype} T = {temperature:g} {kind}"
            groups.setdefault(label, []).append((ours - min(peers), ours, min(peers), n))
    for label, cells in groups.items():
        _, ours, best, n = max(cells)
        yield [f"{label}, n = {n}", short(ours), short(best), str(len(cells))]


def short(error):
    """Three digits; many only as a power of ten."""
    if error >= 1000:
        return f"{error:.1e}".replace("e+0", "e").replace("e+", "e")
    return f"{error:.2f}" if error < 10 else f"{error:.3g}"


def _table(head, rows):
    yield ""
    for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows):
        yield f"| {' | '.join(row)} |"


def read(text):
    """Return our cells of the tables of ``ACCURACY.md``: errors by title and first column."""
    found, title = {}, None
    for line in text.splitlines():
        if line.startswith("## "):
            title = line[3:]
        elif title and (row := re.match(r"\| ([^|]+) \| ([\d.e/ inf]+) \|", line)):
            found[title, row[1]] = [float(cell) for cell in row[2].split(" / ")]
    return found
