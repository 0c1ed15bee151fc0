"""What is printed: lines as cells are measured, or tables in Markdown."""

TABLES = {
    "softmax": "Softmax, log_softmax, logsumexp",
    "loss": "Loss and gradient",
    "top_k": "Top-k",
    "sample": "Choosing a token",
}


def about_lines(about):
    """Where and with what the figures were taken."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    passes = "; ".join(
        f"{dtype} " + ", ".join(f"{name} {ns:.3f}" for name, ns in found.items())
        for dtype, found in about["pass_ns"].items()
    )
    yield f"CPU: {about['cpu']}, one thread on one core; load when it began {about['load']}"
    yield f"Instruction set: {about['implementation']}, commit {about['commit'] or 'unknown'}"
    yield f"Versions: {versions}"
    if about["held"]:
        yield f"Held to that instruction set: {about['held']}"
    if passes:
        yield f"Passes alone, in the first cache, ns an element: {passes}"
    if about["absent"]:
        yield f"Absent: {', '.join(about['absent'])}"


def cell_lines(result):
    """One cell, a line for each side."""
    limit = result["limit"]
    bound = "moving" if limit["moving_ns"] > limit["passes_ns"] else "passes"
    yield f"\n{result['name']}    limit {short(limit['ns'] / 1e3)} us ({bound})"
    errors = "error in u: " + " / ".join(result["runs"][0]["error_u"] or {})
    yield (f"  {'':26}{'time':26}{'times base':24}{'GB/s':>6}{'of limit':>10}  "
           f"{errors if result['runs'][0]['error_u'] else ''}").rstrip()  # fmt: skip
    for run in result["runs"]:
        ratio = spread(run["ratio"]) if "ratio" in run else "base"
        yield (f"  {run['label']:26}{time(run['ns']):26}{ratio:24}{short(run['gb_s']):>6}"
               f"{run['of_limit']:>10.0%}  {error(run)}{floor(run)}").rstrip()  # fmt: skip
    if result["absent"]:
        yield f"  absent: {', '.join(result['absent'])}"


def mean_lines(means):
    """The geometric means, a line each."""
    for name, ratios in means.items():
        yield f"\n{name}: " + ", ".join(f"{label} {short(r)}" for label, r in ratios.items())


def floor_lines(results):
    """How many of the ratios that have a floor reach it, and which do not."""
    floors = [(cell, run) for cell in results for run in cell["runs"] if run.get("floor")]
    below = [(cell, run) for cell, run in floors if run["ratio"]["median"] < run["floor"]]
    if floors:
        yield f"\n{len(floors) - len(below)} of {len(floors)} ratios reach their floor"
    for cell, run in below:
        yield (f"  below: {cell['name']}: {run['label']} takes {spread(run['ratio'])} times our "
               f"time{floor(run)}")  # fmt: skip


def form_lines(forms):
    """The small calls: a line for each function and form of argument."""
    for i, form in enumerate(forms):
        if i == 0 or forms[i - 1]["function"] != form["function"]:
            yield f"\n{form['function']:40}{'us':>8}{'np.adds':>9}{'at most':>9}"
        most = f"{form['most_us']:9.2f}" if form["most_us"] else f"{'':9}"
        over = "  over" if form["most_us"] and form["us"] > form["most_us"] else ""
        yield f"  {form['form']:38}{form['us']:8.2f}{form['adds']:9.1f}{most}{over}".rstrip()


def form_table(forms):
    """The small calls in Markdown."""
    rows = [[f"`{form['function']}` {form['form']}", f"{form['us']:.2f}", f"{form['adds']:.1f}"]
            for form in forms]  # fmt: skip
    yield from _table(["small call", "us", "times np.add of (3, 5)"], rows)


def markdown_lines(run):
    """Tables of ratios, then of errors, of fastsoftmax against itself, and of small calls."""
    for line in about_lines(run["about"]):
        yield f"- {line}"
    for table, title in TABLES.items():
        yield from _beside(title, [c for c in run["cells"] if c["table"] == table], run["means"])
    yield from _errors([cell for cell in run["cells"] if cell["runs"][0]["error_u"]])
    yield from _itself(run["cells"])
    yield from form_table(run["forms"])


def _beside(title, cells, means):
    labels = _labels(cells)
    rows = []
    for i, cell in enumerate(cells):
        base = cell["runs"][0]
        ratios = {run["label"]: f"{spread(run['ratio'])}{floor(run)}" for run in cell["runs"][1:]}
        rows.append([cell["name"], time(base["ns"]), short(base["gb_s"]),
                     f"{base['of_limit']:.0%}", *(ratios.get(x, "") for x in labels)])  # fmt: skip
        mean = cell["mean"]
        if mean and (i + 1 == len(cells) or cells[i + 1]["mean"] != mean):
            found = (means[mean].get(label) for label in labels)
            bold = (f"**{short(ratio)}**" if ratio else "" for ratio in found)
            rows.append([f"**{mean}**", "", "", "", *bold])
    head = [f"{title}: times fastsoftmax's time", "fastsoftmax", "GB/s", "of the limit", *labels]
    yield from _table(head, rows)


def _errors(cells):
    labels = _labels(cells)
    rows = []
    for cell in cells:
        found = {run["label"]: error(run) for run in cell["runs"]}
        rows.append([cell["name"], *(found.get(x, "") for x in ("fastsoftmax", *labels))])
    kinds = " / ".join(cells[0]["runs"][0]["error_u"]) if cells else ""
    yield from _table([f"error in u: {kinds}", "fastsoftmax", *labels], rows)


def _itself(cells):
    rows = [
        [
            f"{cell['name']}: {run['label']} / {cell['runs'][0]['label']}",
            f"{spread(run['ratio'])}{floor(run)}",
        ]
        for cell in cells
        for run in cell["runs"][1:]
        if run["side"] == "fastsoftmax"
    ]
    yield from _table(["fastsoftmax against itself", "ratio"], rows)


def _labels(cells):
    # A run of fastsoftmax against itself goes into a table of its own: it is no peer.
    runs = [run for cell in cells for run in cell["runs"] if run["side"] != "fastsoftmax"]
    return list(dict.fromkeys(run["label"] for run in runs))


def _table(head, rows):
    if rows:
        yield ""
        for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows):
            yield f"| {' | '.join(row)} |"


def short(value):
    """Three digits."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0f}"


def spread(s, scale=1, unit=""):
    """Median [quartiles]."""
    q1, median, q3 = (short(s[key] / scale) for key in ("q1", "median", "q3"))
    return f"{median}{unit} [{q1}, {q3}]"


def time(s):
    """A spread of nanoseconds, in a fitting unit."""
    return spread(s, 1e6, " ms") if s["median"] >= 1e6 else spread(s, 1e3, " us")


def error(run):
    """The errors on each kind of rows, or nothing."""
    return " / ".join(f"{e:.3g}" for e in (run["error_u"] or {}).values())


def floor(run):
    """The ratio that a run has to reach, and whether it does not; nothing if there is none."""
    if not run.get("floor"):
        return ""
    below = ": below" if run["ratio"]["median"] < run["floor"] else ""
    return f" (floor {run['floor']:.3g}{below})"
