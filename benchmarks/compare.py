"""Whether a later run is worse than an earlier one: ``python -m benchmarks --compare OLD NEW``."""

import math

# Beside the spread inside a run there is one between runs: where memory happens to lie, the state
# of the machine. Less than this, and than what disturbed either run, is not told apart from it.
BETWEEN_RUNS = 0.1
SMALL_BETWEEN_RUNS = 0.3  # of small calls: the shortest of some samples


def compare(old, new):
    """Compare two runs as `--json` wrote them.

    A ratio to a peer is worse if even its upper quartile is now below what used to be its lower
    quartile, by `BETWEEN_RUNS`, and, on the same CPU, our own time beside that peer did rise. Times
    are compared only where there is no peer, in the same way. A small call is worse if it takes
    more np.adds than it did, by `SMALL_BETWEEN_RUNS`.

    Returns
    -------
    worse : list of str
        A line for each ratio or time that got worse.
    notes : list of str
        A line for each thing to know: what is in one run only, differing machines, faster peers.
    """
    worse, notes = [], []
    for key in ("cpu", "implementation"):
        if old["about"][key] != new["about"][key]:
            notes.append(f"{key} differs: {old['about'][key]} -> {new['about'][key]}")
    same_cpu = old["about"]["cpu"] == new["about"]["cpu"]
    before, after = _figures(old), _figures(new)
    for key, was in before.items():
        name = ": ".join(key)
        if key not in after:
            notes.append(f"only in the old run: {name}")
            continue
        now = after[key]
        room = 1 + BETWEEN_RUNS + was["disturbed"] + now["disturbed"]
        change = f"{name} takes {_told(was)} -> {_told(now)} {now['unit']}"
        if now["unit"] == "us":
            if now["q1"] > was["q3"] * room:
                worse.append(change)
        elif now["q3"] * room < was["q1"]:
            if same_cpu and now["ours"] <= was["ours"]:
                notes.append(f"no loss of ours: {change}, which did not rise")
            else:
                worse.append(change)
    notes += [f"only in the new run: {': '.join(key)}" for key in after if key not in before]
    adds = {(form["function"], form["form"]): form["adds"] for form in old.get("forms", ())}
    for form in new.get("forms", ()):
        was = adds.get((form["function"], form["form"]), math.inf)
        if form["adds"] > was * (1 + SMALL_BETWEEN_RUNS):
            worse.append(f"{form['function']} {form['form']} takes {was:.3g} -> {form['adds']:.3g} "
                         "times np.add")  # fmt: skip
    return worse, notes


def _figures(run):
    """What is compared, by (cell, label)."""
    found = {}
    for cell in run["cells"]:
        peers = [line for line in cell["runs"] if line["side"] != "fastsoftmax"]
        about = {"disturbed": cell["disturbed"]}
        for line in peers:
            about |= {"ours": line["base_ns"]["median"], "unit": "times our time"}
            found[cell["name"], line["label"]] = about | line["ratio"]
        for line in cell["runs"] if not peers else ():
            us = {key: ns / 1e3 for key, ns in line["ns"].items()}
            found[cell["name"], line["label"]] = about | us | {"unit": "us"}
    return found


def _told(s):
    return f"{s['median']:.3g} [{s['q1']:.3g}, {s['q3']:.3g}]"
