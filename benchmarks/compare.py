"""Whether a later run is worse than an earlier one: ``python -m benchmarks --compare OLD NEW``."""

# Beside the spread inside a run there is one between runs: where memory happens to lie, the state
# of the machine. Less than this is not told apart from it.
BETWEEN_RUNS = 0.05


def compare(old, new):
    """Compare two runs as `--json` wrote them.

    A ratio to a peer is worse if even its upper quartile is now below what used to be its lower
    quartile, by `BETWEEN_RUNS`. Times are compared only where there is no peer, in the same way.

    Returns
    -------
    worse : list of str
        A line for each ratio or time that got worse.
    notes : list of str
        A line for each thing to know: what is in one run only, and differing machines.
    """
    worse, notes = [], []
    for key in ("cpu", "implementation"):
        if old["about"][key] != new["about"][key]:
            notes.append(f"{key} differs: {old['about'][key]} -> {new['about'][key]}")
    before, after = _figures(old), _figures(new)
    for (cell, label), (kind, was) in before.items():
        if (cell, label) not in after:
            notes.append(f"only in the old run: {cell}: {label}")
            continue
        now = after[cell, label][1]
        if kind == "ratio" and now["q3"] * (1 + BETWEEN_RUNS) < was["q1"]:
            worse.append(f"{cell}: {label} takes {_told(was)} -> {_told(now)} times our time")
        elif kind == "us" and now["q1"] > was["q3"] * (1 + BETWEEN_RUNS):
            worse.append(f"{cell}: {label} takes {_told(was)} -> {_told(now)} us")
    notes += [f"only in the new run: {': '.join(key)}" for key in after if key not in before]
    return worse, notes


def _figures(run):
    """What is compared: ``(cell, label): (kind, spread)``."""
    found = {}
    for cell in run["cells"]:
        peers = [line for line in cell["runs"] if line["side"] != "fastsoftmax"]
        for line in peers:
            found[cell["name"], line["label"]] = "ratio", line["ratio"]
        for line in cell["runs"] if not peers else ():
            us = {key: ns / 1e3 for key, ns in line["ns"].items()}
            found[cell["name"], line["label"]] = "us", us
    return found


def _told(s):
    return f"{s['median']:.3g} [{s['q1']:.3g}, {s['q3']:.3g}]"
