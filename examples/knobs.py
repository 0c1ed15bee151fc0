"""Draw how temperature, top-k and top-p compose, on real scores of a language model.

The text is "... the last layer gives one score for each": SmolLM2-135M-Instruct scores all tokens
of its vocabulary as the next one. Each bar is a probability as ``Sampler.trace`` shows it::

    pip install '.[examples]'
    python examples/knobs.py
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # writes files, needs no screen

import matplotlib.pyplot as plt

from fastsoftmax import Sampler
from fastsoftmax._command.demo import load
from fastsoftmax.steps import Temperature, TopK, TopP

KEPT, OTHER, REMOVED, DARK_RED = "#2a6f97", "#8fb8cf", "#e3b7b2", "#a4473e"
SHOWN = 14


def probabilities(stage, shown):
    """Return the probability of each token shown; 0 where it has been removed."""
    probs = dict(zip(*(a.tolist() for a in stage.candidates), strict=True))
    return [probs.get(i, 0.0) for i in shown]


def bars(axes, stage, shown, color, before=None):
    """Draw what a stage left, and in another colour, as it was `before`, what its step removed."""
    now = probabilities(stage, shown)
    was = probabilities(before, shown) if before else now
    for y, (p, q) in enumerate(zip(now, was, strict=True)):
        axes.barh(y, p or q, color=color if p else REMOVED)
        if p:
            axes.text(p, y, f" {p:.1%}", va="center", fontsize=8)
        elif q:
            axes.text(q, y, " removed", va="center", fontsize=8, color=DARK_RED)
    others = f"{1 - sum(now):.1%}" if stage.left > len(shown) else ""
    if before and before.left > len(shown) >= stage.left:
        others = "removed"
    axes.text(0, len(shown), f" {others}", va="center", fontsize=8, style="italic")


def picture(row, token, temperatures, k, p):
    """Return the figure: three temperatures, then top-k and top-p after the middle one."""
    middle = temperatures[1]
    traces = [Sampler(Temperature(t), TopK(k), TopP(p)).trace(row) for t in temperatures]
    _, after_t, after_k, after_p = traces[1]
    shown = after_t.candidates.indices[:SHOWN].tolist()
    figure, panels = plt.subplots(1, 5, figsize=(13, 4.2), sharex=True, sharey=True)
    for axes, t, trace in zip(panels, temperatures, traces, strict=False):
        bars(axes, trace[1], shown, KEPT if t == middle else OTHER)
        axes.set_title(f"temperature {t:g}", fontsize=10)
    bars(panels[3], after_k, shown, KEPT, after_t)
    bars(panels[4], after_p, shown, KEPT, after_k)
    for axes, stage, name in [
        (panels[3], after_k, f"temperature {middle:g}, then top-k {k}"),
        (panels[4], after_p, f"then top-p {p:g}"),
    ]:
        caption = f"{stage.left} left: {stage.kept:.0%}, made 100%"
        axes.set_title(f"{name}:\n{caption}", fontsize=10)
    names = [*map(token, shown), f"{row.size - SHOWN} others"]
    panels[0].set_yticks(range(SHOWN + 1), names)
    panels[0].set_ylim(SHOWN + 0.6, -0.6)
    panels[0].set_xlim(0, 1.35 * max(bar.get_width() for axes in panels for bar in axes.patches))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    figure.tight_layout()
    return figure


def main(arguments=None):
    """Write the picture."""
    data = load()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--row", choices=data.names, default="flat", help="whose scores")
    parser.add_argument("--temperatures", type=float, nargs=3, default=[0.7, 1.0, 1.5])
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--top-p", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args(arguments)
    row = data.logits[data.names.index(options.row)]
    try:
        figure = picture(row, data.token, options.temperatures, options.top_k, options.top_p)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    figure.savefig(options.out, dpi=80)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
