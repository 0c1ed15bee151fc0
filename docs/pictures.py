"""Draw the pictures of the tour from the scores that come with the package.

    pip install '.[docs]'
    python docs/pictures.py

Each picture carries the numbers that it shows, so that a test can tell whether they still hold.
"""

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np

import fastsoftmax
from fastsoftmax import Sampler
from fastsoftmax.steps import MinP, Temperature, TopK, TopP

FOLDER = Path(__file__).with_name("pictures")
BLUES = ["#9cc3dc", "#5a9bc4", "#2a6f97", "#12364d"]
RED = "#a4473e"


def rows():
    """Return the scores of each row, by its name."""
    with np.load(resources.files("fastsoftmax") / "_command" / "demo.npz") as data:
        scores = data["logits"] / np.float32(128)
        return dict(zip(data["names"].tolist(), scores, strict=True))


def mass():
    """How much of the probability the most likely tokens hold, at some temperatures."""
    ranks = sorted({round(10 ** (i / 8)) for i in range(33)})
    shown = {"ranks": ranks}
    for name, row in rows().items():
        for t in (0.5, 0.7, 1.0, 1.5):
            best = fastsoftmax.top_k(fastsoftmax.softmax(row, temperature=t), ranks[-1]).values
            summed = np.cumsum(best, dtype=np.float64)[np.array(ranks) - 1]
            shown.setdefault(name, {})[f"{t:g}"] = summed.round(4).tolist()
    return shown


def left():
    """How many tokens each filter leaves of a flat row, by the temperature beside it."""
    temperatures = [round(0.3 + 0.1 * i, 1) for i in range(18)]
    chains = {
        "top-k 50": lambda t: [Temperature(t), TopK(50)],
        "temperature, then top-p 0.9": lambda t: [Temperature(t), TopP(0.9)],
        "temperature, then min-p 0.05": lambda t: [Temperature(t), MinP(0.05)],
        "top-p 0.9, then temperature": lambda t: [TopP(0.9), Temperature(t)],
    }
    row = rows()["flat"]
    counts = {
        name: [Sampler(*chain(t)).candidates(row).indices.size for t in temperatures]
        for name, chain in chains.items()
    }
    return {"temperatures": temperatures} | counts


def draw_mass(plt, shown):
    """Three panels of curves, with the edges of top-k and top-p."""
    figure, panels = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
    ranks, *names = shown
    for axes, name in zip(panels, names, strict=True):
        for (t, curve), color in zip(shown[name].items(), BLUES, strict=True):
            axes.plot(shown[ranks], curve, color=color, label=f"temperature {t}")
        axes.axhline(0.9, color=RED, linewidth=0.8, linestyle="--")
        axes.axvline(50, color=RED, linewidth=0.8, linestyle=":")
        axes.set_title(f"a {name} row", fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("most likely tokens")
    panels[0].set_ylabel("their share of the probability")
    panels[0].annotate("top-p 0.9", (1200, 0.86), color=RED, fontsize=8, va="top")
    panels[0].annotate("top-k 50", (56, 0.05), color=RED, fontsize=8)
    panels[0].yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    panels[0].set_ylim(0, 1.02)
    panels[-1].legend(fontsize=8, frameon=False, loc="lower right", borderpad=0)
    return figure


def draw_left(plt, shown):
    """One panel of curves."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    temperatures, *names = shown
    looks = zip(names, [*BLUES[1:], RED], ("-.", "-", ":", "--"), strict=True)
    for name, color, style in looks:
        axes.plot(shown[temperatures], shown[name], style, color=color, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("temperature")
    axes.set_ylabel("tokens left")
    axes.legend(fontsize=8, frameon=False)
    return figure


#: What each picture shows, and how it is drawn.
PICTURES = {"mass": (mass, draw_mass), "left": (left, draw_left)}


def numbers(name):
    """Return the numbers that a picture carries."""
    text = (FOLDER / f"{name}.svg").read_text("utf-8")
    return json.loads(re.search(r"<!--numbers (.*?)-->", text)[1])


def main():
    """Draw them all."""
    import matplotlib

    matplotlib.use("agg")  # writes files, needs no screen
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "0", "svg.fonttype": "none", "font.family": "sans-serif"}
    plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    FOLDER.mkdir(exist_ok=True)
    for name, (data, draw) in PICTURES.items():
        shown = data()
        path = FOLDER / f"{name}.svg"
        draw(plt, shown).savefig(path, metadata={"Date": None, "Creator": None})
        lines = [line.rstrip() for line in path.read_text("utf-8").splitlines()]
        path.write_text("\n".join([*lines, f"<!--numbers {json.dumps(shown)}-->", ""]), "utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
