"""The picture of a run: how many times our time each peer takes, and the errors, side by side."""

import matplotlib

matplotlib.use("agg")  # writes files, needs no screen

import matplotlib.pyplot as plt

STYLES = {
    "fastsoftmax": ("#111111", "D"),
    "torch": ("#d1495b", "o"),
    "onnxruntime": ("#2a6f97", "s"),
    "scipy": ("#5b8e3e", "^"),
    "jax": ("#8e5ea2", "v"),
    "numpy": ("#b98b2d", "P"),
    "numpy threshold": ("#e0c068", "X"),
    "transformers": ("#e07a5f", "h"),
    "llama.cpp": ("#3d9a9a", "p"),
}
WORST = 1e9  # an infinite error is drawn here


def draw(run, path):
    """Write the picture of a run, as `--json` keeps it, to `path`."""
    cells = [cell for cell in run["cells"] if cell["pictured"]]
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, width_ratios=(3, 2), figsize=(10.4, 1.4 + 0.3 * len(cells)),
        layout="constrained",
    )  # fmt: skip
    for y, cell in enumerate(cells):
        for line in cell["runs"]:
            if line["label"] not in STYLES:
                continue
            colour, marker = STYLES[line["label"]]
            front = 4 if line["label"] == "fastsoftmax" else 3
            look = {"color": colour, "marker": marker, "s": 36, "zorder": front, "linewidths": 0.6,
                    "edgecolors": "white"}  # fmt: skip
            ratio = line.get("ratio", {"median": 1})["median"]
            left.scatter(ratio, y, label=line["label"], **look)
            if line["error_u"]:
                worst = max(WORST if e is None else e for e in line["error_u"].values())
                right.scatter(min(max(worst, 0.1), WORST), y, **look)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.grid(axis="both", color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.axvline(1, color="#111111", linewidth=0.8)
    left.set_yticks(range(len(cells)), [cell["pictured"] for cell in cells], fontsize=9)
    left.invert_yaxis()
    left.set_title("time of a call / fastsoftmax's time (right of the line: slower)", fontsize=10)
    right.set_title("largest error, in u (2⁻²⁴; float64: 2⁻⁵³)", fontsize=10)
    found = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    order = [label for label in STYLES if label in found]
    figure.legend([found[x] for x in order], order, loc="outside lower center", ncols=len(order),
                  frameon=False, fontsize=9, handletextpad=0.1, columnspacing=1.2)  # fmt: skip
    about = run["about"]
    where = f"{about['cpu']}, {about['implementation']}, commit {about['commit']}; one thread"
    figure.suptitle(where, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
