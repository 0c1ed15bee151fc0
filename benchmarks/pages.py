"""Put what a run printed into pages that show its tables, whole or in part.

    python -m benchmarks --markdown > run.md
    python -m benchmarks.pages run.md docs/performance.md README.md

A row of a page gets the cells of the run's row of that name, by the heads of their columns, from
the table of the same title; where the run has none of that title, from any table of times. A cell
without quartiles gets none. What the run does not have stays, and is named.
"""

import re
import sys
from pathlib import Path

ABOUT = re.compile(r"- [A-Z][\w ,]*:")


def split(line):
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text):
    """Yield each row of the tables of a page: its line's number, the heads, its cells."""
    heads = None
    for i, line in enumerate(text.split("\n")):
        if not line.startswith("|"):
            heads = None
        elif heads is None:
            heads = split(line)
        elif not set(line) <= set("|:- "):
            yield i, heads, split(line)


def updated(page, run):
    """Return a page with the figures of a run, and the names of rows that the run lacks."""
    rows, anywhere = {}, {}
    for _, heads, cells in tables(run):
        found = dict(zip(heads[1:], cells[1:], strict=True))
        rows[heads[0], cells[0]] = found
        if not heads[0].startswith("error"):
            anywhere.setdefault(cells[0], found)
    titles = {title for title, _ in rows}
    lines, absent = page.split("\n"), []
    for i, heads, cells in tables(page):
        title, name = heads[0], cells[0]
        known = title in titles
        found = rows.get((title, name)) if known else anywhere.get(name)
        if found:
            new = (
                fitted(found.get(h, ""), old) for h, old in zip(heads[1:], cells[1:], strict=True)
            )
            lines[i] = f"| {' | '.join([name, *new])} |"
        elif known or name in anywhere:
            absent.append(f"{title}: {name}")
    about = {ABOUT.match(line)[0]: line for line in run.split("\n") if ABOUT.match(line)}
    for i, line in enumerate(lines):
        if (said := ABOUT.match(line)) and said[0] in about:
            lines[i] = about[said[0]]
    return "\n".join(lines), absent


def fitted(cell, old):
    """Return a cell without its quartiles where the old one has none."""
    return cell if "[" in old or not old else re.sub(r" \[.*", "", cell)


def main(run, *pages):
    """Update the pages, and say which of their rows the run does not have."""
    text = Path(run).read_text("utf-8")
    for page in map(Path, pages):
        new, absent = updated(page.read_text("utf-8"), text)
        page.write_text(new, "utf-8")
        print(f"{page}: {len(absent)} rows are not in the run", *absent, sep="\n  ")


if __name__ == "__main__":
    main(*sys.argv[1:])
