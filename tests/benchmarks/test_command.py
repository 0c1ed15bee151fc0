"""``python -m benchmarks``: what it prints and writes, and when a comparison fails."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import cells, forms, report  # noqa: E402

SPREAD = {"q1", "median", "q3"}


@pytest.fixture(scope="module")
def run():
    """What two small cells and one without peers give, two peers being absent."""
    names = ("softmax float32 (1,10)", "logsumexp float32 (64,1000)",
             "top_k k=50 float32 (1,128256) in other orders")  # fmt: skip
    chosen = [cell for cell in cells.CELLS if cell.name.startswith(names)]
    assert len(chosen) == len(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)  # not torch or JAX: SciPy looks for them
        patch.setitem(sys.modules, "onnxruntime", None)
        small = [form for form in forms.all_forms() if form.function == "rank"]
        return command._run(chosen, 0, small, 1, loud=False)


def test_a_run_has_everything(run):
    about = run["about"]
    assert about["cpu"]
    assert about["implementation"]
    assert about["versions"]["numpy"] == np.__version__
    assert "commit" in about
    assert {"transformers", "onnxruntime"} <= set(about["absent"])
    assert set(about["pass_ns"]["float32"]) == {"max", "exp", "scale"}
    assert len(run["cells"]) == 3
    for cell in run["cells"]:
        base, *others = cell["runs"]
        assert base["side"] == "fastsoftmax"
        assert "ratio" not in base
        assert others
        for line in cell["runs"]:
            assert set(line["ns"]) == SPREAD
            assert line["gb_s"] > 0
            assert line["of_limit"] > 0
        for line in others:
            assert set(line["ratio"]) == set(line["base_ns"]) == SPREAD
            assert 0 < line["ratio"]["q1"] <= line["ratio"]["median"] <= line["ratio"]["q3"]
            assert line["pairs"] >= 4
    assert min(cell["disturbed"] for cell in run["cells"]) == 0
    softmax = run["cells"][1]
    assert softmax["name"] == "softmax float32 (1,10)"
    assert "onnxruntime" in softmax["absent"]
    assert 0 <= softmax["runs"][0]["error_u"]["ordinary"] < 1000
    assert json.loads(json.dumps(run))["cells"][1]["name"] == softmax["name"]


def test_tables_and_lines_tell_it(run):
    text = "\n".join(report.markdown_lines(run))
    assert re.search("Absent: .*onnxruntime", text)
    assert "| softmax float32 (1,10) |" in text
    assert "in other orders: ascending / random |" in text
    assert "**logsumexp, geometric mean of 5** |" in text
    assert "| `rank` (8,10) |" in text
    lines = "\n".join(line for cell in run["cells"] for line in report.cell_lines(cell))
    assert re.search("  absent: .*onnxruntime", lines)
    assert not re.search("absent: .*transformers", lines)  # in no softmax, there or not
    assert "error in u: ordinary / one large / two levels" in lines


def test_floors_are_told_and_what_is_below_them():
    ratios = {"median": 3.0, "q1": 2.9, "q3": 3.1}
    run = {"label": "torch", "ratio": ratios, "floor": 4}
    cell = {"name": "c", "runs": [{"label": "fastsoftmax", "floor": None}, run]}
    assert list(report.floor_lines([cell])) == [
        "\n0 of 1 ratios reach their floor",
        "  below: c: torch takes 3.00 [2.90, 3.10] times our time (floor 4: below)",
    ]
    run["floor"] = 3
    assert list(report.floor_lines([cell])) == ["\n1 of 1 ratios reach their floor"]


def test_small_calls_alone(capsys):
    assert command.main(["--quick", "--only", "^small rank "]) == 0
    out = capsys.readouterr().out
    assert "\nrank " in out
    assert "Passes alone" not in out


def test_small_calls_are_told(run):
    lines = list(report.form_lines(run["forms"]))
    assert lines[0].split() == ["rank", "us", "np.adds", "at", "most"]
    assert len(lines) == 1 + len(run["forms"])
    slow = {"function": "f", "form": "x", "us": 2.0, "adds": 4.0, "most_us": 1.0}
    assert list(report.form_lines([slow]))[1].endswith("over")
    assert not list(report.form_lines([slow | {"most_us": None}]))[1].endswith("over")


def test_picture_is_drawn(run, tmp_path):
    pytest.importorskip("matplotlib", reason="it draws the picture")
    from benchmarks import picture

    picture.draw(run, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


# --- Comparing two runs -------------------------------------------------------------------------


def line(label, side, ratio=None, ns=1000.0):
    made = {"label": label, "side": side, "ns": {"q1": ns * 0.95, "median": ns, "q3": ns * 1.05}}
    if ratio:
        made["ratio"] = {"q1": ratio * 0.95, "median": ratio, "q3": ratio * 1.05}
        made["base_ns"] = {"median": 1000 / ratio}
    return made


def two_cells():
    beside = [line("fastsoftmax", "fastsoftmax"), line("torch", "torch", 2.0),
              line("numpy", "numpy", 4.0)]  # fmt: skip
    itself = [line("random", "fastsoftmax"), line("ascending", "fastsoftmax", 1.7, 1700.0)]
    return {
        "about": {"cpu": "a", "implementation": "avx2"},
        "cells": [
            {"name": "beside", "disturbed": 0.0, "runs": beside},
            {"name": "itself", "disturbed": 0.0, "runs": itself},
        ],
    }


def compared(tmp_path, capsys, old, new):
    for name, run in (("old.json", old), ("new.json", new)):
        (tmp_path / name).write_text(json.dumps(run))
    code = command.main(["--compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("factor", [1.0, 0.9, 3.0])
def test_equal_better_and_within_the_spread_pass(tmp_path, capsys, factor):
    old, new = two_cells(), two_cells()
    new["cells"][0]["runs"][1] = line("torch", "torch", 2.0 * factor)
    new["cells"][1]["runs"][0] = line("random", "fastsoftmax", ns=1000 / factor)
    assert compared(tmp_path, capsys, old, new) == (0, ["0 worse"])


def test_a_lower_ratio_fails(tmp_path, capsys):
    old, new = two_cells(), two_cells()
    new["cells"][0]["runs"][1] = line("torch", "torch", 1.4)
    code, lines = compared(tmp_path, capsys, old, new)
    assert code == 1
    assert lines == [
        "worse: beside: torch takes 2 [1.9, 2.1] -> 1.4 [1.33, 1.47] times our time", "1 worse",
    ]  # fmt: skip


def test_a_faster_peer_is_no_loss_of_ours(tmp_path, capsys):
    old, new = two_cells(), two_cells()
    new["cells"][0]["runs"][1] = line("torch", "torch", 1.4) | {"base_ns": {"median": 500.0}}
    note = "no loss of ours: beside: torch takes 2 [1.9, 2.1] -> 1.4 [1.33, 1.47] times our time"
    assert compared(tmp_path, capsys, old, new) == (0, [f"{note}, which did not rise", "0 worse"])
    new["about"]["cpu"] = "b"  # times cannot be compared
    assert compared(tmp_path, capsys, old, new)[0] == 1


@pytest.mark.parametrize("disturbed", ["old", "new"])
def test_a_disturbed_cell_must_lose_more(tmp_path, capsys, disturbed):
    old, new = two_cells(), two_cells()
    new["cells"][0]["runs"][1] = line("torch", "torch", 1.4)
    (old if disturbed == "old" else new)["cells"][0]["disturbed"] = 0.3
    assert compared(tmp_path, capsys, old, new) == (0, ["0 worse"])
    new["cells"][0]["runs"][1] = line("torch", "torch", 1.2)
    assert compared(tmp_path, capsys, old, new)[0] == 1


def test_our_time_counts_where_there_is_no_peer(tmp_path, capsys):
    old, new = two_cells(), two_cells()
    for cell in new["cells"]:
        cell["runs"][0] = line(cell["runs"][0]["label"], "fastsoftmax", ns=1500.0)
    code, lines = compared(tmp_path, capsys, old, new)
    assert code == 1
    assert lines == ["worse: itself: random takes 1 [0.95, 1.05] -> 1.5 [1.43, 1.57] us", "1 worse"]


def test_a_slower_small_call_fails(tmp_path, capsys):
    old, new = two_cells(), two_cells()
    old["forms"] = [{"function": "f", "form": "x", "adds": 2.0}]
    new["forms"] = [{"function": "f", "form": "x", "adds": 2.5},
                    {"function": "f", "form": "y", "adds": 9.0}]  # fmt: skip
    assert compared(tmp_path, capsys, old, new) == (0, ["0 worse"])
    new["forms"][0]["adds"] = 2.7
    code, lines = compared(tmp_path, capsys, old, new)
    assert code == 1
    assert lines == ["worse: f x takes 2 -> 2.7 times np.add", "1 worse"]


def test_what_one_side_lacks_is_told_and_no_failure(tmp_path, capsys):
    old, new = two_cells(), two_cells()
    del old["cells"][1], new["cells"][0]["runs"][1]
    new["about"]["cpu"] = "b"
    assert compared(tmp_path, capsys, old, new) == (0, [
        "cpu differs: a -> b",
        "only in the old run: beside: torch",
        "only in the new run: itself: random",
        "only in the new run: itself: ascending",
        "0 worse",
    ])  # fmt: skip


def test_a_real_run_is_no_worse_than_itself(run, tmp_path, capsys):
    assert compared(tmp_path, capsys, run, copy.deepcopy(run)) == (0, ["0 worse"])


# --- The command itself -------------------------------------------------------------------------


def test_command_prints_and_writes_json(tmp_path):
    import fastsoftmax

    # The same fastsoftmax as here, wherever it is installed.
    path = os.pathsep.join([str(Path(fastsoftmax.__file__).parents[1]), str(ROOT)])
    options = ["--quick", "--only", "^softmax.*1,10[)]", "--json", "o.json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "softmax float32 (1,10)" in done.stdout
    run = json.loads((tmp_path / "o.json").read_text())
    assert [cell["name"] for cell in run["cells"]] == ["softmax float32 (1,10)"]
    assert run["cells"][0]["runs"][0]["label"] == "fastsoftmax"


def test_unmatched_pattern_lists_the_cells(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "no such cell"])
    assert "logsumexp float32 (64,1000)" in capsys.readouterr().err


def test_picture_without_matplotlib_is_refused_beforehand(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "benchmarks.picture", raising=False)
    monkeypatch.delattr("benchmarks.picture", raising=False)
    with pytest.raises(SystemExit):
        command.main(["--picture", "x.png"])
    assert "--picture needs matplotlib" in capsys.readouterr().err


def test_a_disturbed_cell_is_measured_again(monkeypatch):
    paces = iter([10.0, 10.5, 14.0, 11.0])  # three cells; the last is the third again
    order = []

    def measure(cell, *_):
        order.append(cell.name)
        return {"name": cell.name, "mean": None, "runs": [], "pace_ns": next(paces)}

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(command.report, "cell_lines", lambda result: [])
    monkeypatch.setattr(command, "AGAIN", 1e9)
    run = command._run(cells.CELLS[:3], 0, loud=False)
    assert order == [cell.name for cell in (*cells.CELLS[:3], cells.CELLS[2])]
    assert [cell["disturbed"] for cell in run["cells"]] == pytest.approx([0, 0.05, 0.1])
