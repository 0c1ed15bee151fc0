"""``python -m benchmarks.threads``: what it calls a ratio, and that every call of it runs."""

import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

# Appended, so that an installed fastsoftmax still comes before the one in the checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import threads


def test_the_ratio_of_calls_beside_one_another_and_of_calls_in_turns():
    lock = threading.Lock()

    def sleep_in_turns():
        with lock:
            time.sleep(2e-3)

    for _ in range(9):  # on a busy machine some are off
        one, two, beside = threads.measure([partial(time.sleep, 2e-3)] * 2, 5, 0.01)
        _, _, in_turns = threads.measure([sleep_in_turns] * 2, 5, 0.01)
        # 2, 2 and 1 on an idle machine
        if 1.5 < beside < 2.5 and 1.5 < two / one < 2.5 and 0.75 < in_turns < 1.25:
            return
    pytest.fail(f"{two / one}, {beside}, {in_turns}")


def test_a_line_for_each_call(capsys, monkeypatch):
    monkeypatch.setattr(threads, "measure", partial(threads.measure, rounds=1, sample_s=0))
    threads.main(["3"])
    first, head, *lines = capsys.readouterr().out.splitlines()
    assert "the GIL" in first
    assert "3 threads" in head
    assert [line[:28].strip() for line in lines] == [*threads._calls(0)]
    assert all(len([*map(float, line[28:].split())]) == 3 for line in lines)
