"""The list of mutants fits the sources, and the tests kill each of them."""

import pytest

from tests.mutants import run

MUTANTS = run.mutants()
each = pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])


@each
def test_a_mutant_changes_one_place_of_a_source(mutant):
    assert (run.PACKAGE / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert all((run.ROOT / test).exists() for test in mutant.tests.split())
    assert all((run.PACKAGE / f"{m}.pyx").exists() for m in mutant.modules)


def test_there_are_many():
    assert len(MUTANTS) >= 40


@pytest.mark.weekly
@each
def test_a_mutant_is_killed(mutant):
    result = run.kill(mutant)
    assert result, "no test notices it"
    print(f"{result[1]:.1f} s: {result[0]}")
