"""``python -m benchmarks.threads``: what it calls a ratio, and that every call of it runs."""

import sys
import threading
import time
from functools import partial
from pathlib import Path

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import threads


def test_the_ratio_of_calls_beside_one_another_and_of_calls_in_turns():
    lock = threading.Lock()

    def sleep_in_turns():
        with lock:
            time.sleep(2e-3)

    one, two, beside = threads.measure([partial(time.sleep, 2e-3)] * 2, 5, 0.01)
    assert 1.3 < two / one < 3
    assert 1.3 < beside < 3
    _, _, in_turns = threads.measure([sleep_in_turns] * 2, 5, 0.01)
    assert in_turns < min(1.5, 0.8 * beside)  # 1, and half as much, on an idle machine


def test_a_line_for_each_call(capsys, monkeypatch):
    monkeypatch.setattr(threads, "measure", partial(threads.measure, rounds=1, sample_s=0))
    threads.main(["3"])
    first, head, *lines = capsys.readouterr().out.splitlines()
    assert "the GIL" in first
    assert "3 threads" in head
    assert [line[:28].strip() for line in lines] == [*threads._calls(0)]
    assert all(len([*map(float, line[28:].split())]) == 3 for line in lines)
