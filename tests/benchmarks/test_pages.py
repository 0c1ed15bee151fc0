"""The figures of a run in the pages that show them: whole tables, and a small one."""

import pytest

from benchmarks import pages
from tests.docs.pages import PAGES, ROOT

RUN = """\
- CPU: new
- Versions: new

| Softmax: times ours | ours | GB/s | torch | numpy |
| --- | ---: | ---: | ---: | ---: |
| softmax (1,10) | 2.0 us [1.9, 2.1] | 9 | 3.0 [2.9, 3.1] | 4.0 [3.9, 4.1] |
| **mean** |  |  | **3.0** | **4.0** |

| error in u | ours | torch |
| --- | ---: | ---: |
| softmax (1,10) | 1 / 2 | 3 / 4 |
"""
PAGE = """\
- CPU: old

| Softmax: times ours | ours | GB/s | numpy |
| --- | ---: | ---: | ---: |
| softmax (1,10) | 7 us [6, 8] | 5 | 8 [7, 9] |
| **mean** |  |  | **7** |
| softmax (2,20) | 7 us [6, 8] | 5 | 8 [7, 9] |

| error in u | ours | torch |
| --- | ---: | ---: |
| softmax (1,10) | 7 | 7 |

| small | ours | torch | llama.cpp |
| --- | ---: | ---: | ---: |
| softmax (1,10) | 7 us | 7 |  |

| another table | ours |
| --- | ---: |
| something | 7 |
"""
NEW = """\
- CPU: new

| Softmax: times ours | ours | GB/s | numpy |
| --- | ---: | ---: | ---: |
| softmax (1,10) | 2.0 us [1.9, 2.1] | 9 | 4.0 [3.9, 4.1] |
| **mean** |  |  | **4.0** |
| softmax (2,20) | 7 us [6, 8] | 5 | 8 [7, 9] |

| error in u | ours | torch |
| --- | ---: | ---: |
| softmax (1,10) | 1 / 2 | 3 / 4 |

| small | ours | torch | llama.cpp |
| --- | ---: | ---: | ---: |
| softmax (1,10) | 2.0 us | 3.0 |  |

| another table | ours |
| --- | ---: |
| something | 7 |
"""


def test_rows_of_the_same_name_are_replaced():
    assert pages.updated(PAGE, RUN) == (NEW, ["Softmax: times ours: softmax (2,20)"])
    assert pages.updated(NEW, RUN)[0] == NEW


@pytest.mark.parametrize("page", ["docs/performance.md", "README.md"])
def test_a_page_is_what_a_run_would_make_of_it(page):
    """Its tables have the form that the update reads: a page updated by itself stays."""
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert pages.updated(PAGES[page].read_text("utf-8"), text) == (
        PAGES[page].read_text("utf-8"),
        [],
    )


def test_the_command_writes_the_pages(tmp_path, capsys):
    (tmp_path / "run.md").write_text(RUN)
    (tmp_path / "page.md").write_text(PAGE)
    pages.main(tmp_path / "run.md", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == NEW
    assert "softmax (2,20)" in capsys.readouterr().out
